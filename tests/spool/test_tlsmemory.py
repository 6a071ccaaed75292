"""The memory of verified TLS: over restarts, bounded, forgotten when told, and never a reason not to start."""

from __future__ import annotations

import os
import stat

import pytest

from gatepost.spool.states import find_state
from gatepost.spool.tlsmemory import TlsMemory

DAY = 86400.0


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tls").mkdir()
    return tmp_path


def again(root, keep_s: float = 60 * DAY, most: int = 100, now_s: float = 1000.0) -> TlsMemory:
    memory = TlsMemory(str(root), keep_s, most)
    assert memory.load(now_s) == ""
    return memory


def test_it_is_there_after_a_restart(root):
    memory = again(root)
    assert memory.note("a.test", "dane", 1000.0) and memory.note("b.test", "sts", 1001.0)
    memory.write(memory.encoded())
    assert again(root).rows() == [("a.test", "dane", 1000.0), ("b.test", "sts", 1001.0)]
    (path,) = (root / "tls").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_state(f"tls/{path.name}") is not None and find_state("tls/remembered.new") is not None


def test_what_is_seen_again_soon_is_not_written_again(root):
    memory = again(root)
    assert memory.note("a.test", "dane", 1000.0)
    assert not memory.note("a.test", "dane", 1000.0 + DAY / 2)
    assert memory.note("a.test", "sts", 1000.0 + DAY / 2)
    assert memory.note("a.test", "sts", 1000.0 + 2 * DAY)


def test_the_domain_unseen_for_longest_goes_first(root):
    memory = again(root, most=2)
    for number, domain in enumerate(("a.test", "b.test", "a.test", "c.test")):
        memory.note(domain, "dane", number * 2 * DAY)
    assert memory.expire(10 * DAY) == ["b.test"]
    assert [row[0] for row in memory.rows()] == ["a.test", "c.test"]


def test_what_is_too_old_is_not_remembered(root):
    memory = again(root, keep_s=10 * DAY)
    memory.note("a.test", "dane", 0.0)
    memory.note("b.test", "dane", 5 * DAY)
    memory.write(memory.encoded())
    assert [row[0] for row in again(root, keep_s=10 * DAY, now_s=11 * DAY).rows()] == ["b.test"]


def test_forgetting_and_remembering_nothing(root):
    memory = again(root)
    memory.note("a.test", "dane", 0.0)
    assert memory.forget("a.test") and not memory.forget("a.test") and len(memory) == 0
    assert not again(root, keep_s=0).note("a.test", "dane", 0.0)
    assert not memory.note("x" * 256, "dane", 0.0)


@pytest.mark.parametrize("damage", [b"", b"{", b"GPKEPT01", b"GPKEPT01\xff\xff\xff\xff\x80"])
def test_a_damaged_file_is_told_and_forgotten(root, damage):
    (root / "tls" / "remembered").write_bytes(damage)
    memory = TlsMemory(str(root), DAY, 10)
    assert memory.load(0.0) != "" and len(memory) == 0
    memory.note("a.test", "dane", 0.0)
    memory.write(memory.encoded())
    assert len(again(root, keep_s=DAY, now_s=0.0)) == 1


def test_no_link_is_followed_and_what_a_crash_left_is_replaced(root, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"{}")
    os.symlink(other, root / "tls" / "remembered.new")
    memory = again(root)
    memory.note("a.test", "dane", 0.0)
    memory.write(memory.encoded())
    assert other.read_bytes() == b"{}"
