"""The cache: TTLs, caps by status, bounds by entries and characters, least recently used first."""

from __future__ import annotations

from gatepost.ipc.messages import LookupDone
from gatepost.net import dnscache
from gatepost.net.dnscache import DnsCache


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_cache(entries: int = 3) -> tuple[DnsCache, Clock]:
    clock = Clock()
    return DnsCache(entries, max_ttl_s=100, max_negative_ttl_s=10, clock=clock), clock


def answer(ttl_s: int, status: str = "ok", records: list[str] | None = None) -> LookupDone:
    return LookupDone(7, status, ["192.0.2.1"] if records is None else records, ttl_s, True, "why")


def test_entry_ages_and_expires():
    cache, clock = make_cache()
    cache.put("A", "a", answer(50))
    clock.now_s += 20
    assert cache.get("A", "a") == LookupDone(0, "ok", ["192.0.2.1"], 30, True, "why")
    assert cache.get("AAAA", "a") is None
    clock.now_s += 30
    assert cache.get("A", "a") is None
    assert (len(cache), cache.cost) == (0, 0)


def test_caps_by_status_and_no_zero():
    cache, _ = make_cache(10)
    for status in ("ok", "nodata", "nxdomain", "tempfail"):
        cache.put("A", status, answer(9999, status))
    lives = {status: cache.get("A", status).ttl_s for status in ("ok", "nodata", "nxdomain", "tempfail")}
    assert lives == {"ok": 100, "nodata": 10, "nxdomain": 10, "tempfail": dnscache.TEMPFAIL_TTL_S}
    cache.put("A", "zero", answer(0))
    assert cache.get("A", "zero") is None


def test_least_recently_used_goes_first():
    cache, _ = make_cache(3)
    for name in "abc":
        cache.put("A", name, answer(50))
    cache.get("A", "a")
    cache.put("A", "d", answer(50))
    assert [cache.get("A", name) is not None for name in "abcd"] == [True, False, True, True]


def test_each_answer_is_a_new_object():
    cache, _ = make_cache()
    cache.put("A", "a", answer(50))
    cache.get("A", "a").query = 99
    assert cache.get("A", "a").query == 0


def test_large_records_push_others_out():
    cache, _ = make_cache(10)
    for index in range(10):
        cache.put("TXT", str(index), answer(50, records=["x" * 4000]))
    assert len(cache) == 2
    assert cache.get("TXT", "9") is not None
    assert cache.cost <= 10 * dnscache.CHARACTERS_PER_ENTRY
    cache.put("TXT", "9", answer(50, records=["y"]))
    cache.put("TXT", "huge", answer(50, records=["x" * 20000]))
    assert cache.get("TXT", "huge") is None
    assert cache.get("TXT", "9").records == ["y"]
    assert cache.cost == 2 * dnscache.ENTRY_COST + 2 + 8 + 4001 - 2
