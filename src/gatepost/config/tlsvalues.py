"""Single values of TLS settings: names in certificates, fingerprints, domain patterns; and what TLS asks of listeners.

Pure, canonical text out, `InvalidValue` for what is wrong. Not here: reading certificates (`net/tlscontext.py`), which policy
holds (`delivery/tlspolicy.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gatepost.config.values import InvalidValue, parse_address, parse_domain

if TYPE_CHECKING:
    from gatepost.config.errors import Findings
    from gatepost.config.schema import Config

SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"

_HEX = re.compile(r"[0-9a-f]{64}")


def parse_tls_domain(text: str) -> str:
    """`example.org`, or `.example.org` for all that is below it."""
    stripped = text.strip()
    if stripped.startswith("*."):
        raise InvalidValue(f'"{text}" is a wildcard', f'write "{stripped[1:]}" for all names below it')
    if stripped.startswith("."):
        return "." + parse_domain(stripped[1:])
    return parse_domain(stripped)


def parse_certificate_name(text: str) -> str:
    """`mx.example.net`, `*.example.net` for one label in its place, `user@example.net`, or an IP address."""
    stripped = text.strip()
    if "@" in stripped:
        local, _, domain = stripped.rpartition("@")
        if not local:
            raise InvalidValue(f'"{text}" has nothing in front of the @', "write a whole address")
        return f"{local.lower()}@{parse_domain(domain)}"
    if stripped.startswith("*."):
        name = parse_domain(stripped[2:])
        if "." not in name:
            raise InvalidValue(f'"{text}" is every name below "{name}"', "write a name of two labels behind the *")
        return f"*.{name}"
    try:
        return parse_domain(stripped)
    except InvalidValue:
        if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", stripped):
            return str(parse_address(stripped))
        raise


def parse_fingerprint(text: str) -> str:
    """SHA-256 as `openssl x509 -fingerprint -sha256` prints it, or without the colons; lower case."""
    plain = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if _HEX.fullmatch(plain) is None:
        advice = "write the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints"
        raise InvalidValue(f'"{text}" is not a SHA-256 fingerprint', advice)
    return plain


def asks_dane(config: Config) -> bool:
    """Whether any policy of sending asks for TLSA records."""
    return any(
        level in ("best", "dane", "dane-only")
        for level in (config.tls.outbound, *(row.level for row in config.tls.policies))
    )


def parse_probe(text: str) -> str:
    """A domain, or nothing."""
    return parse_domain(text) if text.strip() else ""


def check_tls(values: dict[str, object], findings: Findings) -> None:
    """What spans several keys: listeners against `listen` and certificates, policies against themselves."""
    tls = values.get("tls")
    tls = tls if isinstance(tls, dict) else {}
    has_certificate = bool(tls.get("certificates"))
    _check_listeners(values, findings, has_certificate)
    if tls.get("require") and not has_certificate:
        problem = "mail shall come by TLS only, and there is no certificate"
        findings.add(("tls", "require"), problem, "add [[tls.certificates]] with certificate_file and key_file")
    for number, policy in enumerate(tls.get("policies") or ()):
        here = ("tls", "policies", number)
        if "domains" not in policy and "next_hops" not in policy:
            findings.add(here, "it names neither domains nor next hops", 'write domains = ["example.org"]')
        unused = [key for key in ("names", "ca_file", "fingerprints") if policy.get(key)]
        if unused and policy.get("level") != "verify":
            problem = f'{unused[0]} says how to verify, and the level is "{policy.get("level")}"'
            findings.add((*here, unused[0]), problem, 'write level = "verify", or remove it')
    relay = values.get("relay")
    for number, row in enumerate((relay.get("certificates") if isinstance(relay, dict) else None) or ()):
        if "names" not in row and "fingerprints" not in row:
            here = ("relay", "certificates", number)
            problem = "every certificate of that authority could relay"
            findings.add(here, problem, "list names or fingerprints of the clients that may")


def _check_listeners(values: dict[str, object], findings: Findings, has_certificate: bool) -> None:
    listen = values.get("listen")
    listeners = values.get("listeners")
    taken = {address: "listen" for address in listen} if isinstance(listen, list) else {}
    for number, row in enumerate(listeners if isinstance(listeners, list) else ()):
        here = ("listeners", number)
        address = row.get("address")
        if address in taken:
            findings.add((*here, "address"), f'"{address}" is given twice, also in {taken[address]}', "remove one")
        taken[address] = f"listeners {number + 1}"
        needs = row.get("kind", "submission") != "edge" or row.get("require_tls")
        needs = needs and address is not None and not str(address).startswith("unix:")
        if needs and row.get("require_tls") is not False and not has_certificate:
            problem = f'on "{address}" TLS is required, and there is no certificate'
            findings.add(here, problem, "add [[tls.certificates]] with certificate_file and key_file")
        elif row.get("kind") == "submissions" and row.get("require_tls") is False:
            problem = "a port with TLS from the first octet cannot be without TLS"
            findings.add((*here, "require_tls"), problem, 'remove it, or write kind = "submission"')
