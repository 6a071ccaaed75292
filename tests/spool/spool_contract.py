"""What every spool must do, whatever holds its messages. Subclass it and give `open_spool` and `accept`.

It speaks only of the interface in `gatepost.spool.spool`: no files. `reopen` is a crash: nothing is closed or committed first.
"""

from __future__ import annotations

import pytest
from spool_bed import DEFERRED, DELIVERED, FAILED, assert_balanced, content_of, make_envelope

from gatepost.model import Outcome, Result
from gatepost.spool.entry import State
from gatepost.spool.errors import AlreadyGone


class SpoolContract:
    """Tests; `self.spool` is open, `self.accept(id, ...)` makes messages as a receiver would and returns their entries."""

    def open_spool(self, **settings):
        raise NotImplementedError

    def accept(self, *ids: str, recipients: int = 1) -> list:
        raise NotImplementedError

    def content(self, message_id: str) -> bytes:
        raise NotImplementedError

    def reopen(self) -> None:
        """The process dies, and another one recovers."""
        self.spool.abandon()
        self.spool = self.open_spool()

    def test_an_accepted_message_is_live_and_can_be_read(self):
        [entry] = self.accept("a1")
        assert self.spool.entries == {"a1": entry}
        assert entry.envelope == make_envelope("a1")
        assert content_of(self.spool, entry) == self.content("a1")
        assert self.spool.ledger()["queued"] == 1

    def test_it_survives_a_crash_without_commit(self):
        self.accept("a1", "a2")
        self.reopen()
        assert self.spool.entries.keys() == {"a1", "a2"}
        assert content_of(self.spool, self.spool.entries["a2"]) == self.content("a2")
        assert_balanced(self.spool)

    def test_a_finished_message_is_gone_and_stays_gone(self):
        [entry, other] = self.accept("a1", "a2")
        self.spool.record(entry, [DELIVERED], 0.0)
        self.spool.finish(entry)
        for call in (self.spool.finish, self.spool.source, self.spool.hold, self.spool.remove):
            with pytest.raises(AlreadyGone):
                call(entry)
        with pytest.raises(AlreadyGone):
            self.spool.record(entry, [DELIVERED], 0.0)
        self.reopen()
        assert self.spool.entries.keys() == {other.id}
        assert_balanced(self.spool)
        assert self.spool.ledger()["delivered"] == 1

    def test_outcomes_survive(self):
        [entry] = self.accept("a1", recipients=3)
        late = Outcome(1, Result.DEFERRED, "rcpt", 450, "4.2.0", "later")
        self.spool.record(entry, [DELIVERED, late], 12_000.0)
        gone = Outcome(2, Result.FAILED, "rcpt", 550, "5.1.1", "unknown")
        self.spool.record(entry, [gone], 13_000.0)
        for _ in range(2):
            entry = self.spool.entries["a1"]
            assert list(entry.states) == [State.DELIVERED, State.PENDING, State.FAILED]
            assert (entry.pending, entry.attempts, entry.next_due_s) == (1, 2, 13_000.0)
            assert {one.recipient: one.text for one in entry.last} == {0: "ok", 1: "later", 2: "unknown"}
            assert entry.unreported() == [2]
            assert list(entry.waiting()) == [1]
            self.reopen()
        assert_balanced(self.spool)

    def test_finish_needs_every_recipient_settled(self):
        [entry] = self.accept("a1", recipients=2)
        self.spool.record(entry, [DELIVERED], 0.0)
        with pytest.raises(ValueError, match="1 recipients"):
            self.spool.finish(entry)
        self.spool.settle(entry, [0, 1], State.EXPIRED)
        assert list(entry.states) == [State.DELIVERED, State.EXPIRED]
        self.spool.finish(entry)
        ledger = self.spool.ledger()
        assert (ledger["delivered"], ledger["expired"], ledger["queued"]) == (1, 1, 0)

    def test_a_notice_is_a_message_and_counts_as_told(self):
        [entry] = self.accept("a1")
        self.spool.record(entry, [FAILED], 0.0)
        self.spool.commit()
        assert entry.unreported() == [0]
        self.spool.store(make_envelope("dsn1"), [b"From: <>\r\n\r\n", b"sorry\r\n"], about=entry, recipients=[0])
        assert entry.unreported() == []
        self.spool.finish(entry)
        self.spool.commit()
        self.reopen()
        assert self.spool.entries.keys() == {"dsn1"}
        assert content_of(self.spool, self.spool.entries["dsn1"]) == b"From: <>\r\n\r\nsorry\r\n"
        assert_balanced(self.spool)

    def test_a_bounce_that_is_owed_is_known_after_a_crash(self):
        [entry] = self.accept("a1")
        self.spool.record(entry, [FAILED], 0.0)
        self.reopen()
        assert self.spool.entries["a1"].unreported() == [0]
        self.spool.mark_reported(self.spool.entries["a1"], [0])
        self.spool.commit()
        self.reopen()
        assert self.spool.entries["a1"].unreported() == []

    def test_held_and_notified_survive(self):
        [entry, other] = self.accept("a1", "a2")
        self.spool.hold(entry)
        self.spool.hold(other)
        self.spool.release(other, 15_000.0)
        self.spool.mark_delay_notified(other)
        self.reopen()
        first, second = self.spool.entries["a1"], self.spool.entries["a2"]
        assert (first.held, first.delay_notified) == (True, False)
        assert (second.held, second.delay_notified, second.next_due_s) == (False, True, 15_000.0)

    def test_the_operator_removes(self):
        [entry] = self.accept("a1", recipients=2)
        self.spool.record(entry, [DELIVERED], 0.0)
        self.spool.remove(entry)
        self.reopen()
        assert not self.spool.entries
        ledger = self.spool.ledger()
        assert (ledger["removed_by_operator"], ledger["discarded"], ledger["delivered"]) == (1, 1, 1)
        assert_balanced(self.spool)

    def test_deferred_messages_survive_with_what_happened(self):
        entries = self.accept("a1", "a2", "a3")
        for entry in entries:
            self.spool.record(entry, [DEFERRED], 11_000.0)
        assert self.spool.defer_to_file(entries[:2]) == []
        self.spool.commit()
        for _ in range(2):
            assert self.spool.entries.keys() == {"a1", "a2", "a3"}
            for entry in self.spool.entries.values():
                assert content_of(self.spool, entry) == self.content(entry.id)
                assert entry.last == (DEFERRED,)
                assert entry.envelope == make_envelope(entry.id)
            self.reopen()
        entry = self.spool.entries["a1"]
        self.spool.record(entry, [DELIVERED], 0.0)
        self.spool.finish(entry)
        self.spool.commit()
        self.reopen()
        assert self.spool.entries.keys() == {"a2", "a3"}
        assert_balanced(self.spool)

    def test_a_message_finished_while_it_moves_is_not_left_behind(self):
        entries = self.accept("a1", "a2")
        self.spool.record(entries[0], [DELIVERED], 0.0)
        self.spool.finish(entries[0])
        assert self.spool.defer_to_file(entries) == []
        self.reopen()
        assert self.spool.entries.keys() == {"a2"}

    def test_to_defer_names_the_old_ones_oldest_first(self):
        self.accept("a1", "a2", "a3")
        assert [entry.id for entry in self.spool.to_defer(2)] == ["a1", "a2"]
        self.spool.defer_to_file(self.spool.to_defer(2))
        assert [entry.id for entry in self.spool.to_defer(2)] == ["a3"]

    def test_too_many_messages_is_unhealthy(self):
        self.spool.abandon()
        self.spool = self.open_spool(max_messages=2)
        self.accept("a1")
        assert self.spool.health().accepting
        self.accept("a2")
        assert not self.spool.health().accepting
        assert "max_messages" in self.spool.health().reason
