"""The self-test of DNS: what the world finds of this gateway, asked through the DNS servers of the configuration.

A record that is not there is a warning: other servers may refuse our mail or not find us. One that contradicts the gateway (an MX that does
not exist, a reverse name that does not lead back) fails. A question without an answer is skipped: it proves nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress

from gatepost.config.schema import Config
from gatepost.config.values import parse_listen
from gatepost.delivery.dane import DANE_TA, is_end_entity, public_key_of, usable_records
from gatepost.ipc.messages import LookupDone
from gatepost.net.dns import StubResolver
from gatepost.net.dnsnames import read_resolv_conf
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING, Result

MAX_DOMAINS = 50
GROUP = "DNS"


async def check_published(config: Config, certificate: bytes = b"") -> list[Result]:
    """One result for each record; `certificate` (DER) is the one that other servers are shown, if any."""
    servers = list(config.dns.servers) or read_resolv_conf() or ["127.0.0.1:53"]
    resolver = StubResolver(servers, config.dns, loop=asyncio.get_running_loop())
    try:
        asked = _Published(config, resolver, certificate)
        return await asked.all()
    finally:
        resolver.close()


class _Published:
    def __init__(self, config: Config, resolver: StubResolver, certificate: bytes) -> None:
        self._config = config
        self._certificate = certificate
        self._query = resolver.query

    async def all(self) -> list[Result]:
        host = self._config.hostname
        results = await self._addresses(host)
        results.append(await self._text(host, "v=spf1", f"SPF of {host}", "for mail with the null reverse-path"))
        results.append(await self._tlsa(host))
        domains = [name for name in self._config.domains if not name.startswith(".")]
        for name in domains[:MAX_DOMAINS]:
            results.append(await self._mx(name))
            results.append(await self._text(name, "v=spf1", f"SPF of {name}", "publish who may send for it"))
            results.append(
                await self._text(f"_dmarc.{name}", "v=DMARC1", f"DMARC of {name}", "publish what to do with forgeries")
            )
            results.append(await self._mta_sts(name))
            results += await self._dkim(name)
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

    async def _tlsa(self, host: str) -> Result:
        """A record that does not fit the certificate is worse than none: senders that use DANE then keep their mail (RFC 7672 2.1)."""
        title = f"TLSA of {host}"
        done = await self._query("TLSA", f"_25._tcp.{host}")
        if done.status == "tempfail":
            return _no_answer(title, done)
        if not done.records:
            return Result(GROUP, title, WARNING, "not published", "for senders that use DANE")
        records = usable_records(done.records)
        if not records:
            return Result(
                GROUP, title, WARNING, "none of the records can be used", 'publish "3 1 1" and a SHA-256 digest'
            )
        if not self._certificate or any(record.usage == DANE_TA for record in records):
            return Result(GROUP, title, OK, "published; not compared with the certificate")
        if is_end_entity(records, [self._certificate]):
            return Result(GROUP, title, OK, "")
        wanted = hashlib.sha256(public_key_of(self._certificate)).hexdigest()
        return Result(
            GROUP, title, FAILED, "no record fits the certificate", f"publish 3 1 1 {wanted}, or remove the records"
        )

    async def _mta_sts(self, domain: str) -> Result:
        title = f"MTA-STS of {domain}"
        found = await self._text(f"_mta-sts.{domain}", "v=STSv1", title, "for senders that verify TLS")
        if found.verdict != OK:
            return found
        for kind in ("A", "AAAA"):  # of the host that serves the policy (RFC 8461 3.3)
            done = await self._query(kind, f"mta-sts.{domain}")
            if done.status == "tempfail":
                return _no_answer(title, done)
            if done.records:
                return found
        told = f"mta-sts.{domain} has no address, so that nobody finds the policy"
        return Result(GROUP, title, WARNING, told, "serve /.well-known/mta-sts.txt there, or remove the record")

    async def _dkim(self, domain: str) -> list[Result]:
        """The keys that `selftest.dkim_keys` names; without one, whether there is anything at all below _domainkey."""
        names = [name for name in self._config.selftest.dkim_keys if name.partition("._domainkey.")[2] == domain]
        if names:
            return [await self._dkim_key(name) for name in names]
        title = f"DKIM of {domain}"
        done = await self._query("TXT", f"_domainkey.{domain}")
        if done.status == "tempfail":
            return [_no_answer(title, done)]
        if done.status == "nxdomain":
            told = "not published: there is nothing below _domainkey"
            return [Result(GROUP, title, WARNING, told, "sign, and publish the key")]
        told = "something is published below _domainkey; name the keys in selftest.dkim_keys to have them looked at"
        return [Result(GROUP, title, OK, told)]

    async def _dkim_key(self, name: str) -> Result:
        """RFC 6376 3.6.1."""
        title = f"DKIM key {name}"
        done = await self._query("TXT", name)
        if done.status == "tempfail":
            return _no_answer(title, done)
        if not done.records:
            return Result(GROUP, title, FAILED, "not published: what is signed with it does not verify", "publish it")
        if len(done.records) > 1:
            return Result(
                GROUP, title, FAILED, f"{len(done.records)} records; which one counts is not defined", "leave one"
            )
        wrong = wrong_key(_unquoted(done.records[0]))
        return Result(GROUP, title, FAILED if wrong else OK, wrong, "publish it anew" if wrong else "")


def wrong_key(text: str) -> str:
    """What is the matter with a DKIM key record; empty if nothing is."""
    tags = {}
    for part in text.split(";"):
        tag, equals, value = part.partition("=")
        if equals:
            tags[tag.strip()] = "".join(value.split())
    if tags.get("v", "DKIM1") != "DKIM1":
        return "its version is not DKIM1"
    if tags.get("k", "rsa") not in ("rsa", "ed25519"):
        return f"its kind of key, {tags['k'][:20]!a}, is not known"
    if "p" not in tags:
        return "it has no key (p=)"
    if not tags["p"]:
        return "the key is revoked (p= is empty)"
    try:
        key = base64.b64decode(tags["p"], validate=True)
    except ValueError:
        return "the key is not base64"
    if tags.get("k", "rsa") == "ed25519":
        return "" if len(key) == 32 else "an ed25519 key has 32 octets"
    return "" if len(key) >= 160 else "the RSA key has less than 1,024 bits (RFC 8301)"


def _unquoted(record: str) -> str:
    """The text of a TXT record in presentation form."""
    return record.strip().strip('"').replace('" "', "")


def _no_answer(name: str, done: LookupDone) -> Result:
    return Result(
        GROUP, name, SKIPPED, f"no answer: {done.reason}", "are the DNS servers right? see [dns] in docs/config.md"
    )
