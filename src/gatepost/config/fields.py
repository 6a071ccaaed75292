"""From the tables that tomllib gives to values that fit `schema.py`, noting every error on the way.

The walker follows the schema: a new key there needs nothing here, and its rule a row in `rules.py`. Values that are wrong
are noted in Findings and left out, so that one run finds all errors; whoever builds the structs does so only if there are
none. Not here: reading files, and what spans several files (`load.py`).
"""

from __future__ import annotations

import difflib
import math
import os.path
import types
import typing

import msgspec

from gatepost.config import rules, schema
from gatepost.config.errors import Findings, KeyPath, key_text
from gatepost.config.ours import parse_our_domain
from gatepost.config.tables import absolute_name, is_table_name, parse_table_name
from gatepost.config.values import InvalidValue

_KINDS: dict[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
_FOUND: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Walker:
    """Reads one table of a file after the other against the schema."""

    def __init__(self, findings: Findings, directory: str) -> None:
        self.findings = findings
        self.directory = directory
        self.kept: dict[KeyPath, list[int]] = {}  # of each list: the places in the file of the items that were good

    def section(self, cls: type[schema.Section], table: object, path: KeyPath, rule: str) -> dict[str, object]:
        """The values of a section that are good; errors are noted. `rule` is the key of this section in `rules.py`."""
        if not isinstance(table, dict):
            self._wrong_kind(path, dict, table, rule)
            return {}
        known = {field.name: field for field in msgspec.structs.fields(cls)}
        values: dict[str, object] = {}
        for name, value in table.items():
            here = (*path, name)
            if name not in known:
                self.unknown_key(here, [*known, *rules.SHORT_KEYS] if not path else list(known))
                continue
            good = self.value(known[name].type, value, here, f"{rule}.{name}" if rule else name)
            if good is not None:
                values[name] = good
        return values

    def value(self, kind: typing.Any, value: object, path: KeyPath, rule: str) -> object:
        """One value as the schema wants it, or None with the error noted."""
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(option for option in typing.get_args(kind) if option is not type(None))
        origin = typing.get_origin(kind) or kind
        if origin is list:
            item = typing.get_args(kind)[0]
            if isinstance(item, type) and issubclass(item, schema.Section):
                return self.tables(item, value, path, rule)
            return self._list(value, path, rule)
        if origin is dict:
            return self._dict(typing.get_args(kind)[1], value, path, rule)
        if isinstance(origin, type) and issubclass(origin, schema.Section):
            return self.section(origin, value, path, rule)
        if origin is float and type(value) is int:
            value = float(value)
        if type(value) is not origin:
            self._wrong_kind(path, origin, value, rule)
            return None
        if origin is str:
            return self.text(str(value), path, rule)
        if origin in (int, float):
            return self._number(typing.cast(float, value), path, rule)
        return value

    def text(self, text: str, path: KeyPath, rule: str) -> str | None:
        """A text value by its rule: a parser, a choice, a path."""
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            self.findings.add(path, "it holds a control character", "remove it")
            return None
        if not text:
            self.findings.add(path, "it is empty", "write a value, or remove the line")
            return None
        if rule in rules.CHOICES and text not in rules.CHOICES[rule]:
            choices = " or ".join(f'"{choice}"' for choice in rules.CHOICES[rule])
            self.findings.add(path, f'"{text}" is not one of the choices', f"write {choices}")
            return None
        if rule in rules.PATHS or (rule == "events.output" and text != "stderr"):
            return os.path.normpath(os.path.join(self.directory, text))
        if rule.endswith("next_hop") and text.startswith("maildir:") and not text.startswith("maildir:/"):
            text = "maildir:" + os.path.join(self.directory, text.removeprefix("maildir:"))
        if rule in rules.TABLE_KEYS or (rule in rules.TABLES_OR_TEXTS and is_table_name(text)):
            try:
                return absolute_name(parse_table_name(text), self.directory)
            except InvalidValue as error:
                self.findings.add(path, error.problem, error.advice)
                return None
        if rule in rules.PARSERS:
            try:
                return rules.PARSERS[rule](text)
            except InvalidValue as error:
                self.findings.add(path, error.problem, error.advice)
                return None
        return text

    def domain_name(self, text: str, path: KeyPath) -> str | None:
        """A domain of ours in canonical form, with a dot in front for all below it, or None with the error noted."""
        try:
            return parse_our_domain(text)
        except InvalidValue as error:
            self.findings.add(path, error.problem, error.advice)
            return None

    def unknown_key(self, path: KeyPath, known: list[str]) -> None:
        """Note a key that does not exist: what it is called, where it belongs, or why it cannot be."""
        name = str(path[-1])
        plain = name.lower().replace("-", "_")
        if rules.is_refused_key(name):
            problem = "nobody may relay because of a sender address, HELO or DNS name: anyone can write those"
            self.findings.add(path, problem, rules.SAFE_RELAY)
            return
        home = rules.SYNONYMS.get(plain) or _home_of(plain, path)
        nearest = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
        if plain in rules.SYNONYMS or (home and not nearest):
            advice = f"write it as {_written(str(home))}"
        elif nearest:
            advice = f'did you mean "{nearest[0]}"?'
        else:
            advice = f"remove it; the keys here are {', '.join(sorted(known))}"
        self.findings.add(path, "there is no such key", advice)

    def tables(
        self, cls: type[schema.Section], value: object, path: KeyPath, rule: str
    ) -> list[dict[str, object]] | None:
        """`[[path]]`, each with the keys of a section; a key that is missing is noted."""
        if not isinstance(value, list):
            name = key_text(path)
            self.findings.add(path, "a list of tables is wanted", f"write [[{name}]] and its keys below it")
            return None
        good = []
        mandatory = [field.encode_name for field in msgspec.structs.fields(cls) if field.required]
        for index, item in enumerate(value):
            here = (*path, index)
            good.append(self.section(cls, item, here, f"{rule}.*"))
            for key in mandatory if isinstance(item, dict) else ():
                if key not in item:
                    self.findings.add(here, f'the key "{key}" is missing', f"write it below [[{key_text(path)}]]")
        return good

    def _list(self, value: object, path: KeyPath, rule: str) -> list[str] | None:
        is_table = rule in rules.TABLE_KEYS or (rule in rules.TABLES_OR_TEXTS and is_table_name(str(value)))
        if isinstance(value, str) and (rule in rules.STRING_OR_LIST or is_table):
            self.kept[path] = [0]
            good = self.text(value, path, rule)
            return None if good is None else [good]
        if isinstance(value, str):
            self.findings.add(path, "a list is wanted, but this is text", f'write {path[-1]} = ["{value}"]')
            return None
        if not isinstance(value, list):
            self._wrong_kind(path, list, value, rule)
            return None
        items: dict[str, int] = {}
        good_items: list[str] = []
        kept = self.kept[path] = []
        for index, item in enumerate(value):
            here = (*path, index)
            if not isinstance(item, str):
                self._wrong_kind(here, str, item)
                continue
            good = self.text(item, here, rule)
            if good is None:
                continue
            if good in items and rule in rules.UNIQUE:
                first = self.findings.line((*path, items[good]))
                self.findings.add(here, f'"{item}" is given twice, first in line {first}', "remove one of the two")
                continue
            items[good] = index
            good_items.append(good)
            kept.append(index)
        return good_items

    def _dict(self, kind: typing.Any, value: object, path: KeyPath, rule: str) -> dict[str, object] | None:
        if not isinstance(value, dict):
            self._wrong_kind(path, dict, value, rule)
            return None
        if kind is schema.Domain:
            return self._domains(value, path)
        values = {}
        for name, item in value.items():
            if rule == "processes.users" and name not in rules.ROLES:
                self.unknown_key((*path, name), list(rules.ROLES))
                continue
            if rule == "policy.checks" and name not in rules.CHECKS:
                self.unknown_key((*path, name), list(rules.CHECKS))
                continue
            good = self.value(kind, item, (*path, name), f"{rule}.*")
            if good is not None:
                values[name] = good
        return values

    def _domains(self, table: dict[str, object], path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for text, item in table.items():
            here = (*path, text)
            if isinstance(item, dict) and any(isinstance(inner, dict) for inner in item.values()):
                full = _unquoted_name(text, item)
                advice = f'write [domains."{full}"], with quotes around the whole name'
                self.findings.add(here, "a dot in a TOML key begins a table of its own", advice)
                continue
            name = self.domain_name(text, here)
            good = self.section(schema.Domain, item, here, "domains.*")
            if name is None:
                continue
            if name in values:
                self.findings.add(here, f'the domain "{name}" is given twice', "remove one of the two")
            values[name] = good
        return values

    def _number(self, number: float, path: KeyPath, rule: str) -> float | None:
        low, high = rules.RANGES[rule]
        if math.isfinite(number) and low <= number <= high:
            return number
        self.findings.add(path, f"{number} is out of range", f"write a number from {low} to {high}")
        return None

    def _wrong_kind(self, path: KeyPath, wanted: type, found: object, rule: str = "") -> None:
        advice = f"write {rules.EXAMPLES[rule]}" if rule in rules.EXAMPLES else _example(path, wanted, found)
        problem = f"{_KINDS[wanted]} is wanted, but this is {_FOUND.get(type(found), 'a date or time')}"
        self.findings.add(path, problem, advice)


def _example(path: KeyPath, wanted: type, found: object) -> str:
    if wanted is dict:
        return f"write [{key_text(path)}] and its keys below it"
    if wanted is str and not isinstance(found, (dict, list)):
        return f'write "{found}"'
    if wanted in (int, float) and isinstance(found, str) and found.strip().isdigit():
        return f"write {found.strip()} without quotes"
    if wanted is bool and str(found).lower() in ("yes", "on", "1", "true"):
        return "write true without quotes"
    if wanted is bool and str(found).lower() in ("no", "off", "0", "false"):
        return "write false without quotes"
    return f"write {_KINDS[wanted]}"


def _home_of(name: str, path: KeyPath) -> str | None:
    """Where else the schema has a key of this name."""
    if len(path) > 1 and any(field.name == name for field in msgspec.structs.fields(schema.Config)):
        return name
    for field in msgspec.structs.fields(schema.Config):
        if not (isinstance(field.type, type) and issubclass(field.type, schema.Section)) or field.name in path:
            continue
        if any(inner.name == name for inner in msgspec.structs.fields(field.type)):
            return f"{field.name}.{name}"
    return None


def _written(home: str) -> str:
    section, dot, name = home.rpartition(".")
    return f"{name} in the section [{section}]" if dot else f"{name} at the top of the file"


def _unquoted_name(text: str, item: dict[str, object]) -> str:
    parts = [text]
    inner: object = item
    while isinstance(inner, dict):
        tables = [(name, value) for name, value in inner.items() if isinstance(value, dict)]
        if not tables:
            break
        parts.append(tables[0][0])
        inner = tables[0][1]
    return ".".join(parts)
