"""sendmail's access table as it is: tags, values, and the order in which they are asked.

A lookup tries `Tag:key`, then `key`, at every step: an IPv4 address loses its last number, an IPv6 address its last group, a
domain its first label (`.rest` is asked too), an address its `+detail`; first the address, then `user@`, then the domain.
What RELAY means is not decided here but when the configuration is loaded (`sendmail_rights.py`): it becomes networks and
recipient domains of the relay algebra, or an error. Passwords (`AuthInfo:`) are not kept.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import ClassVar

from gatepost.config.errorreply import BadError
from gatepost.config.tables import TableData
from gatepost.config.tlsdemands import ADVICE as DEMAND_ADVICE
from gatepost.config.tlsdemands import (
    BadDemand,
    Demand,
    canonical_issuer,
    decoded,
    issuer_tags,
    parse_demand,
    with_issuers,
)
from gatepost.routing.tables.sendmail_keys import (
    DEMAND_TAGS,
    ISSUER_TAG,
    NUMBER_TAGS,
    OTHER_TAGS,
    POLICY_TAGS,
    TAGS,
    TLS_TAGS,
    TRY_TAG,
    Answer,
    address_keys,
    bare_key,
    canonical_key,
    domain_keys,
    full_keys,
    is_client_name,
    names_asked,
    parse_value,
    tag_of,
    user_keys,
)
from gatepost.routing.tables.sendmail_rights import rights_of
from gatepost.routing.tables.sendmail_source import lines_of, read_makemap
from gatepost.routing.tables.source import Collector

_SPAM = {
    "FRIEND": "a FRIEND gets what they would refuse",
    "HATER": "only for a HATER they are refused, all others get everything",
}
_ISSUER = f"{ISSUER_TAG}:"
_CIDR = re.compile(r"([0-9a-f:.]+)/(\d{1,3})")
_ADVICE = "write OK, RELAY, REJECT, DISCARD, SKIP, QUARANTINE:text or ERROR:D.S.N:code text"


class AccessTable:
    """What the table says of clients, senders and recipients."""

    kind: ClassVar[str] = "sendmail-access"
    is_path = True
    __slots__ = (
        "_answers", "_demands", "_values", "asks_names", "has_demands", "has_friends", "has_haters", "has_names_of_tls", "has_tries",
        "name", "needs_names",
    )  # fmt: skip

    def __init__(self, name: str, values: dict[str, str]) -> None:
        self.name = name
        self._values = values
        self._answers = {key: parse_value(value) for key, value in values.items() if tag_of(key) in ("", *POLICY_TAGS)}
        issuers: dict[str, list[str]] = {}
        for key in values:
            if key.startswith(_ISSUER):
                tag, _, issuer = key.removeprefix(_ISSUER).partition(":")
                issuers.setdefault(tag, []).append(issuer)
        self._demands = {
            key: with_issuers(parse_demand(value), issuers)
            for key, value in values.items()
            if tag_of(key) in DEMAND_TAGS
        }
        asked = names_asked(values)
        self.asks_names = bool(asked)
        self.needs_names = any(asked.values())  # a client whose names cannot be had is put off
        self.has_names_of_tls = any(key.startswith("tls_clt") for key in asked)
        self.has_tries = any(tag_of(key) == TRY_TAG for key in values)
        self.has_demands = {tag: any(key.startswith(tag) for key in self._demands) for tag in DEMAND_TAGS}
        self.has_friends = any(answer.word == "FRIEND" for answer in self._answers.values())
        self.has_haters = any(answer.word == "HATER" for answer in self._answers.values())

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file; raises ConfigErrors with every bad line."""
        collector = read_makemap(argument)
        entries: dict[str, str] = {}
        lines: dict[str, int] = {}
        tags = _issuer_tags(collector.entries)
        for key, value in collector.entries.items():
            line = lines_of(collector, key)
            if key.partition(":")[0] in tags:
                _take_issuer(key, value, line, entries, collector)
                continue
            for inner in _expanded(key, line, collector):
                checked = _check(inner, value, line, collector)
                if checked is not None:
                    entries.setdefault(inner, checked)
                    lines.setdefault(inner, line)
        spam = next((key for key in entries if tag_of(key) == "spam"), "")
        if spam:
            told = "client and sender are judged at RCPT, as FEATURE(`delay_checks', `friend') or `hater' does"
            collector.note(
                lines[spam],
                f"because of this line {told}: {_SPAM[entries[spam].upper()]}",
                "remove Spam: lines if the sendmail had no such argument",
            )
        _note_names(entries, lines, collector)
        data = TableData(cls.kind, argument, entries, files=[collector.path], notes=collector.notes, lines=lines)
        rights = rights_of(data)
        collector.errors.extend(rights.errors)
        collector.notes.extend(rights.notes)
        collector.finish()
        return data

    @classmethod
    def of_data(cls, data: TableData) -> AccessTable:
        """The table out of what was read."""
        return cls(data.name, data.entries)

    def lookup(self, key: str) -> str | None:
        """The value of exactly this key."""
        return self._values.get(key)

    # --- what sendmail's rule sets ask ------------------------------------------------------------------------------

    def connect(self, address: str, *names: str) -> Answer | None:
        """What is said of a client: of one of its names, a refusal before what is none, else of its address."""
        found = None
        for name in names:
            said = self._find(domain_keys(name), "connect:")
            if said is not None and said.word != "SKIP" and (found is None or found.word in ("OK", "RELAY")):
                found = said
        if found is None:
            found = self._find(address_keys(address), "connect:")
        return None if found is None or found.word == "SKIP" else found

    def sender(self, local: str, domain: str) -> Answer | None:
        """What is said of a reverse-path: the address, `user@`, the domain."""
        return self._first("from:", full_keys(local, domain), user_keys(local), domain_keys(domain))

    def recipient(self, local: str, domain: str, is_ours: bool) -> Answer | None:
        """What is said of a forward-path; `user@` counts in our own domains only."""
        users = user_keys(local) if is_ours or not domain else iter(())
        return self._first("to:", full_keys(local, domain), users, domain_keys(domain))

    def spam(self, local: str, domain: str) -> Answer | None:
        """Whether the recipient is a friend or hater of unwanted mail."""
        for keys in (full_keys(local, domain), domain_keys(domain), user_keys(local)):
            for key in keys:
                answer = self._answers.get("spam:" + key)
                if answer is not None:
                    return answer
        return None

    def limit(self, tag: str, address: str, names: Iterable[str] = ()) -> int | None:
        """A number: ClientRate, ClientConn or GreetPause of a client; None: nothing is said. Only GreetPause knows names."""
        values = self._values
        named = chain.from_iterable(map(domain_keys, names if tag == "greetpause" else ()))
        for key in (*named, *address_keys(address), ""):
            value = values.get(f"{tag}:{key}")
            if value is not None:
                return int(value)
        return None

    # --- what TLS has to be; False: nothing is said, None: nothing is demanded -----------------------------------------

    def tls_client(self, address: str) -> Demand | None | bool:
        """Of a client: its address, all clients. What is said of its name comes on top."""
        return self._demand("tls_clt", address_keys(address))

    def tls_client_named(self, name: str) -> Demand | None:
        """Of a client with this name; what demands nothing is as if nothing were said."""
        keys = (f"tls_clt:{key}" for key in domain_keys(name))
        return next((self._demands[key] for key in keys if key in self._demands), None)

    def tries_tls(self, name: str, address: str) -> bool | None:
        """Whether TLS is tried towards a host: its name, its address, all hosts; None: nothing is said."""
        for key in (*domain_keys("" if name == address else name), *address_keys(address), ""):
            value = self._values.get(f"{TRY_TAG}:{key}")
            if value is not None:
                return value != "NO"
        return None

    def tls_server(self, name: str, address: str) -> Demand | None | bool:
        """Of a host that we connect to: its name, its address, all hosts."""
        return self._demand("tls_srv", domain_keys("" if name == address else name), address_keys(address))

    def tls_recipient(self, local: str, domain: str) -> Demand | None | bool:
        """Of the host that gets mail for a recipient: the address, `user@`, the domain, all recipients."""
        return self._demand("tls_rcpt", full_keys(local, domain), user_keys(local), domain_keys(domain))

    def _demand(self, tag: str, *groups: Iterator[str]) -> Demand | None | bool:
        demands = self._demands
        for keys in groups:
            for key in keys:
                key = f"{tag}:{key}"
                if key in demands:
                    return demands[key]
        return demands.get(f"{tag}:", False)

    def _first(self, tag: str, *groups: Iterator[str]) -> Answer | None:
        for keys in groups:
            found = self._find(keys, tag)
            if found is not None and found.word != "SKIP":
                return found
        return None

    def _find(self, keys: Iterator[str], tag: str) -> Answer | None:
        answers = self._answers
        for key in keys:
            answer = answers.get(tag + key)
            if answer is None:
                answer = answers.get(key)
            if answer is not None:
                return answer
        return None


