"""sendmail's access table as it is: tags, values, and the order in which they are asked.

A lookup tries `Tag:key`, then `key`, at every step: an IPv4 address loses its last number, an IPv6 address its last group, a
domain its first label (`.rest` is asked too), an address its `+detail`; first the address, then `user@`, then the domain.
What RELAY means is not decided here but when the configuration is loaded (`sendmail_rights.py`): it becomes networks and
recipient domains of the relay algebra, or an error. Passwords (`AuthInfo:`) are not kept.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import ClassVar

from gatepost.config.errorreply import BadError
from gatepost.config.tables import TableData
from gatepost.config.tlsdemands import ADVICE as DEMAND_ADVICE
from gatepost.config.tlsdemands import BadDemand, Demand, parse_demand
from gatepost.routing.tables.sendmail_keys import (
    DEMAND_TAGS,
    NUMBER_TAGS,
    OTHER_TAGS,
    POLICY_TAGS,
    TLS_TAGS,
    Answer,
    address_keys,
    bare_key,
    canonical_key,
    domain_keys,
    full_keys,
    network_of,
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
_CIDR = re.compile(r"([0-9a-f:.]+)/(\d{1,3})")
_ADVICE = "write OK, RELAY, REJECT, DISCARD, SKIP, QUARANTINE:text or ERROR:D.S.N:code text"


class AccessTable:
    """What the table says of clients, senders and recipients."""

    kind: ClassVar[str] = "sendmail-access"
    is_path = True
    __slots__ = ("_answers", "_demands", "_values", "has_demands", "has_friends", "has_haters", "name")

    def __init__(self, name: str, values: dict[str, str]) -> None:
        self.name = name
        self._values = values
        self._answers = {key: parse_value(value) for key, value in values.items() if tag_of(key) in ("", *POLICY_TAGS)}
        self._demands = {key: parse_demand(value) for key, value in values.items() if tag_of(key) in DEMAND_TAGS}
        self.has_demands = {tag: any(key.startswith(tag) for key in self._demands) for tag in DEMAND_TAGS}
        self.has_friends = any(answer.word == "FRIEND" for answer in self._answers.values())
        self.has_haters = any(answer.word == "HATER" for answer in self._answers.values())

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file; raises ConfigErrors with every bad line."""
        collector = read_makemap(argument)
        entries: dict[str, str] = {}
        lines: dict[str, int] = {}
        for key, value in collector.entries.items():
            line = lines_of(collector, key)
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

    def connect(self, address: str, name: str = "") -> Answer | None:
        """What is said of a client: of its name if it has one, else of its address."""
        found = self._find(domain_keys(name), "connect:") if name else None
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

    def relay_to(self, domain: str) -> Answer | None:
        """What is said of relaying to a domain."""
        found = self._find(domain_keys(domain), "to:")
        return None if found is None or found.word == "SKIP" else found

    def limit(self, tag: str, address: str, name: str = "") -> int | None:
        """A number: ClientRate, ClientConn or GreetPause of a client; None: nothing is said."""
        values = self._values
        for key in (*(domain_keys(name) if name and tag == "greetpause" else ()), *address_keys(address), ""):
            value = values.get(f"{tag}:{key}")
            if value is not None:
                return int(value)
        return None

    # --- what TLS has to be; False: nothing is said, None: nothing is demanded -----------------------------------------

    def tls_client(self, address: str, name: str = "") -> Demand | None | bool:
        """Of a client: its name, its address, all clients."""
        return self._demand("tls_clt", domain_keys(name), address_keys(address))

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
    if not tag and ":" in key and not key.startswith("ipv6:"):
        known = "Connect: From: To: Spam: ClientRate: ClientConn: GreetPause: TLS_Srv: TLS_Clt: TLS_Rcpt:"
        collector.error(line, f'"{key.partition(":")[0]}:" is not a tag of sendmail', f"the tags are {known}")
        return None
    if tag in NUMBER_TAGS:
        if value.isascii() and value.isdigit() and int(value) <= NUMBER_TAGS[tag]:
            return value
        collector.error(line, f'"{value}" is not a number from 0 to {NUMBER_TAGS[tag]}', "write a whole number")
        return None
    if tag in DEMAND_TAGS:
        return _check_demand(tag, key, value, line, collector)
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
    if tag == "connect" and answer.word != "RELAY" and network_of(bare_key(key)) is None:
        problem = f'"{bare_key(key)}" is the name of a client, and names are not looked up: the line matches nothing'
        collector.note(line, problem, "write the network of the client")
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
    if tag == "tls_clt" and bare and network_of(bare) is None:
        problem = f'"{bare}" is the name of a client, and names are not looked up: the line matches nothing'
        collector.note(line, problem, "write the network of the client")
    return value
