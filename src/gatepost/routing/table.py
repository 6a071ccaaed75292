"""The interface of lookup tables: a key in, a text or nothing out.

A table answers from memory, at once. Tables in files are read by the supervisor before the roles lock themselves in; a table
whose answers come from elsewhere (LDAP, SQL) answers from what the resolver role has fetched. An answer that cannot be had is
neither yes nor no: `TableUnavailable`, which the policy turns into 451 4.3.0. Every implementation passes the contract in
`tests/routing/test_table_contract.py`; a new type is a file in `tables/` and a row in its TABLE_TYPES.
"""

from __future__ import annotations

from typing import Protocol


class TableUnavailable(Exception):
    """The table cannot answer now; `args[0]` is the cause, for the log, never for the peer."""


class Table(Protocol):
    """What the router asks. Keys are already in the form in which they are compared (lower case, NFC)."""

    name: str

    def lookup(self, key: str) -> str | None:
        """The value of a key, "" for a key without value, None if there is no such key; raises TableUnavailable."""
        ...
