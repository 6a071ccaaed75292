"""A table whose contents stand in the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class InlineTable:
    """A table in memory; never unavailable."""

    __slots__ = ("_values", "name")

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self._values = dict(values)

    @classmethod
    def of_keys(cls, name: str, keys: Iterable[str]) -> InlineTable:
        """A table of keys without values: a set."""
        return cls(name, dict.fromkeys(keys, ""))

    def lookup(self, key: str) -> str | None:
        """The value of a key, or None."""
        return self._values.get(key)
