"""The addresses of a header field (RFC 5322 3.4): where each stands in the octets, and nothing else.

Strict: an address is a local part, an "@" and a domain without space or comment between them. A field that is not a list of
addresses by the grammar gives None, and whoever asks leaves it alone. Folding, comments, quoted names, groups, encoded-words
and UTF-8 are stepped over, never interpreted. Every expression is possessive, so that time is linear in the octets.
"""

from __future__ import annotations

import re

import msgspec

MAX_COMMENT_DEPTH = 32
MAX_TOKENS = 100_000

# 1 white space, 2 atoms with dots, 3 quoted string, 4 domain literal, 5 special
_TOKEN = re.compile(
    rb"((?:[ \t]|\r\n[ \t])++)"
    rb"|([A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++)"
    rb'|("(?:[^"\\\r\n\0]|\\[^\r\n\0]|\r\n[ \t])*+")'
    rb"|(\[[^\[\]\\\r\n\0 ]*+\])"
    rb"|([<>@,;:])"
).match
_COMMENT_TEXT = re.compile(rb"(?:[^()\\\r\n\0]|\\[^\r\n\0]|\r\n[ \t])*+").match
_SPACE, _ATOM, _QUOTED, _LITERAL, _SPECIAL = range(1, 6)

Token = tuple[int, int, int]  # kind, or the octet of a special; start; end


class Span(msgspec.Struct, frozen=True, gc=False):
    """One address: octets `start` to `end` of what was asked about; `local` with its quotes, if it has any."""

    start: int
    end: int
    local: bytes
    domain: bytes


def find_addresses(value: bytes, max_tokens: int = MAX_TOKENS) -> list[Span] | None:
    """The addresses of a field's value (without its last CRLF), in order; None: it is no list of addresses, or too long.

    A word that stands for itself (`root`) is no address, and no fault.
    """
    tokens = _tokens(value, max_tokens)
    if tokens is None:
        return None
    spans: list[Span] = []
    count = len(tokens)
    at = 0
    in_group = False
    while at < count:
        begin = at
        while at < count and tokens[at][0] in (_ATOM, _QUOTED):
            at += 1
        words = at - begin
        mark = tokens[at][0] if at < count else 0
        if mark == 64:  # "@"
            span = _address(value, tokens, at - 1) if words == 1 else None
            at += 2
        elif mark == 60:  # "<"
            span = _address(value, tokens, at + 1)
            at += 5
            if span is None or at > count or tokens[at - 1][0] != 62:
                return None
        elif mark == 58 and words and not in_group:  # ":"
            in_group = True
            at += 1
            continue
        elif mark in (0, 44, 59):
            span = None
        else:
            return None
        if mark in (64, 60):
            if span is None:
                return None
            spans.append(span)
        if at >= count:
            break
        end = tokens[at][0]
        if end == 59 and in_group:  # ";"
            in_group = False
            at += 1
            if at < count and tokens[at][0] != 44:
                return None
            at += 1
        elif end == 44:
            at += 1
        else:
            return None
    return None if in_group else spans


def _tokens(value: bytes, max_tokens: int) -> list[Token] | None:
    """What is neither space nor comment."""
    tokens: list[Token] = []
    at, length = 0, len(value)
    while at < length:
        match = _TOKEN(value, at)
        if match is None:
            if value[at] != 40:  # "("
                return None
            at = _end_of_comment(value, at)
            if at < 0:
                return None
            continue
        kind = match.lastindex
        end = match.end()
        if kind == _SPECIAL:
            tokens.append((value[at], at, end))
        elif kind != _SPACE:
            tokens.append((kind or 0, at, end))
        if len(tokens) > max_tokens:
            return None
        at = end
    return tokens


def _end_of_comment(value: bytes, at: int) -> int:
    """Behind the parenthesis that closes the one at `at`; -1 if none does."""
    depth = 0
    while True:
        mark = value[at : at + 1]
        if mark == b"(":
            depth += 1
        elif mark == b")":
            depth -= 1
        else:
            return -1
        if depth > MAX_COMMENT_DEPTH:
            return -1
        at += 1
        if not depth:
            return at
        text = _COMMENT_TEXT(value, at)
        at = text.end() if text is not None else at


def _address(value: bytes, tokens: list[Token], at: int) -> Span | None:
    """The address whose local part is token `at`: three tokens without a gap."""
    if at + 2 >= len(tokens):
        return None
    local, sign, domain = tokens[at : at + 3]
    if local[0] not in (_ATOM, _QUOTED) or sign[0] != 64 or domain[0] not in (_ATOM, _LITERAL):
        return None
    if local[2] != sign[1] or sign[2] != domain[1]:
        return None
    return Span(local[1], domain[2], value[local[1] : local[2]], value[domain[1] : domain[2]])
