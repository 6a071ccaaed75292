"""The types of lookup tables, by the name under which a configuration asks for them."""

from __future__ import annotations

from gatepost.routing.tables.file import FileTable
from gatepost.routing.tables.inline import InlineTable

__all__ = ["TABLE_TYPES", "FileTable", "InlineTable"]

TABLE_TYPES = {"inline": InlineTable, "file": FileTable}
