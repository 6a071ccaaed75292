"""Credentials for next hops: `[[delivery.credentials]]`, and a file of them as sendmail (authinfo) or Postfix (sasl_passwd) has it.

    AuthInfo:relay.example.net "U:name" "P:password" "M:SCRAM-SHA-256 PLAIN"
    [relay.example.net]:587     name:password

What is checked here is everything but the secrets themselves: those are read by the supervisor as sealed memory
(`privsep/material.py`), and go to the deliverers only. A host without a port is meant on 25 and 587. Errors never show a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gatepost.config.errors import ConfigError, ConfigErrors, Findings, KeyPath
from gatepost.config.nexthop import NextHopError, canonical, parse_next_hop
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue
from gatepost.safeopen import LinkInPath, read_regular

MAX_FILE_BYTES = 1024 * 1024
MAX_SECRET_BYTES = 8192  # a token; a password has at most 1,024
MECHANISMS = (
    "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN",
)  # fmt: skip
PORTS = (25, 587)

_AUTHINFO = re.compile(r"authinfo:(\S*)\s+(.*)", re.IGNORECASE)
_QUOTED = re.compile(r'"([A-Za-z])([:=])([^"]*)"')
_PASSWD = re.compile(r"(\S+)\s+([^:\s]+):(\S.*)")


class Entry(msgspec.Struct, frozen=True):
    """One line of a credentials file."""

    next_hops: tuple[str, ...]
    user: str
    password: str
    mechanisms: tuple[str, ...]
    line: int

    def __repr__(self) -> str:
        return f"Entry({self.next_hops}, {self.user!r}, ...)"


def parse_smtp_host(text: str) -> str:
    """The canonical next hop that a login is for: one host by SMTP, never what the DNS names."""
    hops = parse_next_hop(text)
    if len(hops) != 1 or hops[0].kind != "smtp":
        raise NextHopError(f'"{text}" is not one host', 'a login is for one host: write "smtp://HOST:PORT"')
    return canonical(hops)


def parse_credentials(path: str, content: bytes) -> list[Entry]:
    """The entries of a file; raises ConfigErrors."""
    errors: list[ConfigError] = []
    entries: list[Entry] = []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigErrors(
            [ConfigError(path, 0, "", "it is not UTF-8 text", "name the text, not a .db file")]
        ) from None
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            entries.append(_parse_line(stripped, number))
        except InvalidValue as error:
            errors.append(ConfigError(path, number, "", error.problem, error.advice))
    if errors:
        raise ConfigErrors(errors)
    return entries


def _parse_line(text: str, number: int) -> Entry:
    match = _AUTHINFO.fullmatch(text)
    if match:
        values: dict[str, str] = {}
        for letter, sign, value in _QUOTED.findall(match[2]):
            if sign == "=" and letter.upper() == "P":
                raise InvalidValue("the password is in base64", 'write "P:" and the password itself')
            values.setdefault(letter.upper(), value)
        user, password = values.get("U") or values.get("I", ""), values.get("P", "")
        if not user or not password:
            raise InvalidValue("the line has no name or no password", 'write "U:name" "P:password"')
        wanted = tuple(word for word in values.get("M", "").upper().split() if word in MECHANISMS)
        return Entry(_next_hops(match[1]), user, password, wanted, number)
    match = _PASSWD.fullmatch(text)
    if match is None:
        raise InvalidValue("the line is no login", 'write "[HOST]:PORT NAME:PASSWORD", or sendmail\'s AuthInfo')
    return Entry(_next_hops(match[1]), match[2], match[3].rstrip(), (), number)


def _next_hops(text: str) -> tuple[str, ...]:
    """`[host]:port`, `host:port`, `[host]`, `host`."""
    if "@" in text:
        raise InvalidValue(f'"{text}" is a sender', "logins are for hosts: give the sender a route with sender_routes")
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    port = {"submission": "587", "smtp": "25"}.get(port.lower(), port)
    if not host:
        raise InvalidValue("the line names no host", "a login without a host would go to every host; name the host")
    shown = f"[{host}]" if ":" in host else host
    return tuple(parse_smtp_host(f"smtp://{shown}:{number}") for number in ((port,) if port else PORTS))


def check_credentials(values: dict[str, object], findings: Findings) -> None:
    """Note what is wrong with logins; rows for those in the file join `delivery.credentials`, without their secrets."""
    delivery = values.get("delivery")
    if not isinstance(delivery, dict):
        return
    rows = delivery.get("credentials") or []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        here = ("delivery", "credentials", index)
        if ("password_file" in row) == ("token_file" in row):
            findings.add(here, "it needs one of password_file and token_file", 'write password_file = "relay.password"')
        if row.get("next_hop") in seen:
            findings.add(here, f'there is a login for "{row["next_hop"]}" already', "remove one of the two")
        seen.add(row.get("next_hop", ""))
        for name in ("password_file", "token_file"):
            if row.get(name):
                _check_secret(str(row[name]), (*here, name), findings)
    path = delivery.get("credentials_file")
    if path:
        for entry in _read(str(path), findings):
            for hop in entry.next_hops:
                if hop not in seen:
                    seen.add(hop)
                    rows.append(
                        {"next_hop": hop, "user": entry.user, "password_file": path, "mechanisms": [*entry.mechanisms]}
                    )
        delivery["credentials"] = rows
    tls = values.get("tls")
    for number, policy in enumerate((tls.get("policies") if isinstance(tls, dict) else None) or ()):
        named = [hop for hop in policy.get("next_hops") or () if hop in seen]
        if named and policy.get("level") in ("none", "opportunistic"):
            problem = f'a login for "{named[0]}" would go in clear'
            findings.add(("tls", "policies", number, "level"), problem, 'write level = "verify", or "encrypt"')


def _check_secret(path: str, key: KeyPath, findings: Findings) -> None:
    """That the file can be read and holds something; what it holds stays there."""
    try:
        if not _first_line(read_regular(path, MAX_FILE_BYTES)):
            findings.add(
                key, f'"{path}" has no password in its first line', "write the password, and nothing else, there"
            )
    except LinkInPath:
        findings.add(key, f'"{path}" is a symbolic link, or lies behind one', "write its real path")
    except OSError as error:
        findings.add(key, f'"{path}" cannot be read ({error.strerror})', "correct the path or the permissions")


def _first_line(content: bytes) -> str:
    """The secret, or "" if that is none."""
    secret = content.decode("utf-8", "replace").split("\n", 1)[0].removesuffix("\r")
    return "" if len(secret) > MAX_SECRET_BYTES or "\0" in secret else secret


def _read(path: str, findings: Findings) -> list[Entry]:
    key = ("delivery", "credentials_file")
    try:
        return parse_credentials(path, read_regular(path, MAX_FILE_BYTES))
    except LinkInPath:
        findings.add(key, f'"{path}" is a symbolic link, or lies behind one', "write its real path")
    except OSError as error:
        findings.add(key, f'"{path}" cannot be read ({error.strerror})', "correct the path or the permissions")
    except ConfigErrors as bad:
        findings.errors.extend(bad.errors)
    return []


def credential_files(config: Config) -> list[str]:
    """The distinct files that hold secrets of logins, in a stable order."""
    rows = config.delivery.credentials
    return sorted({path for row in rows for path in (row.password_file, row.token_file) if path is not None})


def secret_of(config: Config, number: int, contents: Mapping[str, bytes]) -> str:
    """The password or token of a row of `delivery.credentials`; raises ConfigErrors."""
    row = config.delivery.credentials[number]
    path = row.password_file or row.token_file or ""
    content = contents[path]
    if path == config.delivery.credentials_file:
        found = [entry.password for entry in parse_credentials(path, content) if row.next_hop in entry.next_hops]
        secret = found[0] if found else ""
    else:
        secret = _first_line(content)
    if not secret:
        problem = f"it has no password for {row.next_hop}"
        raise ConfigErrors([ConfigError(path, 0, "", problem, "write the password as its first line")])
    return secret


def unruled_next_hops(config: Config) -> list[str]:
    """Next hops with a login whose TLS no row of `[[tls.policies]]` rules: their certificates are verified."""
    ruled = {hop for row in config.tls.policies for hop in row.next_hops}
    return [row.next_hop for row in config.delivery.credentials if row.next_hop not in ruled]
