"""Reads Postfix's main.cf and master.cf: logical lines, parameters, expansion of $name and ${name?{x}:{y}}, services with -o.

Expansion is Postfix's (postconf(5)): `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`, `${name?{x}:{y}}`, `${{a} == {b}
? {x} : {y}}`, `$$`. It is bounded in depth and length; what cannot be expanded stays as it is, and is told by `unresolved`.
"""

from __future__ import annotations

import re

import msgspec

from gatepost.routing.tables.postfix_text import logical_lines

MAX_DEPTH = 20
MAX_VALUE = 1 << 20
MAX_REFERENCES = 10_000  # in one value, those of what it names included

DEFAULTS: dict[str, str] = {
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "myorigin": "$myhostname",
    "mail_name": "Postfix",
    "inet_interfaces": "all",
    "inet_protocols": "all",
    "config_directory": "/etc/postfix",
    "data_directory": "/var/lib/postfix",
    "queue_directory": "/var/spool/postfix",
    "daemon_directory": "/usr/lib/postfix/sbin",
    "command_directory": "/usr/sbin",
    "default_database_type": "hash",
    "default_transport": "smtp",
    "relay_transport": "relay",
    "local_transport": "local:$myhostname",
    "virtual_transport": "virtual",
    "virtual_alias_domains": "$virtual_alias_maps",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "mynetworks_style": "host",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
}

_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_./@-]*)\s*=\s*(.*)", re.DOTALL)
_SIMPLE = re.compile(r"[A-Za-z0-9_]+")
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")


class Parameter(msgspec.Struct, frozen=True):
    """One `name = value` with its lines."""

    name: str
    value: str
    line: int
    last_line: int


class Service(msgspec.Struct, frozen=True):
    """One service of master.cf: `smtp inet n - y - - smtpd` with its options."""

    name: str
    kind: str
    command: str
    options: dict[str, str]
    line: int
    last_line: int
    text: str


def logical_spans(text: str) -> list[tuple[int, int, str]]:
    """First line, last line and text of each logical line."""
    lines = text.split("\n")
    starts = logical_lines(lines)
    found = []
    for index, (number, joined) in enumerate(starts):
        end = starts[index + 1][0] - 1 if index + 1 < len(starts) else len(lines)
        while end > number and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1
        found.append((number, end, joined))
    return found


def parse_main(text: str) -> tuple[list[Parameter], list[tuple[int, int, str]]]:
    """The parameters in their order, and the lines that are none."""
    found, bad = [], []
    for first, last, line in logical_spans(text):
        match = _PARAMETER.fullmatch(line)
        if match is None:
            bad.append((first, last, line))
        else:
            found.append(Parameter(match.group(1), match.group(2).strip(), first, last))
    return found, bad


def parse_master(text: str) -> tuple[list[Service], list[tuple[int, int, str]]]:
    """The services, and the lines that are none."""
    found, bad = [], []
    for first, last, line in logical_spans(text):
        words = line.split()
        if len(words) < 8:
            bad.append((first, last, line))
            continue
        found.append(Service(words[0], words[1], words[7], _options(line), first, last, line))
    return found, bad


def _options(line: str) -> dict[str, str]:
    """`-o name=value`, `-oname=value` and `-o { name = value with spaces }`."""
    options = {}
    for match in re.finditer(r"\s-o\s*(?:\{\s*([^}]*?)\s*\}|(\S+))", line):
        name, equals, value = (match.group(1) or match.group(2)).partition("=")
        if equals:
            options[name.strip()] = value.strip()
    return options


