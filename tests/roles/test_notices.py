"""The queue's dealings with senders: where its own mail goes when tables cannot be asked, and the age of what is held and released."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gatepost.config.load import load_config
from gatepost.model import Address, Envelope, Outcome, Recipient, Result
from gatepost.queue.backoff import Deadlines
from gatepost.roles.ids import NOTICES, IdMaker
from gatepost.roles.notices import Notices, lead
from gatepost.routing.route import Expansion, Route
from gatepost.spool.entry import Entry, State
from gatepost.spool.errors import SpoolFull

CONFIG = """hostname = "gate.example.net"
listen = "192.0.2.1:25"
spool = "/var/spool/gatepost"
aliases = ["http:lists", "inline:{{ owner-all = anna@listed.example }}"]
alias_domains = ["lists.example"]
[domains."asked.example"]
next_hop = "smtp://10.0.0.5:25"
recipients = ["http:people"]
[domains."listed.example"]
next_hop = "smtp://10.0.0.6:25"
recipients = ["anna"]
[domains."later.example"]
next_hop = "hold:smtp://10.0.0.7:25"
[domains."lists.example"]
next_hop = "smtp://10.0.0.8:25"
[sources.people]
type = "http"
url = "https://people.example/{key}"
[sources.lists]
type = "http"
url = "https://people.example/lists/{key}"
field = "members"
[queue]
retry_min_s = 1.0
retry_max_s = 10.0
next_hop_retry_s = 1.0
lifetime_s = 100.0
delay_notice_s = 50.0
"""


class Queue:
    """As much of the queue role as notices need."""

    def __init__(self, path: Path) -> None:
        path.write_text(CONFIG)
        path.chmod(0o600)
        self.config = load_config(str(path))
        self.deadlines = Deadlines()
        self.hands = SimpleNamespace(is_under_way=lambda entry: set())
        self.scheduler = SimpleNamespace(remove=lambda key, next_hop: True)
        self.spool = SimpleNamespace(settle=self._settle, entries={})
        self.spool.mark_reported = lambda entry, recipients: None
        self.dispatch_soon = lambda: None
        self.events: list[str] = []
        self.later: list = []
        self.loop = SimpleNamespace(call_later=lambda delay_s, call: self.timers.append(call))
        self.timers: list = []
        self.entered: list[Entry] = []
        self.notices = Notices(self, IdMaker(0, NOTICES))  # type: ignore[arg-type]

    def _settle(self, entry: Entry, recipients: list[int], state: State) -> None:
        for index in recipients:
            entry.states[index] = state
            entry.pending -= 1

    def event(self, name: str, **_: object) -> None:
        self.events.append(name)

    def commit_soon(self, then=None) -> None:
        self.later.append(then)

    def enter(self, entry: Entry) -> None:
        self.entered.append(entry)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "gatepost.toml")


def build_entry(received_s: float = 1000.0) -> Entry:
    to = [Recipient("u@listed.example", "listed.example", "smtp://10.0.0.6:25", 1)]
    envelope = Envelope("m1", "s1", "anna@listed.example", to, received_s, "192.0.2.9", "helo", "recipient-domain")
    return Entry(envelope, "m1", received_s, 1)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        # nobody can ask the source here: the sender must be told all the same
        ("anna@asked.example", "smtp://10.0.0.5:25"),
        ("anna@listed.example", "smtp://10.0.0.6:25"),
        ("nobody@listed.example", 550),
        ("anna@later.example", "smtp://10.0.0.7:25"),
        ("owner-all@lists.example", "smtp://10.0.0.6:25"),  # nobody can ask the other table, this one is in memory
        ("anna@lists.example", "smtp://10.0.0.8:25"),
    ],
)
def test_where_a_notice_goes(queue: Queue, address: str, expected: object) -> None:
    local, _, domain = address.rpartition("@")
    found = queue.notices.route(Address(address, local, domain))
    assert getattr(found, "code", None) or found.next_hop == expected  # type: ignore[union-attr]
    assert (found.next_hop if isinstance(found, Route) else found.code) == expected


def test_a_notice_to_a_held_route_is_held(queue: Queue) -> None:
    envelope = build_entry().envelope
    route = queue.notices.route(Address("anna@later.example", "anna", "later.example"))
    assert isinstance(route, Route)
    lead(envelope, route)
    assert envelope.hold and Entry(envelope, "m1", 1.0, 1).held


def test_a_notice_to_an_alias_goes_to_all_it_stands_for() -> None:
    envelope = build_entry().envelope
    ones = tuple(Route("smtp://10.0.0.8:25", "x.example", True, f"{name}@x.example") for name in "ab")
    lead(envelope, Route("smtp://10.0.0.8:25", "x.example", True, "a@x.example", expansion=Expansion(ones, ())))
    assert [recipient.address for recipient in envelope.recipients] == ["a@x.example", "b@x.example"]
    assert {recipient.notify for recipient in envelope.recipients} == {1}


def test_held_mail_does_not_age(queue: Queue) -> None:
    entry = build_entry()
    entry.held = True
    queue.notices.deadline(entry, 9000.0)
    assert entry.pending == 1 and queue.events == [] and len(queue.deadlines) == 0


def test_life_begins_anew_with_a_release(queue: Queue) -> None:
    entry = build_entry()
    entry.released_s, entry.delay_notified = 8990.0, True
    queue.spool.entries["m1"] = entry
    queue.notices.deadline(entry, 9000.0)
    assert entry.pending == 1 and queue.deadlines.wake_at() == pytest.approx(9090.0)
    queue.notices.deadline(entry, 9100.0)
    assert entry.pending == 0 and "expired" in queue.events


def test_a_notice_that_was_removed_is_not_entered(queue: Queue) -> None:
    kept, removed = build_entry(), build_entry()
    queue.spool.entries["m1"] = kept
    queue.notices.enter_when_durable(removed)
    queue.notices.enter_when_durable(kept)
    for call in queue.later:
        call()
    assert queue.entered == [kept]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("result", [Result.DELIVERED, Result.FAILED])
def test_a_notice_without_room_waits_for_it(queue: Queue, result: Result, ends: bool) -> None:
    entry = build_entry(queue.notices.now_s())
    entry.envelope.recipients[0].notify = 6  # SUCCESS and FAILURE
    stored: list[Envelope] = []
    is_full = True

    def store(envelope: Envelope, chunks: list[bytes], about: Entry | None, recipients: list[int]) -> Entry:
        if is_full:
            raise SpoolFull("no space")
        stored.append(envelope)
        notice = queue.spool.entries[envelope.id] = Entry(envelope, envelope.id, envelope.received_s, 1)
        return notice

    queue.spool.entries["m1"] = entry
    queue.spool.store = store
    queue.spool.source = lambda entry: (_ for _ in ()).throw(SpoolFull("no space"))
    outcome = Outcome(0, result, "body", 250, "2.0.0", "text")
    if result is Result.DELIVERED:
        queue.notices.report_success(entry, entry.envelope, "smtp://10.0.0.6:25", [outcome])
    else:
        entry.states[0], entry.pending, entry.last = State.FAILED, 0, (outcome,)
        queue.notices.bounce_unreported(entry)
    for _ in range(3):
        assert stored == [] and len(queue.timers) == 1
        queue.timers.pop()()
    if ends:
        queue.notices.store_rest()
        assert stored == [] and queue.notices.waiting == 1
    is_full = False
    if ends:
        queue.notices.store_rest()
    else:
        queue.timers.pop()()
        assert queue.timers == []
    assert [envelope.recipients[0].address for envelope in stored] == ["anna@listed.example"]
    assert queue.notices.waiting == 0