def _expanded(key: str, line: int, collector: Collector) -> list[str]:
    """The key as lookups make it; `10.0.0.0/14` becomes the prefixes that sendmail's cidrexpand would write."""
    tag = tag_of(key)
    match = _CIDR.fullmatch(bare_key(key).removeprefix("ipv6:"))
    if match is None:
        return [canonical_key(key)]
    try:
        network = ipaddress.ip_network(match.group())
    except ValueError:
        collector.error(line, f'"{match.group()}" is not a network', "write the network with its prefix length")
        return []
    step = 8 if network.version == 4 else 16
    length = max(step, -(-network.prefixlen // step) * step)
    collector.note(line, f"sendmail itself knows no {match.group()}; it is taken as cidrexpand would", "none is needed")
    prefix = f"{tag}:" if tag else ""
    found = []
    for subnet in network.subnets(new_prefix=length):
        if network.version == 4:
            found.append(prefix + ".".join(str(subnet.network_address).split(".")[: length // 8]))
        else:
            groups = [format(int(group, 16), "x") for group in subnet.network_address.exploded.split(":")]
            found.append(prefix + "ipv6:" + ":".join(groups[: length // 16]))
        if len(found) > 4096:
            collector.error(line, f'"{match.group()}" is too wide to be expanded', "write a longer prefix")
            return []
    return found


def _check(key: str, value: str, line: int, collector: Collector) -> str | None:
    """The value to keep of an entry, or None; errors and notes go to the collector."""
    tag = tag_of(key)
    if tag == ISSUER_TAG or (not tag and ":" in key and not key.startswith("ipv6:")):
        known = "Connect: From: To: Spam: ClientRate: ClientConn: GreetPause: TLS_Srv: TLS_Clt: TLS_Rcpt: Try_TLS:"
        collector.error(line, f'"{key.partition(":")[0]}:" is not a tag of sendmail', f"the tags are {known}")
        return None
    if tag in NUMBER_TAGS:
        if value.isascii() and value.isdigit() and int(value) <= NUMBER_TAGS[tag]:
            return value
        collector.error(line, f'"{value}" is not a number from 0 to {NUMBER_TAGS[tag]}', "write a whole number")
        return None
    if tag in DEMAND_TAGS:
        return _check_demand(tag, key, value, line, collector)
    if tag == TRY_TAG:
        return _check_try(key, value, line, collector)
    if tag in TLS_TAGS:
        problem = f"{tag} is not asked: what we offer and try of TLS is a matter of the configuration"
        collector.note(line, problem, "write it in the configuration of TLS")
        return None
    if tag in OTHER_TAGS:
        collector.note(line, f"{tag} is not asked here, and its value is not kept", "see docs/migration.md")
        return None
    try:
        answer = parse_value(value)
    except BadError as error:
        collector.error(line, str(error.args[0]), _ADVICE)
        return None
    if (answer.word in ("FRIEND", "HATER")) != (tag == "spam"):
        collector.error(line, f'"{value}" has no meaning for this tag', _ADVICE)
        return None
    return value


def _check_demand(tag: str, key: str, value: str, line: int, collector: Collector) -> str | None:
    try:
        demand = parse_demand(value)
    except BadDemand as error:
        collector.error(line, str(error.args[0]), DEMAND_ADVICE)
        return None
    bare = bare_key(key)
    if demand is not None and demand.needs_certificate and tag != "tls_clt":
        problem = "the certificate has to be for the host as well, where sendmail takes any of a known authority"
        collector.note(line, problem, "none is needed; where the name is another, add +CN:name")
    elif demand is not None and demand.extensions and not demand.is_verified:
        collector.note(line, "a name counts only in a certificate that was verified", "none is needed")
    if tag == "tls_clt" and demand is None and is_client_name(bare):
        problem = f'"{bare}" is the name of a client: it can be the reason for a demand, and exempts nobody from one'
        collector.note(line, problem, "write the network of the client")
    return value


def _check_try(key: str, value: str, line: int, collector: Collector) -> str | None:
    """ "NO" or "OK"; every other word means nothing to sendmail."""
    word = value.upper()
    if word not in ("NO", "OK", "YES"):
        collector.error(line, f'"{value}" does not say whether TLS is tried', "write NO, or OK for an exception")
        return None
    if word == "NO":
        problem = f"STARTTLS is not used towards {bare_key(key) or 'any host'}, except where a policy, DANE, MTA-STS or TLS_Srv: demands TLS"
        collector.note(line, problem, "remove the line when the host can do TLS: mail to it can be read on its way")
    return "NO" if word == "NO" else "OK"


def _issuer_tags(entries: dict[str, str]) -> set[str]:
    """The tags that demands look for issuers under: keys with one of them name an issuer."""
    found: set[str] = set()
    for key, value in entries.items():
        if "citag" in value.lower() and tag_of(key) in DEMAND_TAGS:
            try:
                found.update(issuer_tags(parse_demand(value)))
            except BadDemand:
                continue  # told where its line is checked
    return found - set(TAGS)


def _take_issuer(key: str, value: str, line: int, entries: dict[str, str], collector: Collector) -> None:
    if value.upper() != "OK":
        collector.error(line, f'"{value}" means nothing for an issuer', "write OK")
        return
    tag, _, issuer = key.partition(":")
    entries[f"{_ISSUER}{tag}:{canonical_issuer(decoded(issuer))}"] = "OK"


def _note_names(entries: dict[str, str], lines: dict[str, int], collector: Collector) -> None:
    """Say once of each kind that lines by name have the DNS asked about every client."""
    first: dict[bool, int] = {}
    for key, is_needed in names_asked(entries).items():
        first.setdefault(is_needed, lines.get(key, 0))
    if True in first:
        problem = (
            "because of this line the names of clients are looked up, and back to the address; "
            "a client of whom DNS gives no answer is put off"
        )
        collector.note(first[True], problem, "write networks in place of names where that is not wanted")
    elif False in first:
        problem = (
            "because of this line the names of clients are looked up; where DNS gives no answer, it is not for clients"
        )
        collector.note(first[False], problem, "write From: or To: in front of it if it is not for clients")
