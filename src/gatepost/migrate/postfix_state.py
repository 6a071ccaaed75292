"""What the parts of a Postfix import share: places, parameters, the draft, and telling of a parameter."""

from __future__ import annotations

import os

from gatepost.migrate.draft import Draft
from gatepost.migrate.places import Places, Unreadable
from gatepost.migrate.postfix_access import RestrictionImport
from gatepost.migrate.postfix_cf import Parameters
from gatepost.migrate.report import Report, Result

STANDARD = "/etc/postfix"


class PostfixState:
    """One directory, and what is known of it so far."""

    def __init__(self, directory: str, hostname: str = "", copies_tables: bool = False) -> None:
        self.places = Places(directory, STANDARD)
        self.report = Report()
        self.draft = Draft(self.places.directory, copies_tables)
        self.main = os.path.join(self.places.directory, "main.cf")
        self.master = os.path.join(self.places.directory, "master.cf")
        self.hostname = hostname
        self.seen = {self.main, self.master}
        self.parameters = Parameters([])
        self.restrictions = RestrictionImport(self.report)
        self.told: set[str] = set()
        self.routes: dict[str, str] = {}  # of transport_maps, as far as they have keys: domain -> next hop

    def tell(self, name: str, result: Result, note: str, advice: str = "", text: str = "") -> None:
        """Tell of a parameter, if main.cf has it."""
        self.told.add(name)
        parameter = self.parameters.written.get(name)
        if parameter is not None:
            shown = text or f"{name} = {parameter.value}"
            self.report.add(self.main, parameter.line, shown, result, note, advice, parameter.last_line)

    def origin(self) -> str:
        """The domain of addresses that have none: myorigin, which may name a file."""
        text = self.parameters.value("myorigin").strip()
        if text.startswith("/"):
            try:
                text = self.places.read(self.places.path(text)).split("\n")[0].strip()
            except Unreadable:
                text = ""
        return text or self.draft.hostname

    def line_of(self, name: str) -> int:
        """The line of a parameter in main.cf, 0 if it is a default."""
        parameter = self.parameters.written.get(name)
        return parameter.line if parameter else 0
