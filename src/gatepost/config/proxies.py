"""Who is believed when it says who the client is, and what to know of it: load balancers, proxies, filters in front of the gateway.

Such a host decides who may relay, because it can name any address that may. So it must not be the world, nor may the world stand
behind it with its address. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from gatepost.config.errors import Findings
from gatepost.config.schema import Config

MOST_ADDRESSES = {4: 1 << 24, 6: 1 << 112}  # of all of one list: one /8, one /16


def proxy_networks(config: Config) -> list[tuple[str, str]]:
    """Each network that is believed, with the key that says so."""
    found = [("smtp.proxy_from", text) for text in config.smtp.proxy_from]
    found += [("smtp.xclient_from", text) for text in config.smtp.xclient_from]
    for number, row in enumerate(config.listeners):
        found += [(f"listeners[{number}].proxy_from", text) for text in row.proxy_from]
    return found


def check_proxies(values: dict[str, object], findings: Findings) -> None:
    """Many networks can make the world as well as one."""
    smtp = values.get("smtp")
    smtp = smtp if isinstance(smtp, dict) else {}
    rows = values.get("listeners")
    for key in ("proxy_from", "xclient_from"):
        _check_width(smtp.get(key) or (), ("smtp", key), findings)
    auth = values.get("auth")
    if smtp.get("xclient_login") and not (isinstance(auth, dict) and auth.get("users_file")):
        problem = "a login that a proxy names is nobody's: there are no users"
        findings.add(("smtp", "xclient_login"), problem, "remove it, or set users_file in [auth]")
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        _check_width(row.get("proxy_from") or (), ("listeners", number, "proxy_from"), findings)


def _check_width(texts: Iterable[str], key: tuple[str | int, ...], findings: Findings) -> None:
    parsed = [ipaddress.ip_network(text) for text in texts]
    for version, most in MOST_ADDRESSES.items():
        merged = ipaddress.collapse_addresses(network for network in parsed if network.version == version)  # type: ignore[type-var]
        if sum(network.num_addresses for network in merged) > most:
            findings.add(
                key, f"the IPv{version} networks together are far more than a few proxies", "list the proxies by their addresses"
            )  # fmt: skip
