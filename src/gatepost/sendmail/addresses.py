"""Addresses as people and programs write them for sendmail: in arguments, and in the header for -t.

RFC 5322 with what sendmail and Postfix take beside it: names and comments, groups, several addresses with blanks between them, `;` for `,`,
a source route in front, a backslash against aliases. What cannot be understood is refused as a whole: half a list would be sent otherwise,
and nobody told of the rest. Not here: the grammar of a path; the gateway has that.
"""

from __future__ import annotations

import re

from gatepost.sendmail.sysexits import EX_USAGE, Failure

MAX_ADDRESS = 254
MAX_DEPTH = 20  # of comments in comments

_TOKEN = re.compile(r'[ \t\r\n]+|"(?:[^"\\]|\\.)*"|\[[^\]\r\n]*\]|[^ \t\r\n"(),:;<>\[]+|.', re.DOTALL)
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"'
_LITERAL = r"\[[^\[\]<>\x00-\x20\x7f]*\]"
_ADDRESS = re.compile(rf'(?:{_QUOTED}|{_LITERAL}|[^\x00-\x20"(),:;<>\[\\\]\x7f])+').fullmatch
_COMMENT = re.compile(r"[()]|\\.", re.DOTALL)


def parse_addresses(text: str) -> list[str]:
    """The addresses and bare names of a list, without names and comments; raises Failure."""
    return _Parser(text).parse()


def check_address(text: str) -> str:
    """An address or a bare name; raises Failure."""
    if text.startswith("-"):
        raise _refused(f'"{text}" is refused: an address that begins with "-" could be taken for an option')
    if len(text) > MAX_ADDRESS or not _ADDRESS(text):
        raise _refused(f'"{text}" is not an address')
    return text


class _Parser:
    """One list."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: list[str] = []
        self._words: list[str] = []  # of the mailbox that is read: parts between blanks
        self._in_word = False
        self._angle: str | None = None

    def parse(self) -> list[str]:
        while (token := self._next()) is not None:
            if token in (",", ";"):
                self._end()
            elif token == ":" and self._words and not any("@" in word for word in self._words):
                self._words, self._in_word = [], False  # the name of a group
            elif token == "<":
                self._read_angle()
            elif token.isspace():
                self._in_word = False
            elif token in (":", ">", "["):
                raise self._not_understood()
            elif self._in_word:
                self._words[-1] += token
            else:
                self._words.append(token)
                self._in_word = True
        self._end()
        return self._found

    def _next(self) -> str | None:
        """The next token; comments are passed over."""
        while (match := _TOKEN.match(self._text, self._at)) is not None:
            self._at = match.end()
            if match[0] != "(":
                return match[0]
            self._skip_comment()
            self._in_word = False
        return None

    def _skip_comment(self) -> None:
        depth = 1
        while depth:
            match = _COMMENT.search(self._text, self._at)
            if match is None or depth > MAX_DEPTH:
                raise self._not_understood()
            self._at = match.end()
            depth += {"(": 1, ")": -1}.get(match[0], 0)

    def _read_angle(self) -> None:
        parts = []
        while (token := self._next()) != ">":
            if token is None or token == "<":
                raise self._not_understood()
            parts.append(token.strip())
        if self._angle is not None:
            raise self._not_understood()
        path = "".join(parts)
        route, colon, address = path.partition(":")
        self._angle = address if colon and route.startswith("@") else path
        self._in_word = False

    def _end(self) -> None:
        """A mailbox is whole, or there is none."""
        words, self._words, self._in_word = self._words, [], False
        angle, self._angle = self._angle, None
        if angle is not None:
            if angle:
                self._found.append(check_address(angle.removeprefix("\\")))
        elif len(words) > 1 and not all("@" in word for word in words):
            raise self._not_understood()  # a name without an address, or one with a blank
        else:
            self._found += [check_address(word.removeprefix("\\")) for word in words]

    def _not_understood(self) -> Failure:
        return _refused(f'"{" ".join(self._text.split())}" is not a list of addresses')


def _refused(text: str) -> Failure:
    return Failure(EX_USAGE, "".join(character if character.isprintable() else "?" for character in text))
