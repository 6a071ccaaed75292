"""sendmail's access table on a source: "ldap:NAME", "sql:NAME" or "http:NAME" in `access`, asked for keys with their tags.

`connect:` with the address and its prefixes, `from:` and `to:` with the forms of an address, all keys of one question together and the
first that has a value counts, in the order of `sendmail_access.py`. What it says takes away and never gives: RELAY is no right here, since
rights are known before anybody is asked, and proved. Other tags, and lines by the name of a client, are for tables in files.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import ClassVar

from gatepost.config.errorreply import BadError
from gatepost.routing.answers import ANY, Answers, is_askable
from gatepost.routing.table import TableUnavailable
from gatepost.routing.tables.sendmail_keys import Answer, address_keys, domain_keys, full_keys, parse_value, user_keys

MAX_DOMAIN_KEYS = 32  # of one name; behind them only its last ones are asked
ASSUMED = Answer("RELAY")  # what the relay proof takes for granted that the table says, of everybody


class RemoteAccessTable:
    """See the module."""

    kind: ClassVar[str] = "remote-access"
    is_path = False
    __slots__ = ("_answers", "name")

    def __init__(self, name: str, answers: Answers) -> None:
        self.name = name
        self._answers = answers

    def lookup(self, key: str) -> str | None:
        """The value of one key, or None; raises NeedsAnswer and TableUnavailable."""
        (value,) = self._answers.need(self.name, [key]) if is_askable(key) else (None,)
        return value

    def connect(self, address: str, *names: str) -> Answer | None:
        """What is said of the address of a client."""
        if "." not in address and ":" not in address:  # at a socket of this host
            return None
        keys = list(address_keys(address))
        found = self._first("connect:", keys, self._values(["connect:" + key for key in keys]))
        return None if found is None or found.word == "SKIP" else found

    def sender(self, local: str, domain: str) -> Answer | None:
        """What is said of a reverse-path: the address, `user@`, the domain."""
        return self._of_address("from:", local, domain, has_users=True)

    def recipient(self, local: str, domain: str, is_ours: bool) -> Answer | None:
        """What is said of a forward-path; `user@` counts in our own domains only."""
        return self._of_address("to:", local, domain, has_users=is_ours or not domain)

    def spam(self, local: str, domain: str) -> Answer | None:
        """Nothing: `Spam:` changes when everybody is judged, so it stands in a file."""
        return None

    def limit(self, tag: str, address: str, names: Iterable[str] = ()) -> int | None:
        """Nothing: a limit holds before anything is asked."""
        return None

    def _of_address(self, tag: str, local: str, domain: str, *, has_users: bool) -> Answer | None:
        groups = [
            list(full_keys(local, domain)),
            list(user_keys(local)) if has_users else [],
            _bounded(list(domain_keys(domain))),
        ]
        values = self._values([tag + key for key in chain(*groups)])
        for keys in groups:
            found = self._first(tag, keys, values)
            if found is not None and found.word != "SKIP":
                return found
        return None

    def _values(self, keys: list[str]) -> dict[str, str]:
        """What the table has, of all keys at once."""
        askable = [key for key in dict.fromkeys(keys) if is_askable(key)]
        if not askable:
            return {}
        found = self._answers.need(self.name, askable)
        return {key: value for key, value in zip(askable, found, strict=True) if value is not None}

    def _first(self, tag: str, keys: Iterable[str], values: dict[str, str]) -> Answer | None:
        for key in keys:
            value = values.get(tag + key)
            if value is not None:
                return self._meaning(value)
        return None

    def _meaning(self, value: str) -> Answer:
        if value == ANY:
            return ASSUMED
        try:
            answer = parse_value(value)
        except BadError as error:
            problem = str(error.args[0])
        else:
            if answer.word not in ("FRIEND", "HATER"):
                return answer
            problem = f'"{value}" has no meaning for this tag'
        self._answers.trouble(self.name, problem)
        raise TableUnavailable(f"{self.name}: {problem}") from None


def _bounded(keys: list[str]) -> list[str]:
    """The name itself, and of what is above it the shorter names, where there are very many."""
    return keys if len(keys) <= MAX_DOMAIN_KEYS else [keys[0], *keys[1 - MAX_DOMAIN_KEYS :]]
