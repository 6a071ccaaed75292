"""A table whose contents stand in the configuration, and what every table of keys and values is once it has been read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

from gatepost.config.tables import TableData
from gatepost.routing.tables.source import Collector, fail


class InlineTable:
    """A table in memory; never unavailable."""

    kind: ClassVar[str] = "inline"
    is_path = False
    has_bare_locals: ClassVar[bool] = True  # a key without domain is a local part of every domain that uses the table
    __slots__ = ("_values", "name")

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self._values = dict(values)

    @classmethod
    def of_keys(cls, name: str, keys: Iterable[str]) -> Self:
        """A table of keys without values: a set."""
        return cls(name, dict.fromkeys(keys, ""))

    @classmethod
    def of_data(cls, data: TableData) -> Self:
        """The table out of what was read."""
        table = cls.__new__(cls)
        table.name = data.name
        table._values = data.entries  # decoded for this table alone
        return table

    @classmethod
    def load(cls, argument: str) -> TableData:
        """`{ key = value, { key = value with spaces } }`, as Postfix writes it; raises ConfigErrors."""
        text = argument.strip()
        if not (text.startswith("{") and text.endswith("}")):
            raise fail(f"inline:{argument}", "the braces are missing", 'write "inline:{key = value, other = value}"')
        collector = Collector(f"inline:{argument}")
        for item in split_items(text[1:-1]):
            key, equals, value = item.partition("=")
            if not equals or not key.strip():
                collector.error(0, f'"{item}" is not a key with a value', 'write "key = value"')
            else:
                collector.add(key.strip(), value.strip(), 0)
        collector.finish()
        return TableData("inline", argument, collector.entries)

    def lookup(self, key: str) -> str | None:
        """The value of a key, or None."""
        return self._values.get(key)

    def find_address(self, local: str, domain: str) -> str | None:
        """The value for an address: of itself, of its local part if the table has such keys, of "@domain"."""
        values = self._values
        value = values.get(f"{local}@{domain}")
        if value is None and self.has_bare_locals:
            value = values.get(local)
        return values.get(f"@{domain}") if value is None else value


def split_items(text: str) -> list[str]:
    """Items between commas or white space; one in braces may hold both (postconf(5), inline:)."""
    items: list[str] = []
    depth, start = 0, -1
    plain: list[str] = []
    for index, character in enumerate(text):
        if character == "{":
            if not depth:
                start = index + 1
                items.extend(_plain_items("".join(plain)))
                plain = []
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if not depth:
                items.append(text[start:index].strip())
        elif not depth:
            plain.append(character)
    items.extend(_plain_items("".join(plain)))
    return items


def _plain_items(text: str) -> list[str]:
    joined = " ".join(text.replace(",", " , ").split()).replace(" = ", "=").replace("= ", "=").replace(" =", "=")
    return [item for item in joined.replace(",", " ").split() if item]