class Parameters:
    """The parameters of one main.cf, expanded when asked for."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.written: dict[str, Parameter] = {parameter.name: parameter for parameter in parameters}
        self.referenced: set[str] = set()
        self.unresolved: set[str] = set()
        self._left = 0
        self.extra: dict[str, str] = {}  # what is known from elsewhere: myhostname

    def value(self, name: str) -> str:
        """The expanded value, or the default's."""
        return self.expand(self._raw(name) or "")

    def is_written(self, name: str) -> bool:
        """Whether main.cf has the parameter."""
        return name in self.written

    def _raw(self, name: str) -> str | None:
        if name in self.written:
            return self.written[name].value
        if name in self.extra:
            return self.extra[name]
        if name == "mydomain":
            host = self.value("myhostname")
            return host.partition(".")[2] or "localdomain"
        return DEFAULTS.get(name)

    def expand(self, text: str, depth: int = 0) -> str:
        """The text with every reference filled in."""
        if depth == 0:
            self._left = MAX_REFERENCES
        if depth > MAX_DEPTH or "$" not in text:
            return text
        parts: list[str] = []
        at = size = 0
        while at < len(text):
            dollar = text.find("$", at)
            if dollar < 0:
                parts.append(text[at:])
                break
            parts.append(text[at:dollar])
            piece, at = self._reference(text, dollar + 1, depth)
            parts.append(piece)
            size += len(piece)
            if size > MAX_VALUE:
                break
        return "".join(parts)

    def _reference(self, text: str, at: int, depth: int) -> tuple[str, int]:
        character = text[at : at + 1]
        self._left -= 1
        if self._left < 0:
            return "$", at
        if character == "$":
            return "$", at + 1
        if character in ("{", "("):
            end = _closing(text, at)
            if end < 0:
                return "$", at
            return self._conditional(text[at + 1 : end], depth), end + 1
        match = _SIMPLE.match(text, at)
        if match is None:
            return "$", at
        return self._of(match.group(), depth), match.end()

    def _of(self, name: str, depth: int) -> str:
        self.referenced.add(name)
        raw = self._raw(name)
        if raw is None:
            self.unresolved.add(name)
            return "" if name in self.written else f"${name}" if name in ("service_name", "process_name") else ""
        return self.expand(raw, depth + 1)

    def _conditional(self, inner: str, depth: int) -> str:
        inner = inner.strip()
        if inner.startswith("{"):
            return self._compared(inner, depth)
        match = _SIMPLE.match(inner)
        if match is None:
            return ""
        name, rest = match.group(), inner[match.end() :].lstrip()
        if not rest:
            return self._of(name, depth)
        self.referenced.add(name)
        value = self.expand(self._raw(name) or "", depth + 1)
        chosen, other = _branches(rest)
        return self.expand(chosen if value else other, depth + 1)

    def _compared(self, inner: str, depth: int) -> str:
        end = _closing(inner, 0)
        match = _COMPARISON.match(inner, end + 1)
        if end < 0 or match is None or inner[match.end() : match.end() + 1] != "{":
            return ""
        second = _closing(inner, match.end())
        if second < 0:
            return ""
        left = self.expand(inner[1:end], depth + 1).strip()
        right = self.expand(inner[match.end() + 1 : second], depth + 1).strip()
        chosen, other = _branches(inner[second + 1 :].lstrip())
        return self.expand(chosen if _holds(left, match.group(1), right) else other, depth + 1)


def _branches(text: str) -> tuple[str, str]:
    """What is taken if the condition holds, and if not: `?x`, `:y`, `?{x}:{y}`."""
    if text.startswith(":"):
        return "", _unbraced(text[1:].strip())
    if not text.startswith("?"):
        return "", ""
    rest = text[1:].strip()
    if not rest.startswith("{"):
        return rest, ""
    end = _closing(rest, 0)
    if end < 0:
        return "", ""
    tail = rest[end + 1 :].strip()
    return rest[1:end].strip(), _unbraced(tail[1:].strip()) if tail.startswith(":") else ""


def _unbraced(text: str) -> str:
    return text[1:-1].strip() if text.startswith("{") and text.endswith("}") else text


def _holds(left: str, operator: str, right: str) -> bool:
    numbers = left.isdigit() and right.isdigit()
    a, b = (int(left), int(right)) if numbers else (left, right)
    return {
        "==": a == b,
        "!=": a != b,
        "<": a < b,  # type: ignore[operator]
        ">": a > b,  # type: ignore[operator]
        "<=": a <= b,  # type: ignore[operator]
        ">=": a >= b,  # type: ignore[operator]
    }[operator]


def _closing(text: str, at: int) -> int:
    """The place of the bracket that closes the one at `at`; -1 if there is none."""
    opening = text[at]
    closing = {"{": "}", "(": ")"}[opening]
    depth = 0
    for index in range(at, len(text)):
        if text[index] == opening:
            depth += 1
        elif text[index] == closing:
            depth -= 1
            if not depth:
                return index
    return -1


def split_list(text: str) -> list[str]:
    """Items between commas and white space; what is in braces stays whole."""
    items: list[str] = []
    current, depth = "", 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth <= 0 and (character.isspace() or character == ","):
            if current:
                items.append(current)
            current = ""
        else:
            current += character
    return [*items, current] if current else items
