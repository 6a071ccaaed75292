"""What a table is used for, and what its values must be for that: routes lead to next hops, virtual addresses to addresses.

`fit_*` run when the configuration is loaded: they check every value and put it into canonical form, so that a role finds
only what it can use. `RouteTables`, `VirtualTables` are what the router asks. sendmail's own tables check themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.hoppatterns import permits
from gatepost.config.nexthop import ERROR
from gatepost.config.ours import suffixes
from gatepost.config.recipients import fold_local
from gatepost.config.tables import TableData, TableNote, rule_key
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.routing.tables.aliases import parse_target, split_targets
from gatepost.routing.tables.postfix_transport import BadTransport, parse_transport

_PLAIN = re.compile(r"[^\x00-\x20\x7f@<>()\[\]\\,;:\"%!]{1,64}")
UNCHANGED = ""  # a value of a route: as if no table had one

Fit = Callable[[str], tuple[str, TableNote | None]]  # a value -> its canonical form; raises BadTransport, InvalidValue


def fit_routes(data: TableData) -> TableData:
    """Values as next hops; raises ConfigErrors with every bad line."""
    if data.kind == "sendmail-mailertable":
        return data
    if data.kind.startswith("sendmail-") or data.kind == "cidr":
        raise _misused(data, "routes", "sendmail-mailertable, hash, texthash, file, regexp and others")
    return _fitted(data, _route_value, _route_key)


def fit_virtual(data: TableData) -> TableData:
    """Values as one address each; raises ConfigErrors with every bad line."""
    if data.kind == "sendmail-virtusertable":
        return data
    if data.kind.startswith("sendmail-") or data.kind == "cidr":
        raise _misused(data, "virtual addresses", "sendmail-virtusertable, hash, texthash, file, regexp and others")
    return _fitted(data, fit_virtual_value, _virtual_key)


def fit_access(data: TableData) -> TableData:
    """Only sendmail's access table."""
    if data.kind != "sendmail-access":
        raise _misused(data, "access", "sendmail-access")
    return data


def fit_aliases(data: TableData) -> TableData:
    """Targets of aliases; what is in the form of aliases(5) is fit already."""
    if data.kind == "aliases":
        return data
    if data.kind.startswith("sendmail-") or data.kind in ("cidr", "regexp", "pcre", "static"):
        raise _misused(data, "aliases", "file, aliases, hash, btree, lmdb, cdb, sqlite")
    return _fitted(data, lambda value: (", ".join(parse_target(one) for one in split_targets(value)), None), fold_local)


def fit_sender_routes(data: TableData) -> TableData:
    """Next hops by reverse-path: an address, `@domain` or `domain`, `.domain`, `<>`, `*`."""
    if data.kind.startswith("sendmail-") or data.kind in ("cidr", "aliases"):
        raise _misused(data, "routes by sender", "file, hash, texthash, regexp, sqlite and others")
    return _fitted(data, _route_value, _sender_key)


def _sender_key(key: str) -> str:
    return "<>" if key == "<>" else _route_key(key.removeprefix("@"))


def fit_recipients(data: TableData) -> TableData:
    """Any table of addresses; an access table, a mailertable or networks are none."""
    if data.kind in ("sendmail-access", "sendmail-mailertable", "sendmail-domaintable", "cidr"):
        raise _misused(data, "recipients", "sendmail-virtusertable, hash, texthash, file, cdb, lmdb, sqlite, regexp")
    return data


def fit_domaintable(data: TableData) -> TableData:
    """Domains to domains."""
    if data.kind == "sendmail-domaintable":
        return data
    if data.kind not in ("file", "texthash", "hash", "btree", "cdb", "lmdb", "sqlite", "inline"):
        raise _misused(data, "domains to rewrite", "sendmail-domaintable, hash, texthash, file")
    return _fitted(data, _domain_value, parse_domain)


def fit_rewrite(data: TableData) -> TableData:
    """Addresses to addresses."""
    if data.kind in ("sendmail-genericstable", "sendmail-domaintable"):
        return data
    if data.kind.startswith("sendmail-") or data.kind == "cidr":
        raise _misused(data, "addresses to rewrite", "sendmail-genericstable, hash, texthash, file, regexp and others")
    return _fitted(data, _virtual_value, _virtual_key)


