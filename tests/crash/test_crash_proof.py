"""The proof of a crash run must fail when something was lost: what it says of books that were made up."""

from __future__ import annotations

import pytest

from bench.crash.bed import check_counts
from bench.crash.books import Arrival, Book, Sent, Sync, read_book
from bench.crash.proof import BUSY_PAUSES, BUSY_S, NOTICE_S, Disturbance, Hold, prove


def sent(message_id: str, code: int = 250, recipients: tuple[str, ...] = ("a@x.test",), **fields) -> Sent:
    return Sent(message_id, 1.0, 1.1, code, fields.pop("stage", "end"), 100, list(recipients), **fields)


def arrived(
    message_id: str, at_s: float = 2.0, recipients: tuple[str, ...] = ("a@x.test",), is_whole: bool = True
) -> Arrival:
    return Arrival(message_id, f"G{message_id}", at_s, at_s + 0.1, list(recipients), is_whole)


def test_all_is_well():
    proof = prove([sent("m1"), sent("m2", 0)], [arrived("m1")], [], {})
    assert proof.problems() == []
    assert (proof.acknowledged, proof.unanswered, proof.arrived) == (1, 1, 1)


@pytest.mark.parametrize(
    ("books", "problem"),
    [
        (([sent("m1")], []), "1 acknowledged recipients never got their message: m1 to a@x.test"),
        (([sent("m1", recipients=("a@x.test", "b@x.test"))], [arrived("m1")]), "1 acknowledged recipients"),
        (([sent("m1")], [arrived("m1", is_whole=False)]), "1 messages arrived with another body: m1"),
        (([sent("m1")], [arrived("m1"), arrived("m9")]), "1 arrivals that nobody sent"),
        (([sent("m1"), sent("m2", 550)], [arrived("m1")]), "1 messages were refused with 5xx: m2 (550 )"),
        (([sent("m1"), sent("m2", 0, text="hangs: no answer")], [arrived("m1")]), "1 clients waited in vain"),
        (([sent("m1"), ], [arrived("m1"), arrived("m1", 3.0)]), "1 duplicates without a disturbance"),
        (([sent("m1", 451)], []), "nothing was acknowledged"),
    ],
)  # fmt: skip
def test_what_must_not_be(books, problem):
    [found] = prove(*books, [], {}).problems()
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("what", "begin_s", "noted_s", "grace_s", "is_explained"),
    [
        ("queue", 2.5, None, 0.0, True),  # the delivery was never noted
        ("queue", 2.5, 2.6, 0.0, True),  # noted behind the kill: by the attempt that came again
        ("queue", 2.5, 2.2, 0.0, False),  # noted before it: must be known
        ("power", 2.5, 2.2, 0.5, True),  # noted so shortly before that it need not be durable
        ("power", 2.9, 2.2, 0.5, False),
        ("receiver", 2.5, None, 0.0, False),  # its death repeats no delivery
        ("resolver", 2.5, None, 0.0, False),
        ("queue", 3.5, None, 0.0, False),  # too late to be the reason
        ("queue", 1.0, None, 0.0, False),  # over before the first attempt was begun
        ("queue", 2.0 - NOTICE_S / 2, None, 0.0, True),  # the deliverer could not know yet
    ],
)
def test_duplicates_need_a_reason(what, begin_s, noted_s, grace_s, is_explained):
    noted = {("Gm1", "a@x.test"): [noted_s]} if noted_s is not None else {}
    disturbance = Disturbance(what, begin_s, begin_s)
    proof = prove([sent("m1")], [arrived("m1", 2.0), arrived("m1", 3.0)], [disturbance], noted, grace_s)
    assert proof.duplicates == 1
    assert bool(proof.unexplained) is not is_explained


@pytest.mark.parametrize(
    ("syncs", "is_explained"),
    [
        ([], True),
        ([(2.25, 2.26)], True),  # it may have begun in the turn that wrote the note, before it
        ([(2.25, 2.26), (2.3, 2.4)], False),
        ([(2.25, 2.26), (2.3, 2.6)], True),  # answered behind the cut
        ([(2.15, 2.16), (2.3, 2.4)], True),
    ],
)
def test_what_the_disk_had_kept_must_be_known_after_a_power_cut(syncs, is_explained):
    rows = [Sync(*row) for row in syncs]
    arrivals, cut = [arrived("m1", 2.0), arrived("m1", 3.0)], Disturbance("power", 2.5, 2.6)
    proof = prove([sent("m1")], arrivals, [cut], {("Gm1", "a@x.test"): [2.2]}, 3.0, syncs=rows)
    assert bool(proof.unexplained) is not is_explained


@pytest.mark.parametrize(("told_s", "is_explained"), [(2.3, False), (2.7, True)])
def test_whoever_was_told_of_a_delivery_shows_that_it_was_durable(told_s, is_explained):
    told = Arrival("m1", "N1", told_s, told_s, ["a@x.test"], True, "relayed")
    arrivals = [arrived("m1", 2.0), arrived("m1", 3.0), told]
    kill = Disturbance("queue", 2.5, 2.6)
    noted = {("Gm1", "a@x.test"): [2.2]}
    proof = prove([sent("m1", notify="SUCCESS,FAILURE")], arrivals, [kill], noted)
    assert bool(proof.unexplained) is not is_explained


@pytest.mark.parametrize(
    ("begin_s", "end_s", "count"), [(1.5, 2.5, 1), (2.1, 2.5, 0), (1.0, 1.9, 0), (float("inf"), 3.0, 0)]
)
def test_what_is_held_does_not_set_out(begin_s, end_s, count):
    holds = [Hold(frozenset(("Gm1", "Gm2")), begin_s, end_s)]
    proof = prove([sent("m1")], [arrived("m1", 2.0)], [], {}, holds=holds)
    assert len(proof.problems()) == len(proof.escaped) == count


