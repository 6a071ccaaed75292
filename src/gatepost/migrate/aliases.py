"""Imports a file of aliases: used as it is where every line can be, else copied without the lines that cannot.

Programs, files and lists in files are refused, with what takes their place: no role may run a program or open a path. Aliases that lead in a
circle are refused with their chain. A target without a domain that is no alias is a mailbox, which the next hop must have.
"""

from __future__ import annotations

import os

from gatepost.config.recipients import fold_local
from gatepost.migrate.draft import Draft
from gatepost.migrate.report import Report
from gatepost.migrate.tables import TableImport
from gatepost.routing.tables.aliases import split_targets

MAX_CHAIN = 50


class AliasImport(TableImport):
    """One file for the local domains."""

    def __init__(self, draft: Draft, report: Report, path: str) -> None:
        super().__init__(draft, report, "aliases", "file", path, joins_lines=True)
        self.separator = ": "
        self.targets: dict[str, list[str]] = {}

    def load(self) -> bool:
        """As other tables; newaliases marks a compiled file as whole by "@"."""
        is_loaded = super().load()
        if self.shown != self.path:
            self.lines = [line for line in self.lines if line != "@: @"]
        return is_loaded

    def prepare(self) -> set[int]:
        """What each alias leads to; the lines of circles are refused."""
        places: dict[str, tuple[int, int, str]] = {}
        for first, last, text in self.constructs():
            name, mark, value = text.partition(":")
            folded = fold_local(name.strip().strip('"'))
            if mark and folded not in self.targets:
                self.targets[folded] = split_targets(value)
                places[folded] = (first, last, text)
        refused: set[int] = set()
        for name, (first, last, text) in places.items():
            chain = self._circle(name)
            if chain:
                why = "the aliases lead in a circle: " + " -> ".join(chain)
                self.report.refused(self.shown, first, text, why, "break the circle", last)
                refused |= self.comment_out(first, last)
        return refused

    def _circle(self, name: str) -> list[str]:
        """The chain from an alias back to itself, through others; what stands for itself means its mailbox."""
        waiting = [(name, [name])]
        seen: set[str] = set()
        while waiting:
            at, chain = waiting.pop()
            for target in self.targets.get(at, ()):
                plain = fold_local(target.strip('"'))
                if plain == name and at != name:
                    return [*chain, name]
                if plain in self.targets and plain not in seen and len(chain) < MAX_CHAIN:
                    seen.add(plain)
                    waiting.append((plain, [*chain, plain]))
        return []

    def note_of(self, text: str) -> str:
        """How a good line differs, if it does."""
        name = fold_local(text.partition(":")[0].strip().strip('"'))
        boxes = [
            target
            for target in self.targets.get(name, ())
            if "@" not in target and target.strip('"') != "/dev/null" and fold_local(target.strip('"')) not in self.targets
        ]  # fmt: skip
        if not boxes:
            return ""
        return f"an alias; {', '.join(boxes)}: a mailbox there, an address of the same domain here, which its next hop must have"


def import_aliases(path: str, domains: list[str], draft: Draft, report: Report) -> None:
    """Take over the aliases at `path` for the local domains."""
    taken = AliasImport(draft, report, path)
    if taken.run("an alias") is None or not taken.good_lines:
        draft.tables.pop("aliases", None)
        return
    draft.values["alias_domains"] = (list(domains), f"from {os.path.basename(path)}")
