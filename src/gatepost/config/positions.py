"""Which line of a TOML file each key and each array item stands on.

`tomllib` parses and checks; it just does not say where things are. This scanner runs over text that tomllib has accepted,
so it may trust the syntax (TOML 1.0) and only has to find its way past strings, comments, arrays and inline tables. It
keeps no values. Where it is lost it stops: the positions found so far remain right.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

from gatepost.config.errors import KeyPath

_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # up to two quotes may stand in front of the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s,#\]}]+(?: (?=\d)[^\s,#\]}]+)?")  # numbers, booleans, dates (one space may stand in a date)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Key paths to line numbers, from 1; array items have their index in the path."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    try:
        scanner.document()
    except _LostError:
        pass
    return scanner.lines


class _LostError(Exception):
    """The scanner does not understand the text at its position."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._starts = [0] + [match.end() for match in re.finditer("\n", text)]
        self._arrays: dict[KeyPath, int] = {}  # arrays of tables: path -> index of the last

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_GAP)
            if self.at >= len(self.text):
                return
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        start = self.at
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        path: KeyPath = ()
        keys = self._key()
        for number, key in enumerate(keys, 1):
            path += (key,)
            if double and number == len(keys):
                self._arrays[path] = self._arrays.get(path, -1) + 1
            self._mark(path, start)
            if path in self._arrays:
                path += (self._arrays[path],)
                self._mark(path, start)
        self.at += 2 if double else 1
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        for key in self._key():
            path += (key,)
            self._mark(path, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        """A possibly dotted, possibly quoted key."""
        keys = []
        while True:
            self._skip(_SPACE)
            if self._peek() in "\"'":
                keys.append(_unquote(self._take(_STRING)))
            else:
                keys.append(self._take(_BARE))
            self._skip(_SPACE)
            if self._peek() != ".":
                return keys
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        first = self._peek()
        if first == "[":
            self.at += 1
            self._items(path)
        elif first == "{":
            self.at += 1
            self._inline_table(path)
        elif first in "\"'":
            self._take(_STRING)
        else:
            self._take(_PLAIN)

    def _items(self, path: KeyPath) -> None:
        index = 0
        while True:
            self._skip(_GAP)
            if self._peek() == "]":
                self.at += 1
                return
            self._mark((*path, index), self.at)
            self._value((*path, index))
            index += 1
            self._skip(_GAP)
            if self._peek() == ",":
                self.at += 1

    def _inline_table(self, path: KeyPath) -> None:
        while True:
            self._skip(_GAP)
            if self._peek() == "}":
                self.at += 1
                return
            self._pair(path)
            self._skip(_GAP)
            if self._peek() == ",":
                self.at += 1

    def _mark(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self._starts, at))

    def _peek(self) -> str:
        if self.at >= len(self.text):
            raise _LostError
        return self.text[self.at]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or match.end() == self.at:
            raise _LostError
        self.at = match.end()
        return match.group()

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise _LostError
        self.at += 1


def _unquote(quoted: str) -> str:
    value = tomllib.loads(f"key = {quoted}")["key"]
    return str(value)