USES: dict[str, Callable[[TableData], TableData]] = {
    "routes": fit_routes,
    "virtual": fit_virtual,
    "aliases": fit_aliases,
    "sender_routes": fit_sender_routes,
    "access": fit_access,
    "recipients": fit_recipients,
    "domaintable": fit_domaintable,
    "genericstable": fit_rewrite,
    "rewrite": fit_rewrite,
}


def fit_route_value(value: str) -> tuple[str, TableNote | None]:
    """A value of a route in canonical form; raises BadTransport, InvalidValue."""
    return _route_value(value)


def fit_virtual_value(value: str) -> tuple[str, TableNote | None]:
    """An address that stands for another in canonical form; raises InvalidValue.

    Its domain is written out: the right to send there is that of our own recipient, whose address a stranger makes up, and with a
    domain taken from it he would choose where we relay to.
    """
    fitted, note = _virtual_value(value)
    if '"' in fitted:
        raise InvalidValue(f'"{value}" has a quoted local part', "write an address without quotes")
    if any("$" in one.rpartition("@")[2] for one in fitted.split(", ")):
        raise InvalidValue(
            f'"{value}" lets whoever writes the address choose the domain that the mail goes to, which is an open relay',
            "write the domain out, in a line for each",
        )
    return fitted, note


def fit_alias_value(value: str) -> tuple[str, TableNote | None]:
    """The targets of an alias in canonical form; raises InvalidValue."""
    targets = [parse_target(one) for one in split_targets(value)]
    if not targets:
        raise InvalidValue(
            "the alias leads nowhere", "answer with an address, or with nothing if there is no such alias"
        )
    return ", ".join(dict.fromkeys(targets)), None


def fit_rewritten_value(value: str) -> tuple[str, TableNote | None]:
    """The one address that another becomes, or `@domain`, in canonical form; raises InvalidValue."""
    fitted, note = _virtual_value(value)
    if ", " in fitted or "$" in fitted.rpartition("@")[2]:
        raise InvalidValue(f'"{value}" is not one address', "answer with one address, its domain written out")
    return fitted, note


FITS: dict[str, Fit] = {
    "routes": fit_route_value,
    "virtual": fit_virtual_value,
    "aliases": fit_alias_value,
    "sender_routes": fit_route_value,
    "rewrite": fit_rewritten_value,
}
"""For tables whose values are not there when the configuration is loaded; a use that is not here takes any value."""

LIMITED = ("routes", "sender_routes")  # uses whose values are held against `next_hops` of their source


def fit_of(use: str, next_hops: Sequence[str]) -> Fit | None:
    """How a value of a table that is asked gets its canonical form, where its source may name only these next hops."""
    fit = FITS.get(use)
    if fit is None or not next_hops or use not in LIMITED:
        return fit

    def limited(value: str) -> tuple[str, TableNote | None]:
        fitted, note = fit(value)
        if not permits(next_hops, fitted, ""):
            raise InvalidValue(
                f'"{value}" is none of the next_hops of its source', "list it there, or answer with another"
            )
        return fitted, note

    return limited


def route_of(table: Any, local: str, domain: str) -> str | None:
    """Where a table sends an address: next hop, "error:CODE D.S.N TEXT", or None.

    sendmail's mailertable is asked for the domain. Others are asked for the address, the domain, each `.rest` of it, and at
    last `*` and `.`; patterns are asked for the address alone.
    """
    if hasattr(table, "route"):
        found: str | None = table.route(domain)
        return found
    if hasattr(table, "find_route"):
        asked: str | None = table.find_route(local, domain)
        return asked
    found = table.lookup(f"{local}@{domain}")
    if found is not None or not hasattr(table, "has_bare_locals"):
        return found
    for key in (domain, *suffixes(domain), "*", "."):
        found = table.lookup(key)
        if found is not None:
            return found
    return None


def virtual_of(tables: Iterable[Any], local: str, domain: str, written: str) -> str | None:
    """The address that stands for another: the first table that has one; `written` keeps the case of the local part."""
    for table in tables:
        value: str | None
        if hasattr(table, "rewrite"):
            value = table.rewrite(local, domain, written)
        else:
            value = table.find_address(local, domain)
            if value is not None and value.startswith("@"):
                value = written + value
        if value is not None:
            return value
    return None


