"""The date of a header field (RFC 5322 3.3), in UTC or the local zone; never depends on the locale.

The text of the latest second is kept: a gateway asks for the same one thousands of times.
"""

from __future__ import annotations

import time

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_latest: dict[bool, tuple[int, str]] = {}  # by zone: local or not


def build_date(now_s: float, *, local: bool = False) -> str:
    """A date such as "Fri, 21 Nov 1997 09:55:06 -0600"."""
    second = int(now_s // 1)
    latest = _latest.get(local)
    if latest is not None and latest[0] == second:
        return latest[1]
    moment = time.localtime(second) if local else time.gmtime(second)
    offset_min = (moment.tm_gmtoff or 0) // 60
    hours, minutes = divmod(abs(offset_min), 60)
    text = (
        f"{DAYS[moment.tm_wday]}, {moment.tm_mday:02d} {MONTHS[moment.tm_mon - 1]} {moment.tm_year:04d} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} {'-' if offset_min < 0 else '+'}{hours:02d}{minutes:02d}"
    )
    _latest[local] = (second, text)
    return text
