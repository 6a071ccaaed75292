"""Crash runs: kills, full disks, refused system calls and power cuts under load, and the proof that nothing acknowledged is lost.

`python -m bench.crash` runs them. A load process notes every message that was answered 250, a sink process every message
that arrived; both write at once and are never killed. `proof.py` compares the two. Not here: how fast it is (`bench/relay.py`).
"""
