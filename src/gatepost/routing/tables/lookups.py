"""The tables that a configuration names for routes, virtual addresses and recipients, as the router asks them.

Built once when a role starts, out of what was read when the configuration was loaded; one that is asked over the network answers
from `Answers`. A name whose data is not there is a table that cannot answer: it defers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gatepost.config.callahead import PREFIX
from gatepost.config.schema import Config
from gatepost.config.sources import source_of
from gatepost.config.tables import table_key
from gatepost.model import NeedsAnswer, Question
from gatepost.routing.answers import Answers, NotAsked
from gatepost.routing.tables import build_table
from gatepost.routing.tables.callahead import CallAheadTable
from gatepost.routing.tables.file import FileTable
from gatepost.routing.tables.remote import RemoteTable
from gatepost.routing.tables.remote_access import RemoteAccessTable
from gatepost.routing.tables.uses import fit_of, route_of, virtual_of


class Lookups:
    """The tables of one configuration; each is built once, however often it is named."""

    __slots__ = (
        "_aliases", "_answers", "_built", "_data", "_routes", "_sender_routes", "_separator", "_sources", "_virtual", "asks",
        "has_aliases", "has_routes", "has_sender_routes", "has_virtual",
    )  # fmt: skip

    def __init__(self, config: Config, answers: Answers | None = None) -> None:
        self._answers = NotAsked() if answers is None else answers
        self._sources = config.sources
        self._data: dict[str, Any] = getattr(config, "tables", {})
        self._built: dict[str, Any] = {}
        self._separator = config.detail_separator or ""
        self._routes = self.named("routes", config.routes)
        self._virtual = self.named("virtual", config.virtual)
        self._aliases = self.named("aliases", config.aliases)
        self._sender_routes = self.named("sender_routes", config.sender_routes)
        self.has_sender_routes = bool(self._sender_routes)
        self.has_aliases = bool(self._aliases)
        self.has_routes = bool(self._routes)
        self.has_virtual = bool(self._virtual)
        self.asks = self.has_routes or self.has_virtual or self.has_aliases

    def named(self, use: str, names: Iterable[str]) -> tuple[Any, ...]:
        """The tables of these names, as they were read for this use (a key of the configuration)."""
        found = []
        for name in names:
            key = table_key(use, name)
            if key not in self._built:
                self._built[key] = self._build(use, name, self._data.get(key))
            found.append(self._built[key])
        return tuple(found)

    def _build(self, use: str, name: str, data: Any) -> Any:
        if data is not None:
            return build_table(data)
        if name.startswith(PREFIX):
            return CallAheadTable(name, self._answers)
        source = source_of(name, self._sources)
        if source is None:
            return FileTable.unavailable(name, "not there")
        if use == "access":
            return RemoteAccessTable(name, self._answers)
        return RemoteTable(name, source, use, self._answers, fit_of(use, source.next_hops))

    def route(self, local: str, domain: str) -> str | None:
        """The next hop of the first table that has one, or "error:CODE D.S.N TEXT"; raises TableUnavailable."""
        for table in self._routes:
            found = route_of(table, local, domain)
            if found is not None:
                return found or None
        return None

    def virtual(self, local: str, domain: str, written: str) -> str | None:
        """The address that stands for another, or "error:CODE D.S.N TEXT"; raises TableUnavailable."""
        found = virtual_of(self._virtual, local, domain, written)
        separator = self._separator
        if found is not None or not separator or separator not in local:
            return found
        user, _, detail = written.partition(separator)
        tables = [table for table in self._virtual if not hasattr(table, "rewrite")]  # sendmail's have their own rules
        found = virtual_of(tables, local.partition(separator)[0], domain, user)
        if found is None or found.startswith("error:") or "," in found:
            return found
        new_local, _, new_domain = found.rpartition("@")
        return f"{new_local}{separator}{detail}@{new_domain}"

    def alias(self, local: str, domain: str) -> tuple[str, str | None]:
        """The alias that fits a local part, with its detail or without, and its targets; raises TableUnavailable."""
        missing: list[Sequence[Question]] = []
        separator = self._separator
        names = [local]
        if separator and separator in local:
            names.append(local.partition(separator)[0])
        for name in names:
            for table in self._aliases:
                try:
                    found: str | None = (
                        table.find_address(name, domain) if type(table) is RemoteTable else table.lookup(name)
                    )
                except NeedsAnswer as needed:  # what comes behind it is asked in the same breath
                    missing += needed.groups
                    continue
                if found and not missing:
                    return name, found
        if missing:
            raise NeedsAnswer(*missing)
        return local, None

    def sender_route(self, reverse_path: str) -> str | None:
        """The next hop for mail of a sender to domains that are not ours; raises TableUnavailable."""
        local, _, domain = reverse_path.rpartition("@")
        for table in self._sender_routes:
            found = route_of(table, local.lower(), domain.lower()) if reverse_path else table.lookup("<>")
            if found is not None:
                return found or None
        return None
