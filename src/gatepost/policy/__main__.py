"""`python -m gatepost.policy`: the relay proof of the configuration on standard input; see privsep/proving.py.

Exit status 0: proved. 1: refuted, or not made; the lines say why.
"""

from __future__ import annotations

import sys

from gatepost.config.encoded import decode_config
from gatepost.policy.proof import prove


def main() -> int:
    """Read, prove, tell."""
    proof = prove(decode_config(sys.stdin.buffer.read()))
    if proof.holds:
        return 0
    print("\n".join(proof.lines()))
    return 1


if __name__ == "__main__":
    sys.exit(main())
