"""Sources: servers that are asked for keys, `[sources.NAME]`, and the tables "ldap:NAME", "sql:NAME" and "http:NAME" on them.

Everything about a source is checked when the configuration is loaded, what spans several keys included, so that a role finds
only what it can use. Nothing is asked here, and nothing of the libraries that ask is loaded.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.ldapfilter import parse_filter
from gatepost.config.pieces import parse_pieces
from gatepost.config.schema import Config, Source
from gatepost.config.sourcelists import check_list_query, check_list_uses
from gatepost.config.tlsvalues import SYSTEM_CA_FILE
from gatepost.config.values import InvalidValue, parse_address, parse_domain, parse_port, split_host_port

KINDS = {"ldap": "ldap", "postgresql": "sql", "mysql": "sql", "http": "http"}  # type of a source -> kind of its table
LIBRARIES = {"postgresql": ("asyncpg", "sql"), "mysql": ("pymysql", "sql"), "http": ("aiohttp", "")}
NEEDED = {
    "ldap": ("servers", "base", "filter"),
    "postgresql": ("servers", "database", "user", "query"),
    "mysql": ("servers", "database", "user", "query"),
    "http": ("url",),
}
_ONLY = {
    "base": ("ldap",), "scope": ("ldap",), "filter": ("ldap",), "attribute": ("ldap",), "database": ("postgresql", "mysql"),
    "query": ("postgresql", "mysql"), "url": ("http",), "field": ("http",), "servers": ("ldap", "postgresql", "mysql"),
}  # fmt: skip
PORTS = {"ldap": 389, "ldaps": 636, "postgresql": 5432, "mysql": 3306}
DEFAULT_KEYS = {
    "recipients": ("address",), "virtual": ("address", "catch-all"), "aliases": ("address",), "routes": ("address", "domain"),
    "sender_routes": ("address", "domain"), "rewrite": ("address",),
}  # fmt: skip
LISTED = ("aliases", "virtual")  # uses whose values may be several
_VALUE_KEYS = {"ldap": "attribute", "http": "field"}
EXAMPLES = {
    "servers": 'servers = ["ldaps://ldap.example.net"] or, for SQL, servers = ["db.example.net"]',
    "base": 'base = "ou=people,dc=example,dc=net"',
    "filter": 'filter = "(mail={key})"',
    "database": 'database = "mail"',
    "user": 'user = "gatepost"',
    "query": 'query = "SELECT address FROM recipients WHERE address = {key}"',
    "url": 'url = "https://directory.example.net/recipients/{key}"',
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Server(NamedTuple):
    """One server of a source; `security` is "tls", "starttls" or "none"."""

    host: str
    port: int
    security: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str, type_: str, tls: str) -> Server:
    """`ldaps://HOST[:PORT]`, `ldap://HOST[:PORT]`, or for SQL `HOST[:PORT]`; raises InvalidValue."""
    scheme, rest = type_, text.strip()
    if type_ == "ldap":
        scheme, mark, rest = rest.partition("://")
        if not mark or scheme not in ("ldap", "ldaps"):
            advice = 'write "ldaps://HOST", or "ldap://HOST", which begins TLS with StartTLS'
            raise InvalidValue(f'"{text}" is not an LDAP server', advice)
        rest = rest.rstrip("/")
    host, port = split_host_port(rest, text)
    try:
        host = str(parse_address(host)) if re.fullmatch(r"[0-9.]+|.*:.*", host) else parse_domain(host)
    except InvalidValue:
        raise InvalidValue(
            f'"{text}" is not a server', f'write HOST or HOST:PORT, such as "{type_}.example.net"'
        ) from None
    security = "tls" if scheme == "ldaps" else "none" if tls == "none" else "starttls"
    return Server(host, parse_port(port, text) if port else PORTS[scheme], security)


def servers_of(source: Source) -> list[Server]:
    """The servers in the order in which they are asked; a URL is one server."""
    if source.type == "http":
        url = urlsplit(source.url)
        is_secure = url.scheme == "https"
        return [Server(url.hostname or "", url.port or (443 if is_secure else 80), "tls" if is_secure else "none")]
    return [parse_server(text, source.type, source.tls) for text in source.servers]


def source_files(config: Config) -> list[tuple[str, ...]]:
    """The files of each descriptor of the resolver: of each source authorities (if it has TLS), then its password."""
    files: list[tuple[str, ...]] = []
    for _, source in sorted(config.sources.items()):
        if uses_tls(source):
            files.append((source.ca_file or config.tls.ca_file or SYSTEM_CA_FILE,))
        if source.password_file is not None:
            files.append((source.password_file,))
    return files


def uses_tls(source: Source) -> bool:
    """Whether any server of a source is talked to in TLS."""
    return any(server.security != "none" for server in servers_of(source))


def source_of(name: str, sources: Mapping[str, Any]) -> Any:
    """The source of a table, or None if the name is of another kind of table."""
    kind, _, argument = name.partition(":")
    source = sources.get(argument)
    return source if source is not None and KINDS.get(source.type) == kind else None


def keys_of(source: Source, use: str) -> tuple[str, ...]:
    """In which forms a table on this source is asked."""
    return tuple(source.keys) or DEFAULT_KEYS.get(use, ("address",))


def listed_sources(config: Config) -> frozenset[str]:
    """The names of the sources whose answers may be several values: those that a table of aliases or virtual addresses is on."""
    names = {*config.aliases, *config.virtual}
    return frozenset(name.partition(":")[2] for name in names if source_of(name, config.sources) is not None)


# --- checking ---------------------------------------------------------------------------------------------------------


def check_sources(
    values: Mapping[str, Any], tables: Iterable[tuple[tuple[str, str], KeyPath]], findings: Findings
) -> None:
    """Every source by itself, and every table that names one."""
    sources = values.get("sources")
    sources = sources if isinstance(sources, dict) else {}
    used: dict[str, set[str]] = {}
    for name, source in sources.items():
        path: KeyPath = ("sources", name)
        if not _NAME.fullmatch(name):
            findings.add(path, f'"{name}" cannot be the name of a source', "write lower-case letters, digits, - and _")
        _check(source, path, findings)
    for (use, table), table_path in tables:
        kind, _, argument = table.partition(":")
        if kind == "call-ahead" and use != "recipients":
            findings.add(table_path, "a next hop can be asked for recipients only", "remove it here")
        if kind not in KINDS.values():
            continue
        found = sources.get(argument)
        used.setdefault(argument, set()).add(use)
        if found is None:
            findings.add(
                table_path, f'there is no source "{argument}"', f"write [sources.{argument}] and its keys below it"
            )
        elif KINDS.get(found.get("type", ""), kind) != kind:
            right = f'"{KINDS[found["type"]]}:{argument}"'
            findings.add(table_path, f'the source "{argument}" is of the type {found["type"]}', f"write {right}")
        elif use == "access" and found.get("keys"):
            problem = f'the source "{argument}" has "keys", and an access table is asked for keys with tags'
            findings.add(table_path, problem, f"remove keys in [sources.{argument}], or write another source")
        elif (
            (use in DEFAULT_KEYS or use == "access")
            and use != "recipients"
            and (key := _VALUE_KEYS.get(kind))
            and not found.get(key)
        ):
            problem = f'the source "{argument}" has no "{key}": it says only that there is something'
            findings.add(table_path, problem, f"write {key} in [sources.{argument}], whose value is the answer")
    snapshot = values.get("snapshot")
    check_list_uses(sources, used, snapshot.get("max_entries") if isinstance(snapshot, dict) else None, findings)


def _check(source: dict[str, Any], path: KeyPath, findings: Findings) -> None:
    type_ = source.get("type")
    if type_ is None:
        if not any(error.key == f"sources.{path[1]}.type" for error in findings.errors):
            findings.add(path, 'the key "type" is missing', 'write type = "ldap", "postgresql", "mysql" or "http"')
        return
    for key, types in _ONLY.items():
        if key in source and type_ not in types:
            findings.add((*path, key), f'a source of the type {type_} has no "{key}"', "remove the line")
    missing = [key for key in NEEDED[type_] if not source.get(key)]
    for key in missing:
        findings.add(path, f'the key "{key}" is missing', f"write a line such as: {EXAMPLES[key]}")
    library, extra = LIBRARIES.get(type_, ("", ""))
    if library and importlib.util.find_spec(library) is None:
        advice = f'pip install "gatepost[{extra}]"' if extra else f"pip install {library}"
        findings.add((*path, "type"), f"this needs the Python package {library}, which is not there", advice)
    check_list_query(source, path, findings)
    for key, check in (("filter", parse_filter), ("base", parse_pieces), ("query", _parse_query), ("url", parse_url)):
        if key in source and key not in missing and type_ in _ONLY[key]:
            _try(check, source[key], (*path, key), findings)
    servers = [
        server
        for text in source.get("servers", ())
        if type_ in PORTS
        for server in [
            _try(
                lambda text: parse_server(text, type_, source.get("tls", "verify")), text, (*path, "servers"), findings
            )
        ]
    ]
    clear = [server for server in servers if server is not None and server.security == "none"]
    if type_ == "http" and str(source.get("url", "")).startswith("http:"):
        clear = servers_of(Source(type="http", url=source["url"]))
        if clear and source.get("tls") != "none" and not _is_loopback(clear[0].host):
            advice = 'write https, or tls = "none" if the way to this server is safe'
            findings.add((*path, "url"), "keys and answers would travel in clear", advice)
    if clear and "password_file" in source and not all(_is_loopback(server.host) for server in clear):
        findings.add((*path, "tls"), "the password would travel in clear", 'leave tls at "verify"')


def _try(check: Any, text: str, path: KeyPath, findings: Findings) -> Any:
    try:
        return check(text)
    except InvalidValue as error:
        findings.add(path, error.problem, error.advice)
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_query(text: str) -> Any:
    pieces = parse_pieces(text)
    for literal, name in pieces.parts:
        if name and literal.endswith(("'", '"', "`")):
            raise InvalidValue(
                f"{{{name}}} stands in quotes", "remove the quotes: a value is bound, not written into the text"
            )
    if not pieces.places:
        raise InvalidValue("the query asks for no key", f"write {EXAMPLES['query']}")
    if ";" in text.rstrip("; \t"):
        raise InvalidValue("the query is more than one statement", "write one SELECT")
    return pieces


def parse_url(text: str) -> Any:
    """A URL with a place for the key in its path or query; raises InvalidValue."""
    pieces = parse_pieces(text)
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not url.scheme.startswith("http") or url.scheme not in ("http", "https") or url.username is not None:
        raise InvalidValue(
            f'"{text}" is not a URL that can be asked', f"write {EXAMPLES['url']}; a user is a key of its own"
        )
    if "{" in url.netloc or not pieces.places:
        raise InvalidValue(f'"{text}" has no place for the key behind its host', f"write {EXAMPLES['url']}")
    del port
    return pieces
