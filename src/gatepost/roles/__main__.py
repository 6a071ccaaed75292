"""`python -m gatepost.roles ROLE INSTANCE`: a role process, started by the supervisor only, its control channel at descriptor 3.

What is loaded first, and what is kept from loading, is measured in docs/decisions/0015-memory-of-roles.md.
"""

from __future__ import annotations

import sys

import idna

import gatepost.firstload  # noqa: F401

# Its tables come from half a megabyte of constants that nobody needs afterwards. Read first, they leave room for all that is imported
# behind them; read last, they would stay as holes in the memory of each role.
idna.encode("bücher.example", uts46=True, std3_rules=True)

from gatepost.privsep.roles import ROLES

if len(sys.argv) > 1 and sys.argv[1] in ROLES and ROLES[sys.argv[1]].loop == "asyncio":
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio can be without it; uvloop cannot

from gatepost.roles.skeleton import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
