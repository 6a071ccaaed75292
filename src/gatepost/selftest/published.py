"""The self-test of DNS: what the world finds of this gateway, asked through the DNS servers of the configuration.

A record that is not there is a warning: other servers may refuse our mail or not find us. One that contradicts the gateway (an MX that does
not exist, a reverse name that does not lead back) fails. A question without an answer is skipped: it proves nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress

from gatepost.config.schema import Config
from gatepost.config.values import parse_listen
from gatepost.ipc.messages import LookupDone
from gatepost.net.dns import StubResolver
from gatepost.net.dnsnames import read_resolv_conf
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING, Result

MAX_DOMAINS = 50
GROUP = "DNS"


async def check_published(config: Config) -> list[Result]:
    """One result for each record."""
    servers = list(config.dns.servers) or read_resolv_conf() or ["127.0.0.1:53"]
    resolver = StubResolver(servers, config.dns, loop=asyncio.get_running_loop())
    try:
        asked = _Published(config, resolver)
        return await asked.all()
    finally:
        resolver.close()


class _Published:
    def __init__(self, config: Config, resolver: StubResolver) -> None:
        self._config = config
        self._query = resolver.query

    async def all(self) -> list[Result]:
        host = self._config.hostname
        results = await self._addresses(host)
        results.append(await self._text(host, "v=spf1", f"SPF of {host}", "for mail with the null reverse-path"))
        results.append(await self._record("TLSA", f"_25._tcp.{host}", f"TLSA of {host}", "for senders that use DANE"))
        domains = [name for name in self._config.domains if not name.startswith(".")]
        for name in domains[:MAX_DOMAINS]:
            results.append(await self._mx(name))
            results.append(await self._text(name, "v=spf1", f"SPF of {name}", "publish who may send for it"))
            results.append(
                await self._text(f"_dmarc.{name}", "v=DMARC1", f"DMARC of {name}", "publish what to do with forgeries")
            )
            results.append(
                await self._text(f"_mta-sts.{name}", "v=STSv1", f"MTA-STS of {name}", "for senders that verify TLS")
            )
            results.append(await self._dkim(name))
        if len(domains) > MAX_DOMAINS:
            results.append(
                Result(GROUP, "other domains", SKIPPED, f"only the first {MAX_DOMAINS} domains were asked for")
            )
        return results

    async def _addresses(self, host: str) -> list[Result]:
        results, published = [], set()
        for kind in ("A", "AAAA"):
            done = await self._query(kind, host)
            published.update(done.records)
            if done.status == "tempfail":
                results.append(_no_answer(f"{kind} of {host}", done))
        if not published and not results:
            results.append(
                Result(GROUP, f"address of {host}", WARNING, "not published", '"gatepost init" prints the records')
            )
        listening = [ipaddress.ip_address(parse_listen(text).address) for text in self._config.listen]
        own = {str(address) for address in listening if address.is_global}
        for address in sorted(published | own):
            results.append(await self._reverse(host, address))
        results += [
            Result(
                GROUP,
                f"address of {host}",
                WARNING,
                f"{address} listens and is not published",
                "publish it, or listen elsewhere",
            )
            for address in sorted(own - published)
        ]
        return results

    async def _reverse(self, host: str, address: str) -> Result:
        name = f"PTR of {address}"
        done = await self._query("PTR", address)
        if done.status == "tempfail":
            return _no_answer(name, done)
        names = [record.rstrip(".").lower() for record in done.records]
        if not names:
            return Result(
                GROUP, name, WARNING, "not published", "ask who gave you the address; many servers refuse mail without"
            )
        if host not in names:
            told = f"it says {', '.join(names)}, not {host}"
            return Result(GROUP, name, WARNING, told, f"let it say {host}, which leads back to the address")
        return Result(GROUP, name, OK, "")

    async def _mx(self, domain: str) -> Result:
        name = f"MX of {domain}"
        done = await self._query("MX", domain)
        if done.status == "tempfail":
            return _no_answer(name, done)
        hosts = [record.split()[-1].rstrip(".").lower() for record in done.records]
        if not hosts:
            return Result(GROUP, name, WARNING, "not published", f"publish: {domain}. MX 10 {self._config.hostname}.")
        if hosts == [""]:
            return Result(
                GROUP, name, FAILED, "it is a null MX: the domain takes no mail", "remove it, or the domain here"
            )
        if self._config.hostname in hosts:
            return Result(GROUP, name, OK, "")
        told = f"it names {', '.join(hosts)}, not {self._config.hostname}"
        return Result(GROUP, name, WARNING, told, "is this gateway reached some other way?")

    async def _text(self, name: str, begin: str, title: str, advice: str) -> Result:
        done = await self._query("TXT", name)
        if done.status == "tempfail":
            return _no_answer(title, done)
        found = [text for text in map(_unquoted, done.records) if text.lower().startswith(begin.lower())]
        if not found:
            return Result(GROUP, title, WARNING, "not published", advice)
        if len(found) > 1:  # RFC 7208 4.5, RFC 7489 6.6.3, RFC 8461 3.1: then there is none
            return Result(
                GROUP, title, FAILED, f"{len(found)} records are published, which counts as none", "leave one"
            )
        return Result(GROUP, title, OK, "")

    async def _record(self, kind: str, name: str, title: str, advice: str) -> Result:
        done = await self._query(kind, name)
        if done.status == "tempfail":
            return _no_answer(title, done)
        return Result(GROUP, title, OK, "") if done.records else Result(GROUP, title, WARNING, "not published", advice)

    async def _dkim(self, domain: str) -> Result:
        """Whether keys are published at all below _domainkey; which selector is ours is not configured yet."""
        title = f"DKIM of {domain}"
        done = await self._query("TXT", f"_domainkey.{domain}")
        if done.status == "tempfail":
            return _no_answer(title, done)
        if done.status == "nxdomain":
            return Result(
                GROUP, title, WARNING, "not published: there is nothing below _domainkey", "sign, and publish the key"
            )
        return Result(GROUP, title, OK, "something is published below _domainkey")


def _unquoted(record: str) -> str:
    """The text of a TXT record in presentation form."""
    return record.strip().strip('"').replace('" "', "")


def _no_answer(name: str, done: LookupDone) -> Result:
    return Result(
        GROUP, name, SKIPPED, f"no answer: {done.reason}", "are the DNS servers right? see [dns] in docs/config.md"
    )
