"""`python -m gatepost.roles ROLE INSTANCE`: a role process, started by the supervisor only, its control channel at descriptor 3."""

from __future__ import annotations

import sys

from gatepost.roles.skeleton import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
