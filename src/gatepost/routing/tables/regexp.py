"""Tables of regular expressions: Postfix's regexp: and pcre: (regexp_table(5), pcre_table(5)), and patterns for whoever needs one.

The engine is RE2, which takes time proportional to the text whatever the pattern is: no address that a stranger makes up can
keep a role busy. It knows no back references and no look-around; a line that uses them is an error that says so. The whole
address is asked once, never its parts. Compiled when a role starts, before it locks itself in.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, ClassVar

from gatepost.config.tables import TableData
from gatepost.config.values import InvalidValue
from gatepost.routing.tables.postfix_text import read_rules
from gatepost.routing.tables.source import fail

MAX_PATTERN_CHARACTERS = 4096
MAX_PATTERN_BYTES = 2 * 1024 * 1024  # of memory for the automaton of one pattern
MAX_RULES = 10_000

_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\d+)\}|\((\d+)\)|(\$)|(.?))")
_UNKNOWN_FLAGS = {
    "regexp": {"x": "basic expressions are not known: write an extended one, without the flag x"},
    "pcre": {"x": "white space in patterns is not known: take it out, and the flag x"},
}
_FLAGS = {"regexp": "im", "pcre": "imsAEUX"}


class PatternError(InvalidValue):
    """A pattern that cannot be used: what is wrong, and what to write instead."""


def compile_bounded(pattern: str, ignore_case: bool = False) -> Any:
    """A compiled pattern with `search`, as of `re`, that takes linear time; raises PatternError."""
    engine = _engine()
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise PatternError(f"the pattern has more than {MAX_PATTERN_CHARACTERS} characters", "shorten it")
    options = engine.Options()
    options.case_sensitive = not ignore_case
    options.max_mem = MAX_PATTERN_BYTES
    options.log_errors = False
    try:
        return engine.compile(pattern, options)
    except engine.error as error:
        cause = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        advice = "no look-around and no back references are known; correct the pattern"
        raise PatternError(f"the pattern is not valid ({cause})", advice) from None
    except UnicodeEncodeError:
        raise PatternError("the pattern is not text", "save the file as UTF-8") from None


def _engine() -> Any:
    """RE2, an extra of the installation: loaded only where a pattern is configured."""
    try:
        return importlib.import_module("re2")
    except ImportError:
        advice = "install it: pip install 'gatepost[regexp]' (it brings google-re2)"
        raise PatternError("the engine for regular expressions is not installed", advice) from None


class RegexpTable:
    """Patterns and values in order; the first that matches counts."""

    kind: ClassVar[str] = "regexp"
    is_path = True
    __slots__ = ("_rules", "name")

    def __init__(self, name: str, rules: list[tuple[str, ...]]) -> None:
        self.name = name
        self._rules: list[tuple[str, bool, Any, list[str | int]]] = [
            (rule[0], rule[1] == "!", compile_rule(rule[2], rule[3]) if rule[0] != "endif" else None, _parts(rule[4]))
            for rule in rules
        ]

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file and try each pattern; raises ConfigErrors with every bad line."""

        def parse(text: str) -> tuple[str, ...]:
            rule = parse_rule(cls.kind, text)
            _try_rule(rule)
            return rule

        data = read_rules(cls.kind, argument, parse)
        if len(data.rules) > MAX_RULES:
            raise fail(argument, f"it has more than {MAX_RULES} rules", "use a table of keys where you can")
        return data

    @classmethod
    def of_data(cls, data: TableData) -> RegexpTable:
        """The table out of what was read."""
        return cls(data.name, data.rules)

    def lookup(self, key: str) -> str | None:
        """The value of the first pattern that matches, its references filled in."""
        if not key:
            return None
        try:
            key.encode()
        except UnicodeEncodeError:
            return None
        skipping = 0
        for name, negated, pattern, parts in self._rules:
            if name == "endif":
                skipping = max(0, skipping - 1)
                continue
            if skipping:
                skipping += name == "if"
                continue
            match = pattern.search(key)
            if (match is None) != negated:
                skipping = name == "if"
            elif name == "rule":
                return "".join(part if type(part) is str else match.group(part) or "" for part in parts)
        return None

    def find_address(self, local: str, domain: str) -> str | None:
        """The value for the whole address."""
        return self.lookup(f"{local}@{domain}")


class PcreTable(RegexpTable):
    """The same in the syntax of Perl, as far as RE2 has it."""

    kind: ClassVar[str] = "pcre"


def parse_rule(kind: str, text: str) -> tuple[str, ...]:
    """(what, "!" or "", pattern, flags, value) of one logical line; raises PatternError."""
    word = text.split(None, 1)[0].lower()
    if word == "endif":
        return ("endif", "", "", "", "")
    what = "rule"
    if word == "if":
        what, text = "if", text[2:].strip()
    negated = ""
    while text.startswith("!"):
        negated, text = ("" if negated else "!"), text[1:].strip()
    if not text or text[0].isalnum() or text[0].isspace():
        raise PatternError("the line does not begin with a pattern", "write: /pattern/flags value")
    delimiter = text[0]
    end = text.find(delimiter, 1)
    while end > 0 and _is_escaped(text, end):
        end = text.find(delimiter, end + 1)
    if end < 0:
        raise PatternError(f"the pattern has no closing {delimiter}", "write: /pattern/flags value")
    pattern = text[1:end].replace("\\" + delimiter, delimiter) if delimiter not in ".^$*+?()[]{}|\\" else text[1:end]
    flags, value = (
        [*text[end + 1 :].split(None, 1), ""] if text[end + 1 : end + 2].strip() else ["", text[end + 1 :]]
    )[:2]
    if what == "if":
        value = ""
    elif not value.strip():
        raise PatternError("the pattern has no value", "write: /pattern/flags value")
    for flag in flags:
        if flag not in _FLAGS[kind]:
            advice = _UNKNOWN_FLAGS[kind].get(flag, f"the flags are {' '.join(_FLAGS[kind])}")
            raise PatternError(f'the flag "{flag}" is not known', advice)
    return (what, negated, pattern, flags, value.strip())


def compile_rule(pattern: str, flags: str) -> Any:
    """The pattern with Postfix's flags, of which each switches something over: without `i` case does not count."""
    inner = "".join(letter for letter in ("s", "m", "U") if letter in flags or letter == "s")
    text = f"(?{inner}){pattern}"
    if "A" in flags:
        text = f"(?{inner})\\A(?:{pattern})"
    return compile_bounded(text, ignore_case="i" not in flags)


def _try_rule(rule: tuple[str, ...]) -> None:
    if rule[0] == "endif":
        return
    pattern = compile_rule(rule[2], rule[3])
    for part in _parts(rule[4]):
        if type(part) is int and (rule[1] or part > pattern.groups or part == 0):
            problem = f"${part} is not a group of this pattern"
            raise PatternError(problem, "put what it stands for in parentheses, or write $$ for a dollar sign")


def _parts(value: str) -> list[str | int]:
    """A value as texts and numbers of groups."""
    parts: list[str | int] = []
    at = 0
    for match in _REFERENCE.finditer(value):
        parts.append(value[at : match.start()])
        number = match.group(1) or match.group(2) or match.group(3)
        parts.append(int(number) if number else "$" if match.group(4) else match.group())
        at = match.end()
    parts.append(value[at:])
    return parts


def _is_escaped(text: str, at: int) -> bool:
    count = 0
    while text[at - 1 - count] == "\\":
        count += 1
    return count % 2 == 1
