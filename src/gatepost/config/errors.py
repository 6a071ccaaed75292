"""What is wrong with a configuration: every error at once, each with its place and what to write instead.

`ConfigErrors` is the one exception that loading a configuration raises. `Findings` collects while a file is read: it knows
the line of each key. Not here: the rules themselves (`rules.py`, `values.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

KeyPath = tuple[str | int, ...]


class ConfigError(msgspec.Struct, frozen=True, order=True):
    """One error. `line` is 0 where the whole file is meant, `key` is empty where no key can be named."""

    file: str
    line: int
    key: str
    problem: str
    advice: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        return " ".join(f"{place}: {key}{self.problem}; {self.advice}".splitlines())


class ConfigErrors(Exception):
    """A configuration that cannot be used; iterate over it for each ConfigError, `str()` has one line for each."""

    def __init__(self, errors: list[ConfigError]) -> None:
        self.errors = sorted(set(errors))
        super().__init__("\n".join(str(error) for error in self.errors))

    def __iter__(self) -> Iterator[ConfigError]:
        return iter(self.errors)

    def __len__(self) -> int:
        return len(self.errors)


class Findings:
    """The errors found so far in one file, and the lines of its keys."""

    def __init__(self, file: str, lines: dict[KeyPath, int]) -> None:
        self.file = file
        self.errors: list[ConfigError] = []
        self._lines = lines

    def add(self, path: KeyPath, problem: str, advice: str) -> None:
        """Note an error at a key; a key that is not in the file is shown at the nearest table that is."""
        self.errors.append(ConfigError(self.file, self.line(path), key_text(path), problem, advice))

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest thing around it that has one; 1 if nothing has."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1


def key_text(path: KeyPath) -> str:
    """A key path as one writes it in TOML: `domains."example.test".next_hop`, `listen[1]` (items count from 1 here)."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
            continue
        bare = part.replace("_", "").replace("-", "")
        name = part if bare.isascii() and bare.isalnum() else f'"{part}"'
        text += f".{name}" if text else name
    return text
