"""Decisions that wait for facts: what the client sees, in order, whatever the resolver does."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from gatepost.ipc import messages as m
from gatepost.model import Address, NeedsAnswer, Question, Recipient
from gatepost.net.smtp_in import SmtpIn
from gatepost.roles.asking import MAX_STEPS, MAX_UNDER_WAY, WAIT_LIMIT_S, Asking
from gatepost.routing.answers import Answers
from gatepost.routing.shrinking import Shrinkage
from gatepost.routing.table import TableUnavailable
from gatepost.smtp.reply import Reply
from gatepost.smtp.server import ServerSession, ServerSettings

PEOPLE = "ldap:people"
LATER = Reply(451, "3.0", "Later")
UNKNOWN = Reply(550, "1.1", "Unknown")


class Loop:
    """A clock and what is due, run by the test."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, int, Any, Callable[[], None]]] = []
        self.numbers = count()

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Any:
        timer = type("Timer", (), {"cancelled": False})()
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        heapq.heappush(self.due, (self.now_s + delay_s, next(self.numbers), timer, lambda: call(*arguments)))
        return timer

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> Any:
        return self.call_later(0.0, call, *arguments)

    def run_until(self, now_s: float) -> None:
        while self.due and self.due[0][0] <= now_s:
            self.now_s, _, timer, call = heapq.heappop(self.due)
            if not timer.cancelled:
                call()
        self.now_s = now_s


