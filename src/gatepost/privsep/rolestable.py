"""The table of roles as a page for people: `python -m gatepost.privsep.rolestable` prints what stands in docs/security.md.

A test compares the page with this, and this reads `roles.py`: the page cannot say anything else than the filters do.
"""

from __future__ import annotations

from gatepost.privsep.rights import RoleRights
from gatepost.privsep.roles import ROLES

HEAD = "| role | user | root directory | files | new sockets | accepts | connects | system calls | open files | takes messages from |"


def table_lines() -> list[str]:
    """The rows of the page."""
    return [HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(_row, ROLES.values())]


def _row(row: RoleRights) -> str:
    files = ", ".join(access for _, access in row.landlock_fs)
    cells = [
        row.name,
        row.user,
        {"empty": "empty", "spool": "the spool", "maildir": "its Maildir root"}[row.root],
        f"{files} below its root" if files else "none",
        ", ".join(sorted(row.socket_families)) or "none",
        "yes" if row.may_accept else "no",
        "yes" if row.may_connect else "no",
        str(len(row.syscalls)),
        f"{row.nofile:,}",
        ", ".join(sorted(row.peers)),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(table_lines()))
