"""The scheduler: order, windows, back-off, fairness; a model test drives it with random operations."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config import schema
from gatepost.model import NextHopTrouble
from gatepost.queue import scheduler as module
from gatepost.queue.scheduler import INITIAL_WINDOW, OUTSTANDING_PER_CONNECTION, Scheduler

NONE, BUSY, DOWN = NextHopTrouble.NONE, NextHopTrouble.BUSY, NextHopTrouble.DOWN
HOP, OTHER = "smtp://10.0.0.5:25", "smtp://10.0.0.6:25"
T0 = 1_000_000.0
PLACES = INITIAL_WINDOW * OUTSTANDING_PER_CONNECTION


def make(**delivery):
    return Scheduler(schema.Queue(), schema.Delivery(**delivery), random.Random(1))


def fill(scheduler, count, next_hop=HOP, due_s=T0, prefix="m"):
    for number in range(count):
        scheduler.add(f"{prefix}{number}", next_hop, due_s)


def finish(scheduler, batch, trouble=NONE, retry_at_s=None, now_s=T0, **more):
    for item in batch:
        scheduler.finished(item.key, item.next_hop, trouble, retry_at_s, now_s, **more)


def row(scheduler, next_hop=HOP):
    return next(row for row in scheduler.next_hops() if row["next_hop"] == next_hop)


def put_down(scheduler, now_s=T0):
    """Let one attempt find the next hop down; returns until when."""
    batch = scheduler.next_batch(now_s, 1)
    assert len(batch) == 1
    finish(scheduler, batch, DOWN, now_s, now_s, reason="connection refused")
    return row(scheduler)["down_until"]


def test_an_item_is_given_once_and_gone_when_finished():
    scheduler = make()
    scheduler.add("a", HOP, T0)
    (item,) = scheduler.next_batch(T0, 10)
    assert (item.key, item.next_hop, item.limit) == ("a", HOP, INITIAL_WINDOW)
    assert scheduler.next_batch(T0, 10) == []
    assert (len(scheduler), scheduler.active) == (1, 1)
    scheduler.finished("a", HOP, NONE, None, T0)
    assert (len(scheduler), scheduler.active) == (0, 0)
    assert scheduler.wake_at() is None


def test_an_item_waits_until_it_is_due():
    scheduler = make()
    scheduler.add("late", HOP, T0 + 60)
    scheduler.add("soon", HOP, T0 + 30)
    assert scheduler.next_batch(T0, 10) == []
    assert scheduler.wake_at() == T0 + 30
    assert [item.key for item in scheduler.next_batch(T0 + 30, 10)] == ["soon"]
    assert scheduler.wake_at() == T0 + 60
    assert [item.key for item in scheduler.next_batch(T0 + 61, 10)] == ["late"]


def test_one_message_at_two_next_hops_is_two_items():
    scheduler = make()
    scheduler.add("a", HOP, T0)
    scheduler.add("a", OTHER, T0)
    assert {item.next_hop for item in scheduler.next_batch(T0, 10)} == {HOP, OTHER}
    scheduler.finished("a", HOP, NONE, None, T0)
    assert len(scheduler) == 1


def test_items_of_a_next_hop_come_in_order_of_arrival():
    scheduler = make()
    scheduler.next_batch(T0, 0)
    fill(scheduler, 8)
    assert [item.key for item in scheduler.next_batch(T0, 5)] == ["m0", "m1", "m2", "m3", "m4"]
    assert [item.key for item in scheduler.next_batch(T0, 5)] == ["m5", "m6", "m7"]


def test_outstanding_items_are_twice_the_window():
    scheduler = make()
    fill(scheduler, 100)
    batch = scheduler.next_batch(T0, 1000)
    assert len(batch) == PLACES
    assert scheduler.next_batch(T0, 1000) == []
    assert scheduler.wake_at() is None  # nothing to do before one has finished
    finish(scheduler, batch[:1])
    assert scheduler.wake_at() == T0
    # one place is free again, and the window grew by one
    assert len(scheduler.next_batch(T0, 1000)) == 1 + OUTSTANDING_PER_CONNECTION


def test_the_window_grows_to_the_maximum_and_no_further():
    scheduler = make(max_connections_per_next_hop=8)
    fill(scheduler, 200)
    for _ in range(10):
        finish(scheduler, scheduler.next_batch(T0, 10))
    assert scheduler.next_batch(T0, 1000)[0].limit == 8
    assert row(scheduler)["active"] == 8 * OUTSTANDING_PER_CONNECTION


def test_a_window_starts_at_the_maximum_if_that_is_low():
    scheduler = make(max_connections_per_next_hop=2)
    fill(scheduler, 10)
    assert scheduler.next_batch(T0, 1000)[0].limit == 2


def test_busy_halves_the_window_once_for_what_was_under_way():
    scheduler = make()
    fill(scheduler, 200)
    for _ in range(40):
        finish(scheduler, scheduler.next_batch(T0, 1))
    batch = scheduler.next_batch(T0, 1000)
    assert row(scheduler)["window"] == 20
    finish(scheduler, batch, BUSY, T0 + 300)
    assert row(scheduler)["window"] == 10
    finish(scheduler, scheduler.next_batch(T0, 1), BUSY, T0 + 300)
    assert row(scheduler)["window"] == 5
    assert row(scheduler)["state"] == "up"


def test_busy_at_a_window_of_one_backs_off():
    scheduler = make()
    fill(scheduler, 200)
    for _ in range(2):
        finish(scheduler, scheduler.next_batch(T0, 1), BUSY, T0 + 300)
    assert row(scheduler)["window"] == 1
    finish(scheduler, scheduler.next_batch(T0, 1), BUSY, T0 + 300)
    assert row(scheduler)["state"] == "down"
    assert scheduler.next_batch(T0, 100) == []


def test_a_next_hop_that_is_down_gets_one_probe_when_its_back_off_ends():
    scheduler = make()
    fill(scheduler, 50)
    until = put_down(scheduler)
    assert T0 + 54 <= until <= T0 + 66
    assert row(scheduler)["reason"] == "connection refused"
    assert scheduler.is_down(HOP)
    assert scheduler.next_batch(until - 0.001, 100) == []
    assert scheduler.wake_at() == until
    (probe,) = scheduler.next_batch(until, 100)
    assert probe.limit == 1
    assert scheduler.next_batch(until + 1000, 100) == []


def test_a_probe_that_fails_doubles_the_back_off_up_to_the_maximum():
    scheduler = make()
    fill(scheduler, 50)
    now, waits = T0, []
    for _ in range(12):
        until = put_down(scheduler, now)
        waits.append(until - now)
        now = until
    config = schema.Queue()
    for number, wait in enumerate(waits):
        wanted = min(config.next_hop_retry_s * 2**number, config.retry_max_s)
        assert 0.9 * wanted - 0.001 <= wait <= 1.1 * wanted + 0.001
    assert len({round(wait / min(60 * 2**n, config.retry_max_s), 6) for n, wait in enumerate(waits)}) > 6  # jitter


def test_a_probe_that_succeeds_reopens_at_once():
    scheduler = make()
    fill(scheduler, 50)
    until = put_down(scheduler)
    finish(scheduler, scheduler.next_batch(until, 100), NONE, None, until)
    assert row(scheduler)["state"] == "up"
    assert row(scheduler)["reason"] == ""
    assert len(scheduler.next_batch(until, 100)) == PLACES
    # and the next failure begins anew
    assert row(scheduler)["failures"] == 0


def test_a_probe_that_tells_nothing_is_followed_by_another():
    scheduler = make()
    fill(scheduler, 50)
    until = put_down(scheduler)
    (probe,) = scheduler.next_batch(until, 100)
    scheduler.finished(probe.key, HOP, None, until, until)
    (second,) = scheduler.next_batch(until, 100)
    assert second.key != probe.key
    assert row(scheduler)["state"] == "probing"


def test_attempts_that_began_before_it_went_down_do_not_count_twice():
    scheduler = make()
    fill(scheduler, 50)
    batch = scheduler.next_batch(T0, 100)
    finish(scheduler, batch[:9], DOWN, T0)
    assert row(scheduler)["failures"] == 1
    until = row(scheduler)["down_until"]
    assert until <= T0 + 66
    # the straggler is still out while the probe goes: it takes no probe's place, and its failure says nothing new
    (probe,) = scheduler.next_batch(until, 100)
    finish(scheduler, batch[9:], DOWN, until, until)
    assert row(scheduler)["failures"] == 1
    assert row(scheduler)["state"] == "probing"
    finish(scheduler, [probe], DOWN, until, until)
    assert row(scheduler)["failures"] == 2


def test_a_straggler_that_succeeds_reopens():
    scheduler = make()
    fill(scheduler, 50)
    batch = scheduler.next_batch(T0, 2)
    finish(scheduler, batch[:1], DOWN, T0)
    assert scheduler.is_down(HOP)
    finish(scheduler, batch[1:], NONE)
    assert not scheduler.is_down(HOP)


def test_old_trouble_is_forgotten_after_a_long_rest():
    scheduler = make()
    scheduler.add("a", HOP, T0)
    now = T0
    for _ in range(6):
        now = put_down(scheduler, now)
    scheduler.remove("a", HOP)
    now += 100_000
    scheduler.add("b", HOP, now)
    until = put_down(scheduler, now)
    assert until - now <= 66


def test_a_dead_next_hop_costs_the_others_nothing(monkeypatch):
    scheduler = make()
    fill(scheduler, 3000, HOP)
    put_down(scheduler)
    touched = []
    take = module._NextHop.take
    monkeypatch.setattr(module._NextHop, "take", lambda hop, now_s: (touched.append(hop.name), take(hop, now_s))[1])
    for number in range(100):
        scheduler.add(f"live{number}", OTHER, T0)
        (item,) = scheduler.next_batch(T0, 10)
        finish(scheduler, [item])
    assert set(touched) == {OTHER}
    assert len(touched) <= 300


def test_room_is_shared_between_next_hops():
    scheduler = make()
    scheduler.next_batch(T0, 0)
    fill(scheduler, 1000, HOP)
    for number in range(4):
        fill(scheduler, 10, f"smtp://10.0.1.{number}:25")
    assert Counter(item.next_hop for item in scheduler.next_batch(T0, 10)) == dict.fromkeys(
        [HOP, *(f"smtp://10.0.1.{number}:25" for number in range(4))], 2
    )


def test_next_hops_are_served_in_turn_when_there_is_room_for_one_only():
    scheduler = make()
    scheduler.next_batch(T0, 0)
    hops = [f"smtp://10.0.1.{number}:25" for number in range(5)]
    for hop in hops:
        fill(scheduler, 5, hop)
    seen = []
    for _ in range(10):
        (item,) = scheduler.next_batch(T0, 1)
        seen.append(item.next_hop)
        finish(scheduler, [item])
    assert seen == hops * 2


def test_fresh_and_retried_mail_take_turns():
    scheduler = make()
    fill(scheduler, 50, due_s=T0 + 10, prefix="retried")
    scheduler.next_batch(T0 + 20, 0)
    fill(scheduler, 50, due_s=T0 + 20, prefix="fresh")
    kinds = Counter(item.key.rstrip("0123456789") for item in scheduler.next_batch(T0 + 20, 10))
    assert kinds == {"fresh": 5, "retried": 5}


def test_priority_puts_an_item_among_the_retried():
    scheduler = make()
    scheduler.next_batch(T0, 0)
    for number in range(3):
        scheduler.add(f"low{number}", HOP, T0, priority=1)
    for number in range(3):
        scheduler.add(f"m{number}", HOP, T0)
    assert [item.key for item in scheduler.next_batch(T0, 6)] == ["m0", "low0", "m1", "low1", "m2", "low2"]


def test_a_deferred_item_comes_again_when_it_is_due():
    scheduler = make()
    scheduler.add("a", HOP, T0)
    finish(scheduler, scheduler.next_batch(T0, 1), NONE, T0 + 300)
    assert scheduler.due_at("a", HOP) == T0 + 300
    assert scheduler.wake_at() == T0 + 300
    assert [item.key for item in scheduler.next_batch(T0 + 300, 1)] == ["a"]


def test_remove_of_a_waiting_item():
    scheduler = make()
    fill(scheduler, 3)
    assert scheduler.remove("m1", HOP)
    assert not scheduler.remove("m1", HOP)
    assert not scheduler.remove("m1", OTHER)
    assert [item.key for item in scheduler.next_batch(T0, 9)] == ["m0", "m2"]


def test_remove_of_an_item_under_attempt_keeps_its_place_and_drops_its_retry():
    scheduler = make(max_connections_per_next_hop=1)
    fill(scheduler, 5)
    batch = scheduler.next_batch(T0, 9)
    assert len(batch) == 2
    assert scheduler.remove("m0", HOP)
    assert len(scheduler) == 4
    assert scheduler.next_batch(T0, 9) == []
    scheduler.finished("m0", HOP, NONE, T0, T0)
    assert [item.key for item in scheduler.next_batch(T0, 9)] == ["m2"]


def test_remove_of_many_leaves_no_shells_behind():
    scheduler = make()
    fill(scheduler, 5000, due_s=T0 + 60)
    for number in range(4990):
        scheduler.remove(f"m{number}", HOP)
    assert len(scheduler._hops[HOP].waiting) < 200
    assert [item.key for item in scheduler.next_batch(T0 + 60, 5)] == [f"m{number}" for number in range(4990, 4995)]


def test_add_again_moves_the_time():
    scheduler = make()
    scheduler.add("a", HOP, T0 + 600)
    scheduler.add("a", HOP, T0 + 30)
    assert len(scheduler) == 1
    assert [item.key for item in scheduler.next_batch(T0 + 30, 9)] == ["a"]
    assert scheduler.next_batch(T0 + 600, 9) == []


def test_the_operator_retries_one_message():
    scheduler = make()
    fill(scheduler, 5, due_s=T0 + 600)
    fill(scheduler, 5, OTHER, T0 + 600)
    assert scheduler.retry(key="m3") == 2
    assert {(item.key, item.next_hop) for item in scheduler.next_batch(T0, 9)} == {("m3", HOP), ("m3", OTHER)}


def test_the_operator_retries_a_next_hop_that_is_down():
    scheduler = make()
    fill(scheduler, 5)
    fill(scheduler, 5, OTHER, T0 + 600)
    put_down(scheduler)
    assert scheduler.retry(next_hop=HOP) == 5
    (probe,) = scheduler.next_batch(T0, 9)
    finish(scheduler, [probe], NONE)
    assert len(scheduler.next_batch(T0, 9)) == 4
    assert scheduler.retry(next_hop="smtp://nowhere.test:25") == 0


def test_an_attempt_that_began_before_the_word_of_the_operator_puts_nothing_down_behind_it():
    """He says "now" since the next hop is back: whoever was turned away before that must not keep the others for minutes."""
    scheduler = make()
    fill(scheduler, 1, prefix="early")
    (early,) = scheduler.next_batch(T0, 9)
    fill(scheduler, 2)
    assert scheduler.retry() == 2
    finish(scheduler, [early], DOWN, T0)
    assert (row(scheduler)["state"], row(scheduler)["failures"]) == ("up", 0)
    again = scheduler.next_batch(T0, 9)
    assert sorted(item.key for item in again) == ["early0", "m0", "m1"]
    finish(scheduler, again, DOWN, T0, T0)  # but these began behind it
    assert (row(scheduler)["state"], row(scheduler)["failures"]) == ("down", 1)


def test_a_probe_that_began_before_the_word_of_the_operator_is_followed_by_another():
    scheduler = make()
    fill(scheduler, 3)
    until = put_down(scheduler)
    (early,) = scheduler.next_batch(until, 9)
    scheduler.retry()
    (probe,) = scheduler.next_batch(until, 9)
    finish(scheduler, [early], DOWN, until, until)
    assert (row(scheduler)["state"], scheduler.next_batch(until, 9)) == ("probing", [])
    finish(scheduler, [probe])
    assert len(scheduler.next_batch(until, 9)) == 2


def test_the_operator_retries_everything():
    scheduler = make()
    fill(scheduler, 5, due_s=T0 + 600)
    fill(scheduler, 5, OTHER, T0 + 600)
    assert scheduler.retry() == 10
    assert len(scheduler.next_batch(T0, 99)) == 10


def test_due_at_knows_of_a_next_hop_that_is_down():
    scheduler = make()
    fill(scheduler, 5)
    until = put_down(scheduler)
    assert scheduler.due_at("m3", HOP) == until
    assert scheduler.due_at("nothing", HOP) is None


def test_rows_for_the_operator():
    scheduler = make()
    fill(scheduler, 5)
    fill(scheduler, 3, OTHER, T0 + 600)
    scheduler.next_batch(T0, 2)
    first, second = scheduler.next_hops()
    assert first == {
        "next_hop": HOP, "state": "up", "window": 5, "active": 2, "waiting": 3, "down_until": None, "failures": 0,
        "reason": "",
    }  # fmt: skip
    assert (second["next_hop"], second["waiting"]) == (OTHER, 3)


def test_next_hops_without_items_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_IDLE_NEXT_HOPS", 10)
    scheduler = make()
    for number in range(100):
        scheduler.add("a", f"mx:{number}.test", T0)
        finish(scheduler, scheduler.next_batch(T0, 9))
    assert len(scheduler._hops) == 10
    assert scheduler.next_hops() == []


def test_reconfigure_shrinks_and_grows_windows():
    scheduler = make()
    fill(scheduler, 100)
    scheduler.reconfigure(schema.Queue(), schema.Delivery(max_connections_per_next_hop=2))
    assert len(scheduler.next_batch(T0, 99)) == 4
    scheduler.reconfigure(schema.Queue(), schema.Delivery(max_connections_per_next_hop=50))
    finish(scheduler, scheduler.next_batch(T0, 99))
    assert row(scheduler)["window"] == 2


def test_finished_for_an_item_that_was_never_given_is_a_bug():
    scheduler = make()
    scheduler.add("a", HOP, T0)
    with pytest.raises(KeyError):
        scheduler.finished("b", HOP, NONE, None, T0)


OPERATION = st.tuples(
    st.sampled_from(["add", "batch", "batch", "finish", "finish", "finish", "remove", "retry", "time"]),
    st.integers(0, 11),
    st.integers(0, 2),
    st.sampled_from([NONE, NONE, BUSY, DOWN, None]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATION, max_size=80), st.booleans())
def test_model(operations, is_ranked):
    """Whatever happens: no item is lost, doubled or given before its time, and no limit is passed."""
    scheduler = make(max_connections_per_next_hop=6)
    items: dict[tuple[str, str], str] = {}
    gone_active: list[tuple[str, str]] = []  # removed under attempt
    now = T0
    for what, number, hop_number, trouble, again in operations:
        key, hop = f"m{number}", f"smtp://10.0.0.{hop_number}:25"
        if what == "add" and (key, hop) not in gone_active:
            scheduler.add(key, hop, now + number * 10, rank=(0, 5, -5)[number % 3] if is_ranked else 0)
            items.setdefault((key, hop), "waiting")
        elif what == "batch":
            for item in scheduler.next_batch(now, number):
                assert items[item.key, item.next_hop] == "waiting"
                assert 1 <= item.limit <= 6
                items[item.key, item.next_hop] = "active"
        elif what == "finish":
            for pair in [pair for pair, state in items.items() if state == "active"][: hop_number + 1]:
                scheduler.finished(*pair, trouble, now + 30 if again else None, now)
                if again:
                    items[pair] = "waiting"
                else:
                    del items[pair]
            if gone_active:
                scheduler.finished(*gone_active.pop(), trouble, now, now)
        elif what == "remove":
            state = items.pop((key, hop), None)
            assert scheduler.remove(key, hop) == (state is not None)
            if state == "active":
                gone_active.append((key, hop))
        elif what == "retry":
            scheduler.retry(next_hop=hop)
        elif what == "time":
            now += number * 20
        active = sum(state == "active" for state in items.values()) + len(gone_active)
        assert scheduler.active == active
        assert len(scheduler) == len(items)
        for each in scheduler.next_hops():
            assert each["active"] <= 6 * OUTSTANDING_PER_CONNECTION
            assert each["waiting"] == sum(pair[1] == each["next_hop"] and s == "waiting" for pair, s in items.items())
    _drain(scheduler, items, gone_active, now)


def _drain(scheduler, items, gone_active, now):
    """In the end everything can be delivered, by waking up only when the scheduler says so."""
    for pair in gone_active + [pair for pair, state in items.items() if state == "active"]:
        scheduler.finished(*pair, NONE, None, now)
        items.pop(pair, None)
    for _ in range(1000):
        if not items:
            break
        wake = scheduler.wake_at()
        assert wake is not None
        now = max(now, wake)
        for item in scheduler.next_batch(now, 3):
            assert items.pop((item.key, item.next_hop)) == "waiting"
            scheduler.finished(item.key, item.next_hop, NONE, None, now)
    assert not items
    assert len(scheduler) == scheduler.active == 0
    assert scheduler.next_batch(now + 1e6, 99) == []


def test_ranks_go_before_and_after_the_others():
    """RFC 6710: high ones first, in order of arrival; none starves."""
    scheduler = make(max_connections_per_next_hop=1000)
    for number in range(4):
        scheduler.add(f"late{number}", HOP, T0, rank=-3)
        scheduler.add(f"plain{number}", HOP, T0)
        scheduler.add(f"urgent{number}", HOP, T0, rank=4)
        scheduler.add(f"flash{number}", HOP, T0, rank=9)
    keys = []
    while batch := scheduler.next_batch(T0, 1):
        keys += [item.key for item in batch]
        scheduler.finished(batch[0].key, HOP, NextHopTrouble.NONE, None, T0)
    assert sorted(keys) == sorted(f"{kind}{n}" for kind in ("late", "plain", "urgent", "flash") for n in range(4))
    by_kind = {kind: [key for key in keys if key.startswith(kind)] for kind in ("late", "plain", "urgent", "flash")}
    for kind, found in by_kind.items():
        assert found == [f"{kind}{n}" for n in range(4)]
    assert keys[:3] == ["flash0", "flash1", "flash2"]
    assert keys.index("flash3") < keys.index("urgent0")
    assert keys.index("plain0") < keys.index("urgent3")
    assert keys[-1] == "late3"


def test_a_ranked_item_keeps_its_rank_when_it_is_tried_again():
    scheduler = make(max_connections_per_next_hop=1000)
    scheduler.add("urgent", HOP, T0, rank=5)
    assert [item.key for item in scheduler.next_batch(T0, 1)] == ["urgent"]
    scheduler.finished("urgent", HOP, NextHopTrouble.NONE, T0 + 10, T0)
    assert scheduler.next_batch(T0 + 5, 1) == []
    scheduler.add("plain", HOP, T0 + 5)
    assert [item.key for item in scheduler.next_batch(T0 + 11, 2)] == ["urgent", "plain"]


def test_a_ranked_item_that_was_removed_is_gone():
    scheduler = make()
    scheduler.add("a", HOP, T0, rank=5)
    scheduler.add("b", HOP, T0 + 5, rank=5)
    scheduler.add("c", HOP, T0 + 5, rank=-5)
    assert scheduler.remove("a", HOP)
    assert scheduler.remove("b", HOP)
    assert [item.key for item in scheduler.next_batch(T0 + 6, 10)] == ["c"]
    assert scheduler.wake_at() is None
    scheduler.finished("c", HOP, NextHopTrouble.NONE, None, T0 + 6)
    assert len(scheduler) == 0
