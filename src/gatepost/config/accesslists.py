"""POSIX access lists: whom a file is open to beside owner, group and the world.

The group bits of the mode are the mask of a list, so that a file without them is open to nobody by one; a file whose group is harmless
need not be. Linux keeps a list as an extended attribute (linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Set as AbstractSet

READ, WRITE = 4, 2

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_USER, _GROUP, _MASK = 0x02, 0x08, 0x10
_ENTRY = struct.Struct("<HHI")


def opens_to_others(path: str, right: int, trusted: AbstractSet[int]) -> bool:
    """Whether a list gives READ or WRITE to a named group, or to a named user who is not trusted; one that cannot be understood does."""
    try:
        packed = os.getxattr(path, _ATTRIBUTE, follow_symlinks=False)
    except OSError:
        return False  # there is none
    if len(packed) % _ENTRY.size != 4 or int.from_bytes(packed[:4], "little") != _VERSION:
        return True
    entries = list(_ENTRY.iter_unpack(packed[4:]))
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), READ | WRITE)
    return any(
        rights & mask & right and (tag == _GROUP or (tag == _USER and number not in trusted))
        for tag, rights, number in entries
    )
