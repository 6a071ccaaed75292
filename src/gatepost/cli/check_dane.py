"""What `gatepost check` says of DANE: whether the configured resolver validates, asked of it as the gateway will."""

from __future__ import annotations

import asyncio

from gatepost.config.schema import Config
from gatepost.config.tlsvalues import asks_dane
from gatepost.net.dns import StubResolver
from gatepost.net.dnsnames import read_resolv_conf

WAIT_S = 3.0


def dane_statement(config: Config) -> str:
    """One sentence; empty if no policy asks for DANE."""
    return f"DANE for outgoing mail: {asyncio.run(_ask(config))}." if asks_dane(config) else ""


async def _ask(config: Config) -> str:
    servers = list(config.dns.servers) or read_resolv_conf() or ["127.0.0.1:53"]
    resolver = StubResolver(servers, config.dns, loop=asyncio.get_running_loop())
    try:
        if not resolver.trusts_ad:
            return f"not in effect, because not all DNS servers ({', '.join(servers)}) are on loopback (dns.trust_ad)"
        if not config.dns.probe:
            return "not known, because dns.probe is empty"
        async with asyncio.timeout(WAIT_S):
            done = await resolver.query("SOA", config.dns.probe)
    except TimeoutError:
        return f"not in effect, because {', '.join(servers)} did not answer within {WAIT_S:g} s"
    finally:
        resolver.close()
    if done.status == "tempfail":
        return f"not in effect, because {config.dns.probe} could not be looked up ({done.reason})"
    if done.secure:
        return "in effect"
    return f"not in effect, because {', '.join(servers)} did not validate {config.dns.probe}"
