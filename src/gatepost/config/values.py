"""Single values of a configuration: domain names, networks, listen addresses.

Each parser takes text, returns the one canonical form, and raises `InvalidValue`, which says what is wrong and what to
write instead. Pure: no DNS, no files. Domain names become lower-case A-labels without a trailing dot (RFC 5890, RFC 5321
2.3.5); networks that cover so much of the internet that they would make an open relay are not accepted by any parser here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

import idna

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

SHORTEST_PREFIX = {4: 8, 6: 16}
# Where an IPv6 prefix holds the IPv4 internet, the bits in front of the IPv4 address (and the eight of the shortest prefix).
_EMBEDDED_IPV4 = {
    ipaddress.IPv6Network("::/96"): 96,  # IPv4-compatible, RFC 4291 2.5.5.1
    ipaddress.IPv6Network("64:ff9b::/96"): 96,  # NAT64, RFC 6052
    ipaddress.IPv6Network("2001::/32"): 32,  # Teredo, RFC 4380
    ipaddress.IPv6Network("2002::/16"): 16,  # 6to4, RFC 3056
}

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})  # RFC 3490 3.1: what IDNA takes for a dot


class InvalidValue(ValueError):
    """A value of the configuration that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
        self.advice = advice


class ListenAddress(NamedTuple):
    """Where a listening socket is bound; `str()` is the canonical "192.0.2.1:25" or "[2001:db8::1]:25"."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_domain(text: str) -> str:
    """The lower-case A-label form of a domain name, without a trailing dot; wildcards and addresses are refused."""
    name = text.strip().translate(_DOTS).removesuffix(".").lower()
    if not name:
        raise InvalidValue("the domain name is empty", 'write a name such as "example.net"')
    if "*" in name:
        raise InvalidValue(f'"{text}" is a wildcard', "list each domain by its full name")
    if "@" in name:
        advice = f'write only the part behind the @: "{name.rpartition("@")[2]}"'
        raise InvalidValue(f'"{text}" is a mail address, not a domain', advice)
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
        except idna.IDNAError as error:
            advice = "check the spelling, or write its A-label form (xn--...)"
            raise InvalidValue(f'"{text}" is not a valid internationalised domain name ({error})', advice) from None
    _check_labels(text, name)
    return name


def _check_labels(text: str, name: str) -> None:
    labels = name.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        raise InvalidValue(
            f'"{text}" is not a domain name but looks like an address', 'write a name like "example.net"'
        )
    for label in labels:
        if not label:
            raise InvalidValue(f'"{text}" has an empty label', "remove the surplus dot")
        if not _LABEL.fullmatch(label):
            advice = "use letters, digits and inner hyphens only, at most 63 in each label"
            raise InvalidValue(f'"{text}" is not a domain name: the label "{label}" is not valid', advice)
        if label.startswith("xn--"):
            try:
                idna.ulabel(label)
            except idna.IDNAError:
                raise InvalidValue(f'"{text}" has an A-label that does not decode', "check the spelling") from None
    if len(name) > 253:
        raise InvalidValue(f'"{text[:40]}..." is longer than 253 characters', "write a shorter name")


def parse_fqdn(text: str) -> str:
    """A domain name of at least two labels, for what the gateway calls itself."""
    name = parse_domain(text)
    if "." not in name:
        advice = f'write the full name that DNS knows, such as "{name}.example.net"'
        raise InvalidValue(f'"{text}" is not a fully qualified host name', advice)
    return name


def parse_address(text: str) -> IPAddress:
    """An IP address without port, prefix length or zone."""
    try:
        address = ipaddress.ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidValue(f'"{text}" is not an IP address', 'write one like "192.0.2.1" or "2001:db8::1"') from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise InvalidValue(f'"{text}" has a zone', "write an address without %zone")
    return address


def parse_network(text: str, danger: str = "an open relay") -> IPNetwork:
    """A network in CIDR form, or a single address; refuses host bits and networks so wide that they mean `danger`."""
    example = 'write a network such as "192.0.2.0/24" or "2001:db8::/32", or a single address'
    try:
        wide = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        if re.search(r"[g-z]", text.strip().lower()):
            problem = (
                f'"{text}" is a name, and names are not trusted here: whoever answers for it in DNS could be anyone'
            )
            raise InvalidValue(problem, example) from None
        raise InvalidValue(f'"{text}" is not a network', example) from None
    if "%" in text:
        raise InvalidValue(f'"{text}" has a zone', "write a network without %zone")
    network = _unmapped(wide)
    shortest = SHORTEST_PREFIX[network.version]
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= shortest:
        for prefix, embedded_at in _EMBEDDED_IPV4.items():
            if network.overlaps(prefix) and network.prefixlen < 128:
                shortest = max(shortest, embedded_at + SHORTEST_PREFIX[4])
    if network.prefixlen < shortest:
        problem = f'"{text}" is {"the whole internet" if not network.prefixlen else "far more than one organisation"}'
        advice = f"that would be {danger}: list your own networks (/{shortest} or longer)"
        raise InvalidValue(problem, advice)
    try:
        ipaddress.ip_network(text.strip())
    except ValueError:
        host = text.strip().split("/")[0]
        problem = f'"{text}" has bits set behind its prefix length'
        raise InvalidValue(problem, f'write "{network}" for the network, or "{host}" for that one address') from None
    return network


def _unmapped(network: IPNetwork) -> IPNetwork:
    """`::ffff:10.0.0.0/104` means `10.0.0.0/8` (RFC 4291 2.5.5.2)."""
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96))


def parse_port(text: str, whole: str) -> int:
    """A TCP port, 1 to 65535; `whole` is the value it stands in, for the message."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise InvalidValue(f'"{whole}" has no valid port', "write a port from 1 to 65535 behind the last colon")
    return int(text)


def split_host_port(text: str, whole: str) -> tuple[str, str]:
    """`host:port`, `[v6]:port` or either without port -> (host without brackets, port text or "")."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidValue(f'"{whole}" has unbalanced brackets', "write an IPv6 address as [2001:db8::1]:25")
        if ":" not in host:
            raise InvalidValue(f'"{whole}" has brackets around what is not an IPv6 address', "leave the brackets out")
        return host, rest[1:]
    if text.count(":") > 1:
        raise InvalidValue(f'"{whole}" has an IPv6 address without brackets', "write it as [2001:db8::1]:25")
    host, _, port = text.partition(":")
    return host, port


def parse_listen(text: str) -> ListenAddress:
    """An address and port to listen on; "*:25" and names are refused, since they do not say what is bound."""
    example = 'write ADDRESS:PORT, such as "192.0.2.1:25", "[2001:db8::1]:25", "0.0.0.0:25" or "[::]:25"'
    stripped = text.strip()
    port = stripped.lstrip(":*")
    if port.isdigit() and not stripped.startswith("::"):
        example = f'write "0.0.0.0:{port}" for every IPv4 and "[::]:{port}" for every IPv6 address'
        raise InvalidValue(f'"{text}" names no address', example)
    host, port = split_host_port(stripped, text)
    if not port:
        raise InvalidValue(f'"{text}" has no port', example)
    try:
        address = parse_address(host)
    except InvalidValue:
        raise InvalidValue(f'"{text}" has no IP address in front of the port', example) from None
    return ListenAddress(str(address), parse_port(port, text))
