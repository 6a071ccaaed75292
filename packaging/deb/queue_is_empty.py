"""For the package's removal: whether a spool that nobody uses holds no mail. Exit status 0: it is empty; 1: it is not, and says so."""

from __future__ import annotations

import sys

from gatepost.spool.errors import SpoolError
from gatepost.spool.fsck import fsck


def main() -> int:
    spool = sys.argv[1]
    try:
        report = fsck(spool)
    except (SpoolError, OSError) as error:
        print(f"gatepost: the queue in {spool} was not looked at ({error}); it is kept.")
        return 1
    messages = report.live + report.unknown_to_journal
    if messages:
        print(
            f"gatepost: {messages} message{'' if messages == 1 else 's'} left in the queue in {spool}; kept, a purge too keeps them."
        )
    elif not report.is_clean:
        print(f"gatepost: the queue in {spool} is damaged; it is kept.")
    return 0 if not messages and report.is_clean else 1


sys.exit(main())
