"""The kinds of lookup tables, by the name under which a configuration asks for them: "KIND:ARGUMENT".

A class in FILE_TYPES has `load(argument) -> TableData`, which reads its file when the configuration is loaded and raises
ConfigErrors with every bad line, and `of_data(data)`, which builds the table in a role, where nothing can be opened.
"""

from __future__ import annotations

from typing import Any

from gatepost.config.tables import TableData
from gatepost.routing.tables.aliases import AliasesTable
from gatepost.routing.tables.callahead import CallAheadTable
from gatepost.routing.tables.file import FileTable
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.postfix_cidr import CidrTable
from gatepost.routing.tables.postfix_maps import (
    BtreeTable,
    CdbTable,
    HashTable,
    LmdbTable,
    StaticTable,
    TexthashTable,
)
from gatepost.routing.tables.regexp import PcreTable, RegexpTable
from gatepost.routing.tables.remote import RemoteTable
from gatepost.routing.tables.sendmail_access import AccessTable
from gatepost.routing.tables.sendmail_mailertable import MailertableTable
from gatepost.routing.tables.sendmail_users import DomaintableTable, GenericstableTable, VirtusertableTable
from gatepost.routing.tables.sqlite import SqliteTable

__all__ = ["FILE_TYPES", "REMOTE_TYPES", "TABLE_TYPES", "FileTable", "InlineTable", "build_table"]

FILE_TYPES: dict[str, Any] = {
    "inline": InlineTable,
    "file": FileTable,
    "static": StaticTable,
    "texthash": TexthashTable,
    "hash": HashTable,
    "btree": BtreeTable,
    "cdb": CdbTable,
    "lmdb": LmdbTable,
    "sqlite": SqliteTable,
    "cidr": CidrTable,
    "regexp": RegexpTable,
    "pcre": PcreTable,
    "aliases": AliasesTable,
    "sendmail-access": AccessTable,
    "sendmail-mailertable": MailertableTable,
    "sendmail-virtusertable": VirtusertableTable,
    "sendmail-genericstable": GenericstableTable,
    "sendmail-domaintable": DomaintableTable,
}

REMOTE_TYPES: dict[str, Any] = dict.fromkeys(("ldap", "sql", "http"), RemoteTable)
"""The kinds that are asked over the network, of the sources of the configuration."""

TABLE_TYPES: dict[str, Any] = {**FILE_TYPES, **REMOTE_TYPES, "call-ahead": CallAheadTable}
"""Every kind."""


def build_table(data: TableData) -> Any:
    """The table out of what was read when the configuration was loaded."""
    return FILE_TYPES[data.kind].of_data(data)
