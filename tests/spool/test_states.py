"""The state table: the documentation has it, and everything a living spool makes has a row."""

from __future__ import annotations

import os
from pathlib import Path

from spool_bed import Writer, open_spool

from gatepost.spool.states import STATES, build_table, find_state

ROOT = Path(__file__).parents[2]


def test_documentation_has_the_table():
    assert build_table() in (ROOT / "docs/queue.md").read_text(encoding="utf-8")


def test_every_file_of_a_spool_has_a_row(tmp_path):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    writer = Writer(spool)
    writer.take("a1", "a2")
    spool.take(writer.append_body("b1"))
    spool.defer_to_file([spool.entries["a1"]])
    spool.commit()
    seen = set()
    for directory, _, names in os.walk(spool.root):
        for name in names:
            path = os.path.relpath(f"{directory}/{name}", spool.root)
            state = find_state(path)
            assert state is not None, path
            seen.add(state.name)
    spool.abandon()
    assert seen == {state.name for state in STATES} - {
        "damaged/NAME",
        "run/NAME",
        "facts/N.ring",
        "tls/NAME",
        "recipients/known",
    }


def test_a_stranger_has_none():
    assert find_state("segments/core") is None
    assert find_state("deferred/00/../x.eml") is None
