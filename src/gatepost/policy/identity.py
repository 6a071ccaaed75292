"""Which reverse-paths and From addresses an authenticated user may use: the ones bound to him, by default his own.

Pure. A pattern is an address in which one `*` stands for any part of the local part; the domain is always written out. What is
checked is the header as sent: exactly one From field whose every mailbox is bound, and so every mailbox of Sender, Resent-From and
Resent-Sender (RFC 5322 3.6.2, 3.6.6), if they are there: a resent message of somebody else is a From of somebody else. A header that two
readers could read in two ways (a line that is no field, a mailbox that cannot be parsed) is refused rather than guessed at. The null
reverse-path is allowed: read receipts use it, and the header is checked all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gatepost.config.recipients import fold_local
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address
from gatepost.policy.verdict import ACCEPT, Verdict

MAX_FIELD_BYTES = 16 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:").match
_ATOM = r"[^\x00-\x20\x7f()<>@,;:\\\"\[\]]+"
_QUOTED = r'"(?:[^"\\\r\n\x00]|\\[^\r\n\x00])*+"'
_TOKEN = re.compile(
    rf"[ \t]+|(?P<quoted>{_QUOTED})|(?P<atom>{_ATOM})|(?P<literal>\[[^\[\]\\\s]*\])|(?P<special>[<>@,;:])", re.DOTALL
)
_COMMENT_PART = re.compile(r"[^()\\]+|\\.", re.DOTALL)

REVERSE_PATH_REFUSED = Verdict(
    553, "7.1", "This reverse-path is not bound to the user you authenticated as", check="identity"
)
FIELDS = {b"from": 50, b"sender": 1, b"resent-from": 50, b"resent-sender": 1}  # mailboxes that one may have
MAX_FIELDS = 50  # of these together
FROM_REFUSED = Verdict(550, "7.1", "The From address is not bound to the user you authenticated as", check="identity")
FROM_UNCLEAR = Verdict(550, "7.1", "The message needs exactly one From field, with plain addresses", check="identity")
SENDER_REFUSED = Verdict(
    550, "7.1", "The Sender address is not bound to the user you authenticated as", check="identity"
)
SENDER_UNCLEAR = Verdict(
    550, "7.1", "The message needs at most one Sender field, with one plain address", check="identity"
)
RESENT_REFUSED = Verdict(
    550, "7.1", "A Resent-From or Resent-Sender address is not bound to the user you authenticated as", check="identity"
)
RESENT_UNCLEAR = Verdict(
    550, "7.1", "Resent-From and Resent-Sender need plain addresses, the latter one each", check="identity"
)
HEADER_UNCLEAR = Verdict(550, "6.0", "The header of the message has a line that is not a field", check="identity")


_REFUSED = {b"from": FROM_REFUSED, b"sender": SENDER_REFUSED}  # the others are of resent blocks
_UNCLEAR = {b"from": FROM_UNCLEAR, b"sender": SENDER_UNCLEAR}


class Unclear(ValueError):
    """A field of addresses that cannot be read in one way only."""


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
    fields: list[tuple[bytes, bytearray]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            if fields[-1][0] in FIELDS:
                fields[-1][1].extend(line)
            continue
        if not line:
            break
        match = _FIELD(line)
        if match is None:
            return HEADER_UNCLEAR
        fields.append((match[1].lower(), bytearray(line[match.end() :])))
    found = [(name, text) for name, text in fields if name in FIELDS]
    names = [name for name, _ in found]
    if names.count(b"from") != 1:
        return FROM_UNCLEAR
    if names.count(b"sender") > 1:
        return SENDER_UNCLEAR
    if len(found) > MAX_FIELDS:
        return RESENT_UNCLEAR
    for name, text in found:
        verdict = _check_field(bound, name, text)
        if verdict is not ACCEPT:
            return verdict
    return ACCEPT


def _check_field(bound: Bound, name: bytes, text: bytearray) -> Verdict:
    unclear = _UNCLEAR.get(name, RESENT_UNCLEAR)
    if len(text) > MAX_FIELD_BYTES:
        return unclear
    try:
        mailboxes = parse_mailboxes(text.decode("utf-8", "replace"), FIELDS[name])  # a name in Latin-1 hurts nobody
    except Unclear:
        return unclear
    return ACCEPT if all(map(bound.has, mailboxes)) else _REFUSED.get(name, RESENT_REFUSED)


def parse_mailboxes(text: str, most: int = FIELDS[b"from"]) -> list[str]:
    """The addresses of a mailbox-list (RFC 5322 3.4), from one to `most`; raises Unclear for anything else, groups included."""
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
    if not 0 < len(mailboxes) <= most:
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
