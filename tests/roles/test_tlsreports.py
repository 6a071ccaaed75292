"""TLS reports in the queue role: counting, keeping over a restart, when a report goes, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import gzip
import json
import types

import msgspec
import pytest

from gatepost.config.schema import Config, Tls
from gatepost.config.schema import TlsReports as Settings
from gatepost.eventtable import EVENTS
from gatepost.ipc import messages as m
from gatepost.model import TlsSeen
from gatepost.roles import tlsreports
from gatepost.roles.tlsreports import MAX_ROWS, MAX_TRIES, Day, TlsReports

DAY = 86400
START = 20_000 * DAY + 100.0  # some seconds after a midnight


def seen(domain: str = "a.test", result: str = "", count: int = 1, host: str = "mx.a.test") -> TlsSeen:
    return TlsSeen(domain, "sts", domain, (), host, "192.0.2.1", "", result, "", count)


class Queue:
    """As much of the queue role as reports need."""

    def __init__(self, loop, **settings) -> None:
        self.loop = loop
        reports = Settings(contact="tls@gate.test", **settings)
        self.config = Config(hostname="gate.test", listen=[], spool="", domains={}, tls=Tls(reports=reports))
        self.events: list[tuple[str, dict[str, object]]] = []
        self.records: dict[str, list[str] | str] = {}
        self.posts: list[m.Post] = []
        self.post_answer = ""
        self.worker = types.SimpleNamespace(call=lambda work, done, failed: done(work()))
        self.reports: TlsReports

    def event(self, name: str, **fields: object) -> None:
        assert set(fields) <= set(EVENTS[name])
        self.events.append((name, fields))

    def peers(self, role: str) -> list[object]:
        assert role == "resolver"
        return [types.SimpleNamespace(peer=("resolver", 0, 1), post=self._asked)]

    def _asked(self, question: m.Lookup | m.Post) -> None:
        if isinstance(question, m.Post):
            self.posts.append(question)
            self.reports.answered(None, m.PostDone(question.query, self.post_answer))
            return
        assert question.kind == "TXT"
        records = self.records.get(question.name.removeprefix("_smtp._tls."), [])
        status = records if isinstance(records, str) else "ok"
        self.reports.answered(None, m.LookupDone(question.query, status, [] if status != "ok" else list(records), 60))


@pytest.fixture
def bed(tmp_path, monkeypatch):
    """A TlsReports in a spool of its own, and the clock."""
    (tmp_path / "tls").mkdir()
    monkeypatch.chdir(tmp_path)
    clock = types.SimpleNamespace(now_s=START)
    monkeypatch.setattr(tlsreports, "time", types.SimpleNamespace(time=lambda: clock.now_s))
    loop = asyncio.new_event_loop()

    def start(**settings) -> Queue:
        queue = Queue(loop, **settings)
        queue.reports = TlsReports(queue)
        queue.reports.begin()
        return queue

    clock.start = start
    clock.loop = loop
    yield clock
    loop.close()


def tick(bed, queue) -> None:
    """What happens once a minute, with all that it begins."""
    queue.reports._tick()

    async def rest() -> None:
        await asyncio.gather(*queue.reports._tasks)

    bed.loop.run_until_complete(rest())


def names(queue) -> list[str]:
    return [name for name, _ in queue.events]


def test_the_same_is_added_up_and_comes_back_after_a_restart(bed):
    queue = bed.start()
    queue.reports.take(m.TlsResults([seen(count=2), seen(result="certificate-expired"), seen("b.test")]))
    queue.reports.take(m.TlsResults([seen(count=3)]))
    queue.reports.close()
    shown = bed.start().reports.show(0.0)["seen"]
    assert [(row["domain"], row["day"]) for row in shown] == [
        ("b.test", "2024-10-04T00:00:00Z"),
        ("a.test", "2024-10-04T00:00:00Z"),
    ]
    assert [(row["result"], row["count"]) for row in shown[1]["results"]] == [
        ("success", 5),
        ("certificate-expired", 1),
    ]


def test_a_damaged_file_is_told_and_forgotten(bed, tmp_path):
    (tmp_path / "tls" / "results").write_bytes(b"?")
    queue = bed.start()
    assert names(queue) == ["error"]
    assert queue.reports.show(0.0)["seen"] == []


def test_results_without_end_are_bounded(bed):
    queue = bed.start()
    queue.reports.take(m.TlsResults([seen(host=f"mx{number}.a.test") for number in range(MAX_ROWS + 20)]))
    assert len(queue.reports.show(0.0)["seen"][0]["results"]) == MAX_ROWS


def test_each_domain_at_its_own_time_behind_the_day(bed):
    queue = bed.start()
    domains = [f"d{number}.test" for number in range(16)]
    for domain in domains:
        queue.records[domain] = ["v=TLSRPTv1; rua=https://r.test/x"]
    queue.reports.take(m.TlsResults([seen(domain) for domain in domains]))
    bed.now_s += DAY - 200
    tick(bed, queue)
    assert not queue.posts  # it is not midnight yet
    counts = []
    for _ in range(9):
        bed.now_s += 1650
        tick(bed, queue)
        counts.append(len(queue.posts))
    assert len(set(counts)) > 3
    assert counts[-1] == 16
    bed.now_s += DAY
    tick(bed, queue)
    assert len(queue.posts) == 16  # once


def test_who_does_not_ask_for_reports_gets_none(bed):
    queue = bed.start(spread_s=0)
    queue.reports.take(m.TlsResults([seen()]))
    bed.now_s += DAY
    tick(bed, queue)
    assert not queue.posts and not queue.events
    assert queue.reports.show(0.0)["seen"][0]["report"] == "none"


def test_what_fails_is_tried_again_and_given_up_after_a_day(bed):
    queue = bed.start(spread_s=0)
    queue.records["a.test"] = ["v=TLSRPTv1; rua=https://r.test/x,https://s.test/x"]
    queue.post_answer = "status 500"
    queue.reports.take(m.TlsResults([seen()]))
    bed.now_s += DAY
    for _ in range(MAX_TRIES + 5):
        tick(bed, queue)
        tick(bed, queue)  # not before its time
        bed.now_s += 3601
    assert len(queue.posts) == 2 * MAX_TRIES
    failures = [fields for name, fields in queue.events if name == "tls_report_failed"]
    assert [fields["given_up"] for fields in failures] == [False] * (MAX_TRIES - 1) + [True]


def test_a_place_that_has_it_does_not_get_it_again(bed):
    queue = bed.start(spread_s=0)
    queue.records["a.test"] = "tempfail"
    queue.reports.take(m.TlsResults([seen()]))
    bed.now_s += DAY
    tick(bed, queue)
    assert names(queue) == ["tls_report_failed"]
    queue.records["a.test"] = ["v=TLSRPTv1; rua=https://r.test/x"]
    for _ in range(3):
        bed.now_s += 3601
        tick(bed, queue)
    assert [(post.host, post.path) for post in queue.posts] == [("r.test", "/x")]
    assert names(queue)[-1] == "tls_report_sent"


def test_without_a_contact_nothing_is_sent(bed):
    queue = bed.start(spread_s=0)
    queue.config = msgspec.structs.replace(queue.config, tls=Tls())
    queue.records["a.test"] = ["v=TLSRPTv1; rua=https://r.test/x"]
    queue.reports.take(m.TlsResults([seen()]))
    bed.now_s += DAY
    tick(bed, queue)
    assert not queue.posts
    assert queue.reports.show(0.0)["seen"][0]["report"] == "not yet"


def test_a_report_that_is_due_names_the_contact_it_was_due_with(bed):
    queue = bed.start(spread_s=0)
    queue.records["a.test"] = ["v=TLSRPTv1; rua=https://r.test/x"]
    queue.reports.take(m.TlsResults([seen()]))
    bed.now_s += DAY
    queue.reports._tick()
    queue.config = msgspec.structs.replace(queue.config, tls=Tls())  # a reload before the task's first step
    bed.loop.run_until_complete(asyncio.gather(*queue.reports._tasks))
    assert [json.loads(gzip.decompress(post.body))["contact-info"] for post in queue.posts] == ["tls@gate.test"]


def test_what_is_old_is_forgotten_also_on_disk(bed):
    queue = bed.start(keep_days=2)
    queue.reports.take(m.TlsResults([seen()]))
    queue.reports.close()
    bed.now_s += 3 * DAY
    tick(bed, queue)
    assert queue.reports.show(0.0)["seen"] == []
    queue.reports.close()
    assert bed.start().reports.show(0.0)["seen"] == []


def test_the_record_on_disk_can_grow():
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([[seen()]]), type=Day) == Day([seen()])


def test_what_a_broken_deliverer_says_is_no_header_and_bounded(bed, monkeypatch):
    queue = bed.start()
    names = ("a.test\r\nBcc: all@a.test", "a b.test", "a\x1b[2J.test", "", "x" * 300, "\u00e4.test")
    queue.reports.take(m.TlsResults([seen(name) for name in names]))
    assert queue.reports.show(0.0)["seen"] == []
    monkeypatch.setattr(tlsreports, "MAX_BYTES", 100_000)
    for number in range(100):
        queue.reports.take(m.TlsResults([seen(f"{number}.test", result="x" * 30_000)]))
    kept = [row for domain in queue.reports.show(0.0)["seen"] for row in domain["results"]]
    assert len(kept) == 3
