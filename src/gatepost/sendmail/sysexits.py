"""Exit statuses of sendmail, as sysexits.h has them; callers such as cron, mailx and PHP know them.

`Failure` carries one of them to the end of the program, with the words for standard error.
"""

from __future__ import annotations

EX_OK = 0
EX_USAGE = 64
EX_DATAERR = 65
EX_NOUSER = 67
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_NOPERM = 77

_BY_STATUS = {"1.": EX_NOUSER, "7.": EX_NOPERM, "6.": EX_DATAERR}


class Failure(Exception):
    """Nothing was sent."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def status_of(code: int, enhanced: str) -> int:
    """The exit status for a refusing reply: its code, and its enhanced status code ("5.1.1", or empty)."""
    if code < 500:
        return EX_TEMPFAIL
    return _BY_STATUS.get(enhanced[2:4], EX_UNAVAILABLE)
