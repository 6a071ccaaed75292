"""Which reverse-paths and From addresses an authenticated user may use: the ones bound to him, by default his own.

Pure. A pattern is an address in which one `*` stands for any part of the local part; the domain is always written out. What is
checked is the header as sent: exactly one From field whose every mailbox is bound. A header that two readers could read in two
ways (a line that is no field, a mailbox that cannot be parsed) is refused rather than guessed at. The null reverse-path is
allowed: read receipts use it, and the From field is checked all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gatepost.config.recipients import fold_local
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address
from gatepost.policy.verdict import ACCEPT, Verdict

MAX_FROM_BYTES = 16 * 1024
MAX_FROM_MAILBOXES = 50

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:").match
_ATOM = r"[^\s\x00-\x20()<>@,;:\\\"\[\]]+"
_QUOTED = r'"(?:[^"\\\r\n\x00]|\\[^\r\n\x00])*+"'
_TOKEN = re.compile(
    rf"\s+|(?P<quoted>{_QUOTED})|(?P<atom>{_ATOM})|(?P<literal>\[[^\[\]\\\s]*\])|(?P<special>[<>@,;:])", re.DOTALL
)
_COMMENT_PART = re.compile(r"[^()\\]+|\\.", re.DOTALL)

REVERSE_PATH_REFUSED = Verdict(
    553, "7.1", "This reverse-path is not bound to the user you authenticated as", check="identity"
)
FROM_REFUSED = Verdict(550, "7.1", "The From address is not bound to the user you authenticated as", check="identity")
FROM_UNCLEAR = Verdict(550, "7.1", "The message needs exactly one From field, with plain addresses", check="identity")
HEADER_UNCLEAR = Verdict(550, "6.0", "The header of the message has a line that is not a field", check="identity")


class Unclear(ValueError):
    """A From field that cannot be read in one way only."""


class Bound:
    """The addresses of one user, for fast look-up."""

    __slots__ = ("_exact", "_patterns", "name")

    def __init__(self, name: str, patterns: Iterable[str]) -> None:
        self.name = name
        self._exact: set[str] = set()
        self._patterns: list[tuple[str, str, str]] = []  # begin and end of the local part, domain
        for pattern in list(patterns) or ([name] if "@" in name else []):
            local, _, domain = pattern.rpartition("@")
            begin, star, end = local.partition("*")
            if star:
                self._patterns.append((begin, end, domain))
            else:
                self._exact.add(pattern)

    def has(self, address: str) -> bool:
        """Whether an address ("local@domain") is his."""
        written, _, place = address.rpartition("@")
        try:
            folded = f"{fold_local(written)}@{place.lower() if place.isascii() else parse_domain(place)}"
        except InvalidValue:
            return False
        if folded in self._exact:
            return True
        local, _, domain = folded.rpartition("@")
        return any(
            domain == bound_domain
            and len(local) >= len(begin) + len(end)
            and local.startswith(begin)
            and local.endswith(end)
            for begin, end, bound_domain in self._patterns
        )


def check_reverse_path(bound: Bound, path: Address | None) -> Verdict:
    """For MAIL."""
    if path is None or bound.has(f"{path.local}@{path.domain}"):
        return ACCEPT
    return REVERSE_PATH_REFUSED


def check_header(bound: Bound, header: bytes) -> Verdict:
    """For the end of data: `header` is all in front of the first empty line."""
    fields: list[bytearray] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
            continue
        if not line:
            break
        match = _FIELD(line)
        if match is None:
            return HEADER_UNCLEAR
        fields.append(bytearray(line) if match[1].lower() == b"from" else bytearray())
    found = [bytes(field) for field in fields if field[:4].lower() == b"from"]
    if len(found) != 1 or len(found[0]) > MAX_FROM_BYTES:
        return FROM_UNCLEAR
    try:
        mailboxes = parse_mailboxes(
            found[0].partition(b":")[2].decode("utf-8", "replace")
        )  # a name in Latin-1 hurts nobody
    except Unclear:
        return FROM_UNCLEAR
    return ACCEPT if all(map(bound.has, mailboxes)) else FROM_REFUSED


def parse_mailboxes(text: str) -> list[str]:
    """The addresses of a mailbox-list (RFC 5322 3.4), at least one; raises Unclear for anything else, groups included."""
    mailboxes = []
    for tokens in _split(_tokens(text)):
        if [kind for kind, _ in tokens].count("<"):
            begin = next(i for i, (kind, _) in enumerate(tokens) if kind == "<")
            if tokens[-1][0] != ">" or any(
                kind in "<>@:;" for kind, _ in (*tokens[:begin], *tokens[begin + 1 : -1]) if kind != "@"
            ):
                raise Unclear("angle brackets")
            if any(kind == "@" for kind, _ in tokens[:begin]):
                raise Unclear("an @ in the display name")
            tokens = tokens[begin + 1 : -1]
        mailboxes.append(_address(tokens))
    if not 0 < len(mailboxes) <= MAX_FROM_MAILBOXES:
        raise Unclear("no mailbox, or too many")
    return mailboxes


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, depth = 0, 0
    while at < len(text):
        if text[at] in "()" or depth:
            if text[at] in "()":
                depth += 1 if text[at] == "(" else -1
                at += 1
                if depth < 0:
                    raise Unclear("parentheses")
                continue
            part = _COMMENT_PART.match(text, at)
            if part is None:
                raise Unclear("a comment that ends with a backslash")
            at = part.end()
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unclear("an unexpected character")
        at = match.end()
        if match.lastgroup is not None:
            kind = match[0] if match.lastgroup == "special" else match.lastgroup
            tokens.append((kind, match[0]))
    if depth:
        raise Unclear("a comment without end")
    return tokens


def _split(tokens: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """At commas; an empty part (RFC 5322 4.4 knows them) counts for nothing."""
    parts: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token[0] == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _address(tokens: list[tuple[str, str]]) -> str:
    kinds = [kind for kind, _ in tokens]
    if kinds.count("@") != 1:
        raise Unclear("not one @")
    at = kinds.index("@")
    local, domain = tokens[:at], tokens[at + 1 :]
    if [kind for kind, _ in domain] != ["atom"] and [kind for kind, _ in domain] != ["literal"]:
        raise Unclear("the domain")
    if [kind for kind, _ in local] not in (["atom"], ["quoted"]):
        raise Unclear("the local part")
    return f"{local[0][1]}@{domain[0][1]}"
