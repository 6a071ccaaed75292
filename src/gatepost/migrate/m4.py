"""A reader of the m4 that sendmail.mc files are written in: calls with their arguments and lines. Nothing is ever executed.

Quotes (`...'), comments (dnl, #), nested parentheses, calls over several lines. A macro inside an argument is not expanded:
the argument keeps its text, and `is_plain` says so. Arguments that are bodies (of ifdef) can be read again with `parse_m4`.
Whatever the text is, the answer is a list; what does not end is told as a call named "unfinished".
"""

from __future__ import annotations

import re

import msgspec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_DEPTH = 50

# Names that mean something without parentheses; any other is text.
_BARE = (
    "MAILER_DEFINITIONS LOCAL_CONFIG LOCAL_RULESETS LOCAL_RULE_0 LOCAL_RULE_1 LOCAL_RULE_2 LOCAL_RULE_3 LOCAL_NET_CONFIG "
    "LOCAL_SRV_FEATURES LOCAL_TRY_TLS LOCAL_TLS_RCPT LOCAL_TLS_CLIENT LOCAL_TLS_SERVER LOCAL_CLT_FEATURES divert undivert "
    "changequote changecom"
)
BARE = frozenset(_BARE.split())


class Argument(msgspec.Struct, frozen=True):
    """One argument with its outer quotes removed; `is_plain`: no macro stands outside the quotes."""

    text: str
    line: int
    is_plain: bool = True


class Call(msgspec.Struct, frozen=True):
    """A macro call; without parentheses `arguments` is empty."""

    name: str
    arguments: list[Argument]
    line: int
    last_line: int

    def argument(self, index: int) -> str:
        """The text of an argument, "" if it is not there."""
        return self.arguments[index].text.strip() if index < len(self.arguments) else ""

    def __str__(self) -> str:
        inner = ", ".join(argument.text.strip() for argument in self.arguments)
        return f"{self.name}({inner})" if self.arguments else self.name


class Text(msgspec.Struct, frozen=True):
    """A line that stands outside of every call: text of sendmail.cf, or of a section that was diverted."""

    text: str
    line: int


def parse_m4(text: str, line: int = 1) -> list[Call | Text]:
    """Calls and lines of text in their order; `line` is the number of the first line."""
    return _Reader(text, line).read()


class _Reader:
    def __init__(self, text: str, line: int) -> None:
        self.text = text
        self.at = 0
        self.line = line
        self.found: list[Call | Text] = []
        self.loose: list[str] = []
        self.loose_line = line

    def read(self) -> list[Call | Text]:
        text = self.text
        while self.at < len(text):
            match = _NAME.match(text, self.at)
            character = text[self.at]
            if match:
                self._name(match.group())
            elif character == "#":
                self._keep(self._to_end_of_line())
            elif character == "`":
                self._keep(self._quoted())
            else:
                self._keep(character)
                self._advance(1)
        self._flush()
        return self.found

    def _name(self, name: str) -> None:
        start, line = self.at, self.line
        self._advance(len(name))
        if name == "dnl":
            self._to_end_of_line(and_newline=True)
            return
        if self.text[self.at : self.at + 1] == "(":
            arguments = self._arguments()
            if arguments is None:
                self._flush()
                self.found.append(Call("unfinished", [Argument(self.text[start : start + 60], line)], line, self.line))
                return
            self._flush()
            self.found.append(Call(name, arguments, line, self.line))
        elif name in BARE:
            self._flush()
            self.found.append(Call(name, [], line, line))
        else:
            self._keep(name)

    def _arguments(self) -> list[Argument] | None:
        """What stands in the parentheses that begin here; None if they do not end."""
        self._advance(1)
        arguments: list[Argument] = []
        parts: list[str] = []
        line, is_plain, depth = self.line, True, 0
        is_start = True
        while self.at < len(self.text):
            character = self.text[self.at]
            if is_start and character in " \t\r\n":
                self._advance(1)
                line = self.line
                continue
            is_start = False
            match = _NAME.match(self.text, self.at)
            if match:
                self._advance(len(match.group()))
                if match.group() == "dnl":
                    self._to_end_of_line(and_newline=True)
                    is_start = not parts
                    continue
                is_plain = is_plain and self.text[self.at : self.at + 1] != "("
                parts.append(match.group())
            elif character == "`":
                parts.append(self._quoted())
            elif character == "(":
                depth += 1
                if depth > MAX_DEPTH:
                    return None
                parts.append("(")
                self._advance(1)
            elif character == ")" and depth:
                depth -= 1
                parts.append(")")
                self._advance(1)
            elif character in "),":
                self._advance(1)
                if character == "," and depth:
                    parts.append(",")
                    continue
                arguments.append(Argument("".join(parts), line, is_plain))
                if character == ")":
                    return arguments
                parts, line, is_plain, is_start = [], self.line, True, True
            else:
                parts.append(character)
                self._advance(1)
        return None

    def _quoted(self) -> str:
        """The text in the quotes that begin here, without them; to the end of the text if they do not end."""
        start = self.at + 1
        depth = 0
        at = self.at
        while at < len(self.text):
            if self.text[at] == "`":
                depth += 1
            elif self.text[at] == "'":
                depth -= 1
                if depth == 0:
                    break
            at += 1
        inside = self.text[start:at]
        self._advance(at + 1 - self.at)
        return inside

    def _to_end_of_line(self, and_newline: bool = False) -> str:
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        line = self.text[self.at : end]
        self._advance(end - self.at + (1 if and_newline and end < len(self.text) else 0))
        return line

    def _advance(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def _keep(self, text: str) -> None:
        if not self.loose:
            self.loose_line = self.line - text.count("\n")
        self.loose.append(text)
        if text.endswith("\n"):
            self._flush()

    def _flush(self) -> None:
        text = "".join(self.loose)
        self.loose = []
        for number, line in enumerate(text.split("\n")):
            if line.strip():
                self.found.append(Text(line, self.loose_line + number))
