"""Constant databases (cdb), read only: the records between the header and the first hash table, in their order.

Format: a header of 256 pairs (position, slots), records (key length, value length, key, value), hash tables; all numbers
32 bits, little-endian. The hash tables are for programs that look up in the file and are not read. Whatever the bytes are,
the answer is records or `BadFile`, in time bounded by the length of the file.
"""

from __future__ import annotations

import struct

from gatepost.routing.tables.berkeley import BadFile

_HEADER_BYTES = 2048


def parse_cdb(data: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values; raises BadFile."""
    if len(data) < _HEADER_BYTES:
        raise BadFile("it is too short for a constant database (cdb)")
    header = struct.unpack_from("<512I", data)
    end = min(header[::2])
    for position, slots in zip(header[::2], header[1::2], strict=True):
        if position < _HEADER_BYTES or position + 8 * slots > len(data):
            raise BadFile("it is not a constant database (cdb), or cut off")
    records = []
    at = _HEADER_BYTES
    while at < end:
        if at + 8 > end:
            raise BadFile("a record is cut off")
        key_length, value_length = struct.unpack_from("<II", data, at)
        key_at = at + 8
        value_at = key_at + key_length
        at = value_at + value_length
        if at > end:
            raise BadFile("a record is longer than the file")
        records.append((data[key_at:value_at], data[value_at:at]))
    return records
