"""The heap of a locked-in role: what a group of large messages took is there for the next, without a page fault for each page of it."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 20
PAGES = 3 * 256  # of a group of messages of 1 MiB

MESSAGES = f"""
import resource
from gatepost.privsep import sandbox
sandbox.release_memory()
def group():
    return [b"x" * (1 << 20) for _ in range(3)]
group()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    group()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_messages_of_a_megabyte_find_their_memory_where_the_last_ones_left_it() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", MESSAGES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < ROUNDS * PAGES / 10
