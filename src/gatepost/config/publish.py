"""The DNS records that a gateway needs, as text for a zone file.

Pure: no DNS question is asked. Addresses are those the gateway listens on where they are public; otherwise a placeholder says
what to put there. DKIM records stand for the keys that `selftest.dkim_keys` names. MTA-STS and TLSA records will follow
with the parts of the gateway that need them.
"""

from __future__ import annotations

import ipaddress

import msgspec

from gatepost.config.schema import Config
from gatepost.config.values import IPAddress, parse_listen

PLACEHOLDER_IPV4 = "<public IPv4 address>"


class Record(msgspec.Struct, frozen=True):
    """One record to publish, and why."""

    name: str
    type: str
    value: str
    note: str

    def __str__(self) -> str:
        return f"{self.name} IN {self.type} {self.value}"


def records_to_publish(config: Config) -> list[Record]:
    """The records for the host first, then those of each domain."""
    host = f"{config.hostname}."
    records = []
    for address in _public_addresses(config):
        kind = "AAAA" if address.version == 6 else "A"
        pointer = f"{address.reverse_pointer}."
        records.append(Record(host, kind, str(address), "the address of this gateway"))
        records.append(
            Record(pointer, "PTR", host, "set by who gave you the address; many servers refuse mail without")
        )
    if not records:
        note = "the address of this gateway, as seen from outside (and AAAA for IPv6)"
        records.append(Record(host, "A", PLACEHOLDER_IPV4, note))
        note = "set by who gave you the address; many servers refuse mail without"
        records.append(Record(f"<reverse of {PLACEHOLDER_IPV4[1:]}", "PTR", host, note))
    records.append(Record(host, "TXT", '"v=spf1 a -all"', "for mail with the null reverse-path (RFC 7208 2.3)"))
    for domain in config.domains:
        if domain.startswith("."):  # all below a domain: each has records of its own
            continue
        name = f"{domain}."
        records.append(Record(name, "MX", f"10 {host}", "mail for the domain comes to this gateway"))
        note = "only this gateway sends mail of the domain; begin with ~all if others still do"
        records.append(Record(name, "TXT", '"v=spf1 mx -all"', note))
        report = f'"v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
        note = "reports only; go on to p=quarantine and p=reject when the reports are clean"
        records.append(Record(f"_dmarc.{name}", "TXT", report, note))
        records += [
            Record(
                f"{key}.", "TXT", '"v=DKIM1; k=rsa; p=<public key, base64>"', "the key that signs mail of the domain"
            )
            for key in config.selftest.dkim_keys
            if key.partition("._domainkey.")[2] == domain
        ]
    return records


def _public_addresses(config: Config) -> list[IPAddress]:
    addresses: dict[IPAddress, None] = {}
    for text in config.listen:
        address = ipaddress.ip_address(parse_listen(text).address)
        if address.is_global or _is_documentation(address):
            addresses[address] = None
    return list(addresses)


def _is_documentation(address: IPAddress) -> bool:
    """Addresses of RFC 5737 and RFC 3849, so that examples show whole records."""
    networks = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
    return any(address in ipaddress.ip_network(network) for network in networks)