@pytest.mark.parametrize(
    ("is_busy", "pause_s", "late_s"), [(False, 9.0, 0.0), (True, 0.0, BUSY_S), (True, 2.0, 2.0 * BUSY_PAUSES)]
)
def test_a_machine_that_is_busy_may_be_late_by_what_was_seen_of_it(is_busy, pause_s, late_s):
    holds = [Hold(frozenset(("Gm1",)), 2.0, 99.0)]
    kill = Disturbance("queue", 1.0, 2.0 - NOTICE_S)
    for at_s, is_late in ((2.0 + late_s - 0.1, False), (2.0 + late_s + 0.1, True)):
        books = [sent("m1")], [arrived("m1", at_s), arrived("m1", 50.0)]
        proof = prove(*books, [kill], {}, holds=holds[:1], is_busy=is_busy, pause_s=pause_s)
        assert ("Gm1" in proof.escaped[:-1], bool(proof.unexplained)) == (is_late, is_late)


def test_a_notice_comes_twice_only_for_what_was_broken_meanwhile():
    rows = [sent("m1", recipients=(GONE,))]
    arrivals = [notice("m1", "failed", (GONE,)), notice("m1", "failed", (GONE,), "N2")]
    proof = prove(rows, arrivals, [Disturbance("queue", 4.0, 4.1), Disturbance("all", 0.1, 0.2)], {})
    assert len(proof.unexplained) == 1


def test_an_attempt_under_way_may_end_behind_the_one_that_repeats_it():
    late = Arrival("m1", "Gm1", 2.0, 4.0, ["a@x.test"], True)
    kill = Disturbance("queue", 2.5, 2.5)
    proof = prove([sent("m1")], [arrived("m1", 3.0), late], [kill], {("Gm1", "a@x.test"): [3.1]})
    assert (proof.duplicates, proof.unexplained) == (1, [])


def test_books_are_read_on_from_where_they_ended(tmp_path):
    path = tmp_path / "book"
    book = Book(str(path))
    book.add(sent("m1"))
    rows, end = read_book(path, Sent)
    book.add(sent("m2"))
    with open(path, "ab") as file:
        file.write(b'{"id": "half')
    more, _ = read_book(path, Sent, end)
    assert [row.id for row in rows + more] == ["m1", "m2"]


def notice(message_id: str, action: str, recipients: tuple[str, ...], own_id: str = "N1") -> Arrival:
    return Arrival(message_id, own_id, 2.0, 2.1, list(recipients), True, action)


GONE = "gone@x.test"


@pytest.mark.parametrize(
    ("books", "problem"),
    [
        (([sent("m1", recipients=(GONE,))], []), f"1 acknowledged recipients never got their message: m1 to {GONE}"),
        (([sent("m1", recipients=(GONE,), notify="NEVER"), sent("m2")], [arrived("m2"), notice("m1", "failed", (GONE,))]), "1 notices"),
        (([sent("m1", notify="SUCCESS,FAILURE")], [arrived("m1")]), "1 recipients whose sender was not told: m1 to a@x.test"),
        (([sent("m1")], [arrived("m1"), notice("m1", "relayed", ("a@x.test",))]), "1 notices that nobody asked for"),
        (([sent("m1")], [arrived("m1"), notice("m1", "failed", ("a@x.test",))]), "1 notices that nobody asked for"),
        (([sent("m1")], [arrived("m1"), notice("m9", "failed", (GONE,))]), "1 arrivals that nobody sent"),
        (([sent("m1", hold_s=1.5)], [arrived("m1", 2.0)]), "1 recipients got their message before its time"),
        (([sent("m1", recipients=(GONE,))], [notice("m1", "failed", (GONE,)), notice("m1", "failed", (GONE,), "N2")]), "1 duplicates"),
    ],
)  # fmt: skip
def test_what_senders_must_and_must_not_hear(books, problem):
    [found] = prove(*books, [], {}).problems()
    assert found.startswith(problem)


def test_bounces_and_notices_are_as_they_should_be():
    rows = [
        sent("m1", recipients=("a@x.test", GONE), notify="SUCCESS,FAILURE"),
        sent("m2", recipients=(GONE,), notify="NEVER"),
        sent("m3", hold_s=0.5),
    ]
    arrivals = [
        arrived("m1"),
        arrived("m3"),
        notice("m1", "failed", (GONE,)),
        notice("m1", "relayed", ("a@x.test",), "N2"),
    ]
    proof = prove(rows, arrivals, [], {})
    assert proof.problems() == []
    assert (proof.bounced, proof.own_notices, proof.notices) == (2, 2, {"failed": 1, "relayed": 1})


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, 0),
        ({"accepted": 4}, 0),
        ({"accepted": 5}, 1),
        ({"accepted": 2}, 1),
        ({"bounced": 0}, 1),
        ({"bounced": 3}, 1),
    ],
)
def test_the_ledger_must_agree(changed, found):
    """Two acknowledged recipients, one of them refused for good, its notice, and one whose client heard nothing."""
    rows = [sent("m1", recipients=("a@x.test", GONE)), sent("m2", 0)]
    proof = prove(rows, [arrived("m1"), notice("m1", "failed", (GONE,))], [], {})
    assert len(check_counts({"accepted": 3, "bounced": 1} | changed, proof)) == found


def test_a_notice_may_come_twice_for_a_kill():
    rows = [sent("m1", recipients=(GONE,))]
    arrivals = [notice("m1", "failed", (GONE,)), notice("m1", "failed", (GONE,), "N2")]
    proof = prove(rows, arrivals, [Disturbance("queue", 1.5, 1.6)], {})
    assert proof.problems() == [] and proof.notices_twice == 1
