"""The classes of sessions that relay rules can tell apart, one session for each: what `policy/proof.py` looks through.

A client is where it connects from, as whom it has authenticated, which certificate it showed, which reverse-path it writes and
which address it asks for. Addresses are tried at each border of each network, domains as ours, below ours, beside ours and
elsewhere, and each of them in every odd form that a server might read in another way than we do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import chain, product

import msgspec

from gatepost.config.relayvalues import NULL_PATH, OURS
from gatepost.config.schema import Config, RelayRule
from gatepost.config.tables import table_key
from gatepost.mail.srs import Srs
from gatepost.model import Address
from gatepost.policy.localusers import LOCAL_PREFIX
from gatepost.policy.relayrules import range_of

MAX_LOCAL = 10  # users and groups of this host, and reverse-paths with them
MAX_PRODUCT = 60_000  # sessions; above this, the classes of each rule are tried by themselves
STRANGERS = ("198.51.100.77", "2001:db8:ffff:ffff::77", "::ffff:198.51.100.78")
NO_ADDRESSES = ("", "local", "mail.example.net")
ELSEWHERE = "elsewhere.example"
MAX_MAPPED = 20
SIGNED = "a return address that we have signed"
NOBODY = "nobody-by-this-name"


class Target(msgspec.Struct, frozen=True):
    """A forward-path, and what is odd about it."""

    form: str
    address: Address
    stands_for: str = ""  # of a return address that we have signed: the address in it


class Session(msgspec.Struct, frozen=True):
    """One of a class."""

    client: str
    identity: str
    certificate: str
    reverse_path: str
    target: Target
    local_user: str = ""  # of this host, by the word of the kernel
    local_groups: tuple[str, ...] = ()
    by_lmtp: bool = False  # by a socket where a user of this host has no right by being one


def sessions_of(config: Config) -> tuple[Iterator[Session], bool]:
    """The sessions, and whether they are the whole product of all classes."""
    rules = [rule for rule in config.relay.rules if rule.mode != "off"]
    clients = _clients([*config.relay.networks, *(text for rule in rules for text in rule.networks)])
    identities = _names(name for rule in rules for name in rule.identities)
    certificates = _names(name for rule in rules for name in rule.certificates)
    paths = _paths(rules)
    targets = [*targets_of(config), *_named_targets(rules), *_table_targets(config)]
    local = _local_sessions(config, paths, targets)
    size = len(clients) * len(identities) * len(certificates) * len(paths) * len(targets)
    if size <= MAX_PRODUCT:
        return chain(_product(clients, identities, certificates, paths, targets), local), True
    return chain(_apart(config, rules, clients, paths), local), False


def _local_sessions(config: Config, paths: list[str], targets: list[Target]) -> Iterator[Session]:
    """Users of this host: listed, not listed, and members of a listed group; by a socket that may not even be there."""
    local = config.local
    who = [(name, ()) for name in dict.fromkeys(("root", NOBODY, *local.users[:MAX_LOCAL]))]
    peers = [*who, *((NOBODY, (name,)) for name in (NOBODY, *local.groups[:MAX_LOCAL]))]
    rules = (name.removeprefix(LOCAL_PREFIX) for rule in config.relay.rules for name in rule.identities)
    peers += [(name, ()) for name in list(dict.fromkeys(rules))[:MAX_LOCAL] if (name, ()) not in peers]
    for (user, groups), path, target, by_lmtp in product(peers, paths[:MAX_LOCAL], targets, (False, True)):
        yield Session(f"local/{user}", "", "", path, target, user, groups, by_lmtp)


def _product(
    clients: list[str], identities: list[str], certificates: list[str], paths: list[str], targets: list[Target]
) -> Iterator[Session]:
    for values in product(clients, identities, certificates, paths, targets):
        yield Session(*values)


def _apart(config: Config, rules: list[RelayRule], clients: list[str], paths: list[str]) -> Iterator[Session]:
    """Strangers with everything that can be said, each border with every form, and each rule with each of its conditions missed."""
    forms = [*targets_of(config), *_table_targets(config)]
    for path, target in product(paths[: MAX_PRODUCT // (8 * len(forms))], forms):
        for client in STRANGERS[:2]:
            yield Session(client, "", "", path, target)
    for client in clients[: MAX_PRODUCT // (4 * len(forms))]:
        for target in forms:
            yield Session(client, "", "", "", target)
    theirs = forms[0]
    for rule in rules:
        inside = _text(*range_of(rule.networks[0])[:2]) if rule.networks else STRANGERS[0]
        identity = (rule.identities or [""])[0].replace("*", NOBODY)
        certificate = (rule.certificates or [""])[0].replace("*", NOBODY)
        path = _path_for(rule.reverse_paths[0]) if rule.reverse_paths else ""
        targets = _named_targets([rule]) or [theirs]
        for target in targets:
            yield Session(inside, identity, certificate, path, target)
            yield Session(STRANGERS[0], identity, certificate, path, target)
            yield Session(STRANGERS[0], "", "", path, target)
            yield Session(inside, "", "", path, target)
            yield Session(inside, identity, certificate, f"x@{NOBODY}.example", target)
            for border in _borders(rule.networks[:8]):
                yield Session(border, "", "", path, target)


# --- clients ----------------------------------------------------------------------------------------------------------


def _clients(networks: list[str]) -> list[str]:
    return list(dict.fromkeys((*STRANGERS, *NO_ADDRESSES, *_borders(networks))))


def _borders(networks: list[str]) -> Iterator[str]:
    """First and last address of each network, and those beside them."""
    for text in networks:
        version, first, last = range_of(text)
        most = (1 << (32 if version == 4 else 128)) - 1
        for number in (first - 1, first, last, last + 1):
            if 0 <= number <= most:
                yield _text(version, number)


def _text(version: int, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def _names(names: Iterator[str]) -> list[str]:
    found = dict.fromkeys(name for name in names if name != "*")
    return ["", NOBODY, *found] if found else ["", NOBODY]


def _paths(rules: list[RelayRule]) -> list[str]:
    patterns = dict.fromkeys(pattern for rule in rules for pattern in rule.reverse_paths)
    return list(dict.fromkeys(("", f"someone@{ELSEWHERE}", *map(_path_for, patterns))))


def _path_for(pattern: str) -> str:
    """A reverse-path that fits a pattern."""
    if pattern == NULL_PATH:
        return ""
    local, _, domain = pattern.rpartition("@")
    return f"{local or 'someone'}@{'below' if domain.startswith('.') else ''}{domain}"


# --- forward-paths ----------------------------------------------------------------------------------------------------


def _plain(local: str, domain: str, form: str) -> Target:
    return Target(form, Address(f"{local}@{domain}" if domain else local, local, domain))


def _named_targets(rules: list[RelayRule]) -> list[Target]:
    """The domains that rules name."""
    targets = []
    for name in dict.fromkeys(name for rule in rules for name in rule.domains if name != OURS):
        targets.append(_plain("user", f"below{name}" if name.startswith(".") else name, "named by a rule"))
    return targets


def targets_of(config: Config) -> list[Target]:
    """Every odd form of an address, about each of the first domains of ours; the first is a plain one elsewhere."""
    targets = [
        _plain("user", ELSEWHERE, "elsewhere"),
        _plain("user", ELSEWHERE.upper() + ".", "elsewhere, upper case, trailing dot"),
        _plain("user", "b\u00fccher.example", "elsewhere, internationalised"),
        _plain("user", "[203.0.113.9]", "address literal"),
        _plain("user", "[IPv6:2001:db8::9]", "IPv6 address literal"),
        _plain("user", "[127.0.0.1]", "address literal of the loopback"),
        _plain("postmaster", "", "postmaster without domain"),
        _plain("user", "", "no domain"),
        _plain(f"{ELSEWHERE}!user", "", "bang path without domain"),
        _plain(f"user%{ELSEWHERE}", "", "percent hack without domain"),
    ]
    for listen in config.listen[:2]:
        host = listen.rpartition(":")[0].strip("[]")
        literal = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
        targets += [
            _plain("user", literal, "our address literal"),
            _plain("postmaster", literal, "our address literal"),
        ]
    for name in _mapped_domains(config):
        targets += [_plain(local, name, "a domain that stands for another") for local in ("user", f"user%{ELSEWHERE}")]
    for name in list(config.domains)[:2]:
        targets += _forms(name, (config.domains[name].recipients or ["user"])[0])
    return targets


def _mapped_domains(config: Config) -> list[str]:
    """Domains that a domain map makes ours, or others."""
    tables = getattr(config, "tables", {})
    data = [tables[key] for name in config.domaintable if (key := table_key("domaintable", name)) in tables]
    return [name for table in data for name in list(table.entries)[:MAX_MAPPED]][:MAX_MAPPED]


def _table_targets(config: Config) -> list[Target]:
    """Addresses of which the configuration says something: keys of its tables, domains of its rules for rewriting."""
    found: dict[str, str] = {}
    tables = getattr(config, "tables", {})
    aliased = config.alias_domains[:2]
    for use, names in (
        ("virtual", config.virtual),
        ("aliases", config.aliases),
        ("routes", config.routes),
        ("rewrite", [name for rule in config.rewrite.rules for name in rule.tables]),
    ):
        for name in names:
            data = tables.get(table_key(use, name))
            for key in list(data.entries)[:MAX_MAPPED] if data is not None else ():
                for text in [f"{key}@{domain}" for domain in aliased] if use == "aliases" else [_asking(key)]:
                    found.setdefault(text, f"named by a table of {use}")
    for rule in config.rewrite.rules:
        for domain in rule.domains[:MAX_MAPPED]:
            if domain != OURS:
                found.setdefault(_asking(domain), "in a domain that is rewritten")
    targets = [_plain(*text.rpartition("@")[::2], form) for text, form in list(found.items())[: 5 * MAX_MAPPED]]
    details = [
        _plain(f"{one.address.local}{config.detail_separator}{detail}", one.address.domain, "with a detail")
        for one in targets[:MAX_MAPPED]
        if config.detail_separator
        for detail in ("x", f"x%{ELSEWHERE}")
    ]
    return targets + details


def _asking(key: str) -> str:
    """An address for which a table is asked this key."""
    local, _, domain = key.rpartition("@")
    return f"{local or 'user'}@{'below' if domain.startswith('.') else ''}{domain}"


def bounces_of(config: Config, srs: Srs, now_s: float) -> Iterator[Session]:
    """Mail to return addresses of ours (SRS): signed and not, old, altered, with a reverse-path and without."""
    local = srs.forward("user", ELSEWHERE, now_s).rpartition("@")[0]
    old = srs.forward("user", ELSEWHERE, now_s - 86400.0 * (config.rewrite.srs.valid_days + 2)).rpartition("@")[0]
    again = srs.forward(local, "forwarder.example", now_s).rpartition("@")[0]
    theirs = f"user@{ELSEWHERE}"
    stands_for = {local: theirs, local.lower(): theirs, again: f"{local}@forwarder.example"}
    forms = {
        local: SIGNED,
        local.lower(): SIGNED,
        again: SIGNED,
        old: "a return address of ours that is too old",
        local.replace(ELSEWHERE, f"not.{ELSEWHERE}"): "a return address of ours for somebody else",
        f"{local}.other": "the same",
        again.replace("forwarder", "other"): "the same",
        f"SRS0=AAAAAA=AA={ELSEWHERE}=user": "a return address that we have not signed",
        f"SRS1=AAAAAA={ELSEWHERE}==AAAAAA=AA={ELSEWHERE}=user": "the same of a second forwarder",
    }
    for (text, form), path in product(forms.items(), ("", f"someone@{ELSEWHERE}", f"user@{srs.domain}")):
        target = Target(form, Address(f"{text}@{srs.domain}", text, srs.domain), stands_for.get(text, ""))
        yield Session(STRANGERS[0], "", "", path, target)


def _forms(ours: str, local: str) -> list[Target]:
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in ours)
    return [
        _plain(local, ours, "ours"),
        _plain(local.upper(), ours.upper() + ".", "ours, upper case, trailing dot"),
        _plain(local, wide, "ours, in full-width letters"),
        _plain(local, f"sub.{ours}", "below ours"),
        _plain(local, f"not{ours}", "ends as ours"),
        _plain(local, f"{ours}.{ELSEWHERE}", "begins as ours"),
        _plain(f"user%{ELSEWHERE}", ours, "percent hack"),
        _plain(f"user%{ours}", ELSEWHERE, "percent hack to ours at theirs"),
        _plain(f"{ELSEWHERE}!user", ours, "bang path"),
        _plain(f"@{ours}:user", ELSEWHERE, "source route through us"),
        Target("source route through us, dropped", Address(f"user@{ELSEWHERE}", "user", ELSEWHERE)),
        _plain(f"@{ELSEWHERE}:user", ours, "source route at ours"),
        _plain(f'"user@{ELSEWHERE}"', ours, "quoted local part with @"),
        _plain(f'"user\\@{ELSEWHERE}"', ours, "quoted local part with quoted @"),
        _plain(f'"{ELSEWHERE}!user"', ours, "quoted bang path"),
        _plain(f"user\uff20{ELSEWHERE}", ours, "local part with full-width @"),
        _plain(f"user@{ours}", ELSEWHERE, "user@ours@theirs"),
        _plain(f"user@{ELSEWHERE}", ours, "user@theirs@ours"),
    ]
