"""A table that is asked over the network: "ldap:NAME", "sql:NAME", "http:NAME", where NAME is a source of the configuration.

It answers from `Answers`, and so may raise NeedsAnswer; all forms of an address that are to be asked are asked at once. A value is
checked and put into canonical form here, since nobody could do it before: one that its use has no sense for is no answer, and defers.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gatepost.config.ours import suffixes
from gatepost.config.schema import Source
from gatepost.config.sources import keys_of
from gatepost.config.values import InvalidValue
from gatepost.routing.answers import ANY, Answers, is_askable
from gatepost.routing.table import TableUnavailable
from gatepost.routing.tables.postfix_transport import BadTransport


class RemoteTable:
    """For one use."""

    kind: ClassVar[str] = "remote"
    is_path = False
    __slots__ = ("_answers", "_fit", "_forms", "name")

    def __init__(self, name: str, source: Source, use: str, answers: Answers, fit: Any = None) -> None:
        """`fit` gives a value of the use its canonical form, and raises for one that has none."""
        self.name = name
        self._answers = answers
        self._forms = keys_of(source, use)
        self._fit = fit

    def lookup(self, key: str) -> str | None:
        """The value of one key, or None; raises NeedsAnswer and TableUnavailable."""
        return self._first([key])

    def find_address(self, local: str, domain: str) -> str | None:
        """The value for an address in the forms that the source is asked for."""
        return self._first(self._keys(local, domain))

    find_route = find_address

    def _keys(self, local: str, domain: str) -> list[str]:
        keys: list[str] = []
        for form in self._forms:
            if form == "address":
                keys.append(f"{local}@{domain}")
            elif form == "local":
                keys.append(local)
            elif form == "catch-all":
                keys.append(f"@{domain}")
            elif form == "domain":
                keys.append(domain)
            elif form == "parents":
                keys += suffixes(domain)
            else:
                keys.append("*")
        return keys

    def _first(self, keys: list[str]) -> str | None:
        askable = [key for key in keys if is_askable(key)]
        for value in self._answers.need(self.name, askable) if askable else ():
            if value == ANY:
                return "" if self._fit is None else None
            if value is not None:
                return self._fitted_value(value)
        return None

    def _fitted_value(self, value: str) -> str:
        if self._fit is None:
            return value
        try:
            fitted: str = self._fit(value)[0]
        except (BadTransport, InvalidValue) as error:
            problem = error.args[0] if isinstance(error, BadTransport) else error.problem
            self._answers.trouble(self.name, problem)
            raise TableUnavailable(f"{self.name}: {problem}") from None
        return fitted