def _fitted(
    data: TableData, fit: Callable[[str], tuple[str, TableNote | None]], key: Callable[[str], str]
) -> TableData:
    """Every value through `fit`, every key through `key`, with the place of each error."""
    file = data.files[0] if data.files else data.name
    errors: list[ConfigError] = []
    notes = list(data.notes)
    entries: dict[str, str] = {}
    for name, value in data.entries.items():
        line = data.lines.get(name, 0)
        try:
            fitted, note = fit(value)
            entries[key(name)] = fitted
        except (BadTransport, InvalidValue) as error:
            problem, advice = error.args if isinstance(error, BadTransport) else (error.problem, error.advice)
            errors.append(ConfigError(file, line, "", problem if line else f'"{name}": {problem}', advice))
            continue
        if note is not None:
            notes.append(TableNote(file, line, note.problem, note.advice))
    rules = []
    for index, rule in enumerate(data.rules):
        line = data.lines.get(rule_key(index), 0)
        try:
            rules.append((*rule[:-1], fit(rule[-1])[0]) if rule[0] in ("rule", "value") else rule)
        except (BadTransport, InvalidValue) as error:
            problem, advice = error.args if isinstance(error, BadTransport) else (error.problem, error.advice)
            errors.append(ConfigError(file, line, "", problem if line else f'"{rule[-1]}": {problem}', advice))
    if errors:
        raise ConfigErrors(errors)
    return msgspec.structs.replace(data, entries=entries, rules=rules, notes=notes)


def _route_value(value: str) -> tuple[str, TableNote | None]:
    """transport(5): ":" changes nothing, so that it takes a name out of wider lines; a transport alone means MX."""
    if value.strip() == ":":
        return UNCHANGED, None
    hop, note = parse_transport(value, "mx" if value.strip() else "")
    if hop is None:
        raise BadTransport(f'"{value}" names no next hop', "remove the line, or write where the mail goes")
    if "$" in hop and not hop.startswith(ERROR):  # whoever makes up the address would choose where its mail goes
        raise BadTransport(
            f'"{value}" takes a part of the address into the next hop', "write {domain} and {local} for a Maildir"
        )
    return hop, note


def _route_key(key: str) -> str:
    if key in ("*", "."):
        return key
    local, at, domain = key.rpartition("@")
    if at and not local:
        raise BadTransport(f'"{key}" begins with an @', f'write "{domain}"')
    dot = "." if domain.startswith(".") else ""
    name = dot + parse_domain(domain.removeprefix("."))
    return f"{local}@{name}" if at else name


def _domain_value(value: str) -> tuple[str, TableNote | None]:
    return parse_domain(value), None


def _virtual_value(value: str) -> tuple[str, TableNote | None]:
    text = value.strip()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > 1:
        return ", ".join(dict.fromkeys(_virtual_value(part)[0] for part in parts)), None
    if text.startswith(("|", "/", ":include:")):
        parse_target(text)  # says what to write instead
    if " " in text:
        raise InvalidValue(f'"{text}" is not an address', "write commas between several")
    local, at, domain = text.rpartition("@")
    if not at:
        raise InvalidValue(f'"{text}" has no domain', f'write "{text}@" and the domain of the server that has it')
    if "$" not in local and local[:1] != '"' and not is_plain_local(local):
        raise InvalidValue(
            f'"{text}" is not an address that mail can be sent to', "write a plain one, user@example.net"
        )
    if "$" in domain:
        return text, None
    return f"{local}@{parse_domain(domain)}", None


def is_plain_local(local: str) -> bool:
    """Whether a local part needs no quotes and asks no server for a route; empty is that of the address it stands for."""
    return not local or (_PLAIN.fullmatch(local) is not None and ".." not in local and local[0] != "." != local[-1])


def _virtual_key(key: str) -> str:
    local, at, domain = key.rpartition("@")
    return f"{fold_local(local)}@{parse_domain(domain)}" if at else key


def _misused(data: TableData, use: str, kinds: str) -> ConfigErrors:
    problem = f'a table of the kind "{data.kind}" cannot be used for {use}'
    return ConfigErrors([ConfigError(data.files[0] if data.files else data.name, 0, "", problem, f"use {kinds}")])
