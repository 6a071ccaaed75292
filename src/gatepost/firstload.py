"""msgspec, loaded before all else, and without `typing_extensions`: imported for that, by whatever starts a process that stays.

msgspec prefers that package to `typing` where it is installed, and it is installed for aiohttp. Since Python 3.11 `typing` has all that
msgspec takes from it, and the package costs 0.4 MB in each process (docs/decisions/0015-memory-of-roles.md).
"""

from __future__ import annotations

import sys

_IS_LOADED = "typing_extensions" in sys.modules
if not _IS_LOADED:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]

import msgspec  # noqa: F401

if not _IS_LOADED:
    del sys.modules["typing_extensions"]  # whoever else wants it finds it