class Link:
    peer = ("resolver", 0, 1)

    def __init__(self) -> None:
        self.posted: list[Any] = []

    def post(self, message: m.Message) -> None:
        self.posted.append(message)


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Host:
    """A receiver whose decisions need facts: `people` of the recipient, then what is in `chain`."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.rewriting = None
        self.answers = Answers(now_s=self.loop.time)
        self.asking = Asking(self.loop, self.answers, {PEOPLE: (60.0, 10.0, 600.0)})
        self.link = Link()
        self.asking.linked(self.link)
        self.decided: list[str] = []
        self.held_bytes = 0

    def connect(self) -> tuple[SmtpIn, Transport]:
        connection = SmtpIn(self, None)  # type: ignore[arg-type]
        transport = connection.transport = Transport()
        connection.session = ServerSession(ServerSettings(hostname="gate.example.test"), "S1")
        connection.greet()
        connection.data_received(b"EHLO c\r\n")
        connection.data_received(b"MAIL FROM:<a@b.example>\r\n")
        transport.written = b""
        return connection, transport

    def decide_hello(self, connection: SmtpIn, event: Any) -> None: ...

    def violation(self, connection: SmtpIn, event: Any) -> None: ...

    def decide_mail(self, connection: SmtpIn, event: Any) -> None: ...

    def decide_data(self, connection: SmtpIn) -> Reply:
        return LATER

    def decide_rcpt(self, connection: SmtpIn, address: Address) -> Any:
        if address.local == "broken":
            self.answers.need(PEOPLE, [address.text])
            raise ZeroDivisionError
        try:
            (value,) = self.answers.need(PEOPLE, [address.text])
            while value is not None and value.startswith("to "):
                (value,) = self.answers.need(PEOPLE, [value[3:]])
        except TableUnavailable as error:
            self.decided.append(str(error))
            return LATER
        self.decided.append(address.text)
        return UNKNOWN if value is None else (Recipient(address.text, address.domain, "smtp://h:25"), "p")

    def answer(self, values: dict[str, str], failed: str = "") -> None:
        """The resolver answers all it was asked."""
        asked, self.link.posted = self.link.posted, []
        for question in asked:
            self.asking.answered(m.TableLookupDone(question.query, [values.get(key) for key in question.keys], failed))


@pytest.fixture
def host() -> Host:
    return Host()


def codes(transport: Transport) -> list[bytes]:
    written, transport.written = transport.written, b""
    return [line[:9].rstrip() for line in written.splitlines()]


def rcpt(*locals_: str) -> bytes:
    return b"".join(b"RCPT TO:<%s@x.example>\r\n" % local.encode() for local in locals_)


def test_replies_of_a_pipelined_group_come_in_order(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna", "bob", "carl") + b"RSET\r\n")
    assert codes(transport) == [] and connection.wait is not None
    host.answer({"anna@x.example": ""})
    assert codes(transport) == [b"250 2.1.5"]
    host.answer({})
    host.answer({"carl@x.example": ""})
    assert codes(transport) == [b"550 5.1.1", b"250 2.1.5", b"250 2.0.0"]
    assert connection.wait is None and host.decided == ["anna@x.example", "bob@x.example", "carl@x.example"]


def test_what_is_known_is_not_asked_again(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna", "bob"))
    host.answer({"anna@x.example": ""})
    host.answer({})
    codes(transport)
    connection.data_received(rcpt("anna", "bob"))
    assert codes(transport) == [b"250 2.1.5", b"550 5.1.1"] and not host.link.posted
    host.loop.run_until(30.0)  # "bob" is not known for ten seconds only
    connection.data_received(rcpt("anna", "bob"))
    assert codes(transport) == [b"250 2.1.5"] and [q.keys for q in host.link.posted] == [["bob@x.example"]]


def test_a_question_is_asked_once_for_all_who_wait(host: Host) -> None:
    visits = [host.connect() for _ in range(5)]
    for connection, _ in visits:
        connection.data_received(rcpt("anna"))
    assert len(host.link.posted) == 1
    visits[0][0].transport.close()
    visits[0][0].host.asking.forget(visits[0][0])  # as when the connection is lost
    host.answer({"anna@x.example": ""})
    assert [codes(transport) for _, transport in visits] == [[]] + [[b"250 2.1.5"]] * 4


def test_no_answer_defers(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna"))
    host.answer({}, "connection refused")
    assert codes(transport) == [b"451 4.3.0"] and host.decided == ["ldap:people: connection refused"]
    connection.data_received(rcpt("anna"))  # and is not remembered
    host.answer({"anna@x.example": ""})
    assert codes(transport) == [b"250 2.1.5"]


def test_what_was_found_stands_in_while_there_is_no_answer(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna", "bob"))
    host.answer({"anna@x.example": ""})
    host.answer({})
    codes(transport)
    host.loop.run_until(100.0)
    connection.data_received(rcpt("anna", "bob"))
    host.answer({}, "down")
    host.answer({}, "down")
    assert codes(transport) == [b"250 2.1.5", b"451 4.3.0"] and host.asking.counts["stale"] == 1
    connection.data_received(rcpt("anna"))
    host.answer({})  # it is there again, and says that anna is gone
    connection.data_received(rcpt("anna"))
    assert codes(transport) == [b"550 5.1.1", b"550 5.1.1"]
    host.loop.run_until(800.0)
    connection.data_received(rcpt("anna"))
    host.answer({}, "down")
    assert codes(transport) == [b"451 4.3.0"]


def test_a_directory_that_lost_its_people_is_not_believed(host: Host) -> None:
    events: list[dict[str, Any]] = []
    host.asking._shrinkages[PEOPLE] = Shrinkage(0.2)
    host.asking._event = lambda name, **fields: events.append(fields)
    connection, transport = host.connect()
    people = [f"p{number}" for number in range(20)]
    for person in people:
        connection.data_received(rcpt(person))
        host.answer({f"{person}@x.example": ""})
    assert set(codes(transport)) == {b"250 2.1.5"}
    host.loop.run_until(100.0)
    for person in people:
        connection.data_received(rcpt(person))
        host.answer({})
    assert codes(transport).count(b"250 2.1.5") == 16
    assert events == [{"table": PEOPLE, "vanished": 5, "asked": 5}]
    connection.data_received(rcpt("stranger"))
    host.answer({})
    assert codes(transport) == [b"550 5.1.1"]


def test_silence_ends(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna", "bob"))
    host.loop.run_until(WAIT_LIMIT_S - 1)
    assert codes(transport) == []
    connection.check_deadline(host.loop.now_s + 10_000)  # the client is not to blame
    host.loop.run_until(WAIT_LIMIT_S)
    assert codes(transport) == [b"451 4.3.0"]
    assert [q.keys[0] for q in host.link.posted] == ["anna@x.example", "bob@x.example"]
    late = host.link.posted[0]
    host.asking.answered(m.TableLookupDone(late.query, [""]))  # for the cache
    assert host.answers.need(PEOPLE, late.keys) == [""]
    assert host.asking.counts["given_up"] == 1


def test_a_chain_without_end_is_cut(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna"))
    for step in range(MAX_STEPS * 2):
        asked, host.link.posted = host.link.posted, []
        for question in asked:
            host.asking.answered(m.TableLookupDone(question.query, [f"to n{step}"]))
        host.loop.run_until(0.0)
    assert codes(transport) == [b"451 4.3.0"] and host.asking.counts["questions"] == MAX_STEPS


def test_a_resolver_that_comes_back_is_asked_again(host: Host) -> None:
    connection, transport = host.connect()
    host.asking.unlinked()
    connection.data_received(rcpt("anna"))
    assert not host.link.posted
    second = host.link = Link()
    host.asking.linked(second)
    host.answer({"anna@x.example": ""})
    assert codes(transport) == [b"250 2.1.5"]


def test_whoever_is_gone_or_closed_is_left_alone(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna"))
    connection.session.timeout()
    connection.data_received(b"x" * 3_000_000)  # more than may wait: the session ends
    assert transport.is_closed
    host.answer({"anna@x.example": ""})
    assert connection.wait is None and host.decided == []


def test_the_end_of_the_service_comes_behind_the_answer(host: Host) -> None:
    connection, transport = host.connect()
    connection.data_received(rcpt("anna"))
    connection.session.shut_down()
    host.answer({"anna@x.example": ""})
    assert codes(transport) == [b"250 2.1.5", b"421 4.3.2"]


def test_a_mistake_of_ours_ends_the_connection_only(host: Host) -> None:
    connection, transport = host.connect()
    other, heard = host.connect()
    connection.data_received(rcpt("broken"))
    other.data_received(rcpt("anna"))
    with pytest.raises(ZeroDivisionError):
        host.asking.answered(m.TableLookupDone(host.link.posted[0].query, [""]))
    assert transport.is_aborted
    host.asking.answered(m.TableLookupDone(host.link.posted[1].query, [""]))
    assert codes(heard) == [b"250 2.1.5"]


def test_too_many_questions_are_answered_here(host: Host) -> None:
    host.asking._under_way.update(
        (-number, m.TableLookup(-number, PEOPLE, [])) for number in range(1, MAX_UNDER_WAY + 1)
    )
    connection, transport = host.connect()
    connection.data_received(rcpt("anna"))
    assert not host.link.posted
    host.loop.run_until(0.0)
    assert codes(transport) == [b"451 4.3.0"]


def test_facts_of_dns(host: Host) -> None:
    connection, _ = host.connect()

    def decide() -> None:
        (answer,) = host.answers.need_answers("dns:TXT", ["x.example"])
        host.decided.append(f"{answer.value} {answer.records}")

    host.asking.run(connection, decide)
    (question,) = host.link.posted
    assert (question.kind, question.name) == ("TXT", "x.example")
    host.asking.answered(m.LookupDone(question.query, "ok", ["v=spf1 -all"], 300))
    assert host.decided == ["ok ('v=spf1 -all',)"] and connection.wait is None
    host.asking.run(connection, decide)
    assert len(host.decided) == 2
    host.loop.run_until(300.0)
    host.asking.run(connection, decide)
    host.asking.answered(m.LookupDone(host.link.posted[-1].query, "nxdomain", [], 60))
    assert host.decided[-1] == "nxdomain ()"


def test_a_failed_question_of_dns_is_one_that_cannot_be_had(host: Host) -> None:
    connection, _ = host.connect()
    seen: list[str] = []

    def decide() -> None:
        try:
            host.answers.need("dns:A", ["x.example"])
        except TableUnavailable as error:
            seen.append(str(error))

    host.asking.run(connection, decide)
    host.asking.answered(m.LookupDone(host.link.posted[0].query, "tempfail", [], 0, False, "time-out"))
    assert seen == ["dns:A: time-out"]


def test_groups_of_questions_are_asked_each_by_itself(host: Host) -> None:
    """What stands in for one member of a list while the table is away says nothing of another."""
    connection, _ = host.connect()
    forms, other = [Question(PEOPLE, "a@x"), Question(PEOPLE, "@x")], [Question(PEOPLE, "b@x"), Question(PEOPLE, "@x")]
    done: list[list[str | None]] = []

    def decide() -> None:
        missing = []
        for group in (forms, other):
            try:
                done.append(host.answers.need(PEOPLE, [question.key for question in group]))
            except NeedsAnswer as needed:
                missing += needed.groups
        if missing:
            raise NeedsAnswer(*missing)

    host.asking.run(connection, decide)
    assert [question.keys for question in host.link.posted] == [["a@x", "@x"], ["b@x"]]
    host.answer({"@x": "1"})
    assert done == [[None, "1"], [None, "1"]] and connection.wait is None


def test_the_exception_names_its_questions() -> None:
    assert str(NeedsAnswer([Question("a", "b")])) == "1 facts are not there"
