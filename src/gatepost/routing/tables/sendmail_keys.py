"""Keys and values of sendmail's access table: tags, prefixes of addresses, and what the values mean.

The keys that a lookup tries are made here, in sendmail's order; the table itself is in `sendmail_access.py`. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

import msgspec

from gatepost.config.errorreply import parse_error
from gatepost.config.tlsdemands import parse_demand

POLICY_TAGS = ("connect", "from", "to", "spam")
NUMBER_TAGS = {"clientrate": 60_000, "clientconn": 60_000, "greetpause": 300_000}  # the largest value
DEMAND_TAGS = ("tls_srv", "tls_clt", "tls_rcpt")  # what is demanded of TLS: config/tlsdemands.py
TRY_TAG = "try_tls"  # whether TLS is tried towards a host
TLS_TAGS = ("tls_srv_features", "tls_clt_features", "srv_features", "clt_features")
OTHER_TAGS = ("authinfo", "certissuer", "certsubject")
ISSUER_TAG = "citag"  # of our own: an issuer that a demand names by CITag:
TAGS = (*POLICY_TAGS, *NUMBER_TAGS, *DEMAND_TAGS, TRY_TAG, *TLS_TAGS, *OTHER_TAGS, ISSUER_TAG)

_IPV4_PREFIX = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,3}")
_IPV6_PREFIX = re.compile(r"ipv6:[0-9a-f:.]+")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A value: its word, and for ERROR and QUARANTINE what follows."""

    word: str  # OK RELAY REJECT DISCARD SKIP QUARANTINE ERROR FRIEND HATER
    code: int = 0
    detail: str = ""
    text: str = ""


def tag_of(key: str) -> str:
    """The tag of a key in lower case, "" if it has none."""
    tag, colon, _ = key.partition(":")
    return tag if colon and tag in TAGS else ""


def bare_key(key: str) -> str:
    """The key without its tag."""
    tag = tag_of(key)
    return key[len(tag) + 1 :] if tag else key


def parse_value(value: str) -> Answer:
    """The meaning of a value of the policy tags; raises BadError."""
    word = value.upper()
    if word in ("OK", "RELAY", "REJECT", "DISCARD", "SKIP", "FRIEND", "HATER"):
        return Answer(word)
    if word.startswith("QUARANTINE:"):
        return Answer("QUARANTINE", text=value[11:].strip())
    reply = parse_error(value[6:] if word.startswith("ERROR:") else value)
    return Answer("ERROR", reply.code, reply.detail, reply.text)


def network_of(key: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that an address prefix stands for, `10.1` or `IPv6:2001:db8`; None for anything else."""
    if _IPV4_PREFIX.fullmatch(key):
        numbers = key.split(".")
        if any(int(number) > 255 for number in numbers):
            return None
        padded = ".".join(str(int(number)) for number in numbers) + ".0" * (4 - len(numbers))
        return ipaddress.IPv4Network(f"{padded}/{8 * len(numbers)}")
    if not _IPV6_PREFIX.fullmatch(key):
        return None
    text = key[5:]
    try:
        return ipaddress.IPv6Network(f"{ipaddress.IPv6Address(text)}/128")
    except ValueError:
        groups = text.removesuffix("::").removesuffix(":").split(":")
    if not groups or len(groups) > 7 or any(not group or len(group) > 4 for group in groups):
        return None
    try:
        return ipaddress.IPv6Network(f"{':'.join(groups)}::/{16 * len(groups)}")
    except ValueError:
        return None


def address_keys(address: str) -> Iterator[str]:
    """`10.1.2.3`, `10.1.2`, `10.1`, `10`; `ipv6:2001:db8:0:...` down to its first group, in both ways of writing."""
    if ":" not in address:
        while address:
            yield address
            address = address.rpartition(".")[0]
        return
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return
    if parsed.ipv4_mapped is not None:
        yield from address_keys(str(parsed.ipv4_mapped))
        return
    yield f"ipv6:{parsed}"
    groups = [format(int(group, 16), "x") for group in parsed.exploded.split(":")]
    for count in range(8, 0, -1):
        yield "ipv6:" + ":".join(groups[:count])


def canonical_key(key: str) -> str:
    """A key as lookups make it: numbers without leading zeros, IPv6 groups without them and without "::"."""
    tag, bare = tag_of(key), bare_key(key)
    network = network_of(bare)
    if network is not None and network.version == 6:
        groups = [format(int(group, 16), "x") for group in network.network_address.exploded.split(":")]
        bare = "ipv6:" + ":".join(groups[: max(1, network.prefixlen // 16)])
    elif network is not None:
        bare = ".".join(str(network.network_address).split(".")[: network.prefixlen // 8])
    return f"{tag}:{bare}" if tag else bare


def domain_keys(domain: str) -> Iterator[str]:
    """`a.b.c`, `.b.c`, `b.c`, `.c`, `c`; an address literal `[10.1.2.3]` loses its last number."""
    if domain.startswith("["):
        inner = domain[1:-1]
        for key in address_keys(inner.removeprefix("IPv6:")):
            yield f"[{key}]"
        return
    while domain:
        yield domain
        _, dot, rest = domain.partition(".")
        if not dot:
            return
        yield "." + rest
        domain = rest


def full_keys(local: str, domain: str) -> Iterator[str]:
    """`user+detail@domain`, `user+*@domain`, `user@domain`."""
    if not domain:
        return
    yield f"{local}@{domain}"
    user, plus, _ = local.partition("+")
    if plus and user:
        yield f"{user}+*@{domain}"
        yield f"{user}@{domain}"


def user_keys(local: str) -> Iterator[str]:
    """`user+detail@`, `user+*@`, `user@`."""
    yield f"{local}@"
    user, plus, _ = local.partition("+")
    if plus and user:
        yield f"{user}+*@"
        yield f"{user}@"


def is_client_name(key: str) -> bool:
    """Whether a key without its tag stands for the name of a client, `host.example` or `[10.1]` for one without a name."""
    return bool(key) and network_of(key) is None and "@" not in key and key != "localhost"


def names_asked(values: Mapping[str, str]) -> dict[str, bool]:
    """The keys for which the names of clients are looked up; whether a client is put off of whom they cannot be had.

    A line without a tag is for senders and recipients as well, and only a refusal is worth a question.
    """
    found = {}
    for key, value in values.items():
        tag, bare = tag_of(key), bare_key(key)
        if tag in ("connect", "tls_clt", "greetpause") and is_client_name(bare):
            found[key] = tag != "greetpause"
        elif (
            not tag and is_client_name(bare) and parse_value(value).word in ("REJECT", "DISCARD", "QUARANTINE", "ERROR")
        ):
            found[key] = False
        elif tag == "tls_clt" and _asks_own_name(value):
            found[key] = True
    return found


def _asks_own_name(value: str) -> bool:
    demand = parse_demand(value)
    return demand is not None and ("CN", "") in demand.extensions
