"""The self-test finds what is wrong with a bad server, and does nothing to it that could harm others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from gatepost.config.schema import Config, Domain, Listener, Relay, Smtp
from gatepost.selftest import talk
from gatepost.selftest.forms import END_VARIANTS, relay_forms, relay_senders
from gatepost.selftest.outside import Outside
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING, Result, junit, text_lines
from gatepost.selftest.starttls import check_starttls
from gatepost.selftest.talk import SOURCE, endpoints


class Server:
    """Says yes to everything, as an open relay does; `answers` names the replies that differ."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = answers
        self.sessions: list[list[bytes]] = []
        self.sources: set[str] = set()
        self.turned_away = 0  # which of those that come is, counted from 1
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = self._socket.getsockname()[:2]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            self.sources.add(peer[0])
            lines: list[bytes] = []
            self.sessions.append(lines)
            # takes CR for a line end, too
            with connection, connection.makefile("r", encoding="latin-1", newline="") as file:
                try:
                    self._session(connection, file, lines)
                except OSError:
                    continue

    def _session(self, connection: socket.socket, file: object, lines: list[bytes]) -> None:
        if len(self.sessions) == self.turned_away:
            connection.sendall(b"521 bad.example\r\n")
            return
        connection.sendall(b"220 bad.example\r\n")
        in_data = False
        for text in file:  # type: ignore[attr-defined]
            line = text.encode("latin-1")
            if in_data:
                if line.rstrip(b"\r\n") == b".":
                    in_data = False
                    connection.sendall(b"250 2.0.0 Queued\r\n")
                continue
            lines.append(line)
            word = line[:4].upper()
            if word == b"QUIT":
                return
            in_data = word == b"DATA"
            connection.sendall(self.answers.get(word, b"354 Go on\r\n" if in_data else b"250 2.0.0 Yes\r\n"))


@pytest.fixture(autouse=True)
def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "CLOSE_S", 0.05)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server({})
    yield running
    running.close()


def config_for(server: Server, **changes: object) -> Config:
    host, port = server.endpoint
    values = {
        "hostname": "gate.example.test", "listen": [f"{host}:{port}"], "spool": "/nowhere", "relay": Relay(),
        "domains": {"example.test": Domain(next_hop=["smtp://10.0.0.1:25"], recipients=["user"])},
        "smtp": Smtp(max_recipients=3, max_errors=3, max_idle_commands=3),
    } | changes  # fmt: skip
    return Config(**values)  # type: ignore[arg-type]


def verdicts(server: Server, config: Config) -> dict[str, Result]:
    return {result.name: result for result in Outside(config, server.endpoint).run()}


def test_an_open_relay_fails_every_question(server: Server) -> None:
    found = verdicts(server, config_for(server))
    asked = [f"recipient: {name}" for name in relay_forms("a.test", "b.test")]
    asked += [f"sender: {name}" for name in relay_senders("a.test", "b.test")]
    assert {name: found[name].verdict for name in asked} == dict.fromkeys(asked, FAILED)
    assert "open relay" in found["recipient: plain"].advice
    assert {found[name].verdict for name in END_VARIANTS} == {FAILED}
    assert found["max_recipients"].verdict == found["an unknown recipient"].verdict == FAILED
    assert all(result.verdict != OK for name, result in found.items() if name != "greeting" and "VRFY" not in name)


@pytest.mark.parametrize(("delay_s", "verdict"), [(60.0, FAILED), (1e-9, SKIPPED)])
def test_one_who_could_not_talk_in_time_proves_nothing(server: Server, delay_s: float, verdict: str) -> None:
    found = verdicts(server, config_for(server, smtp=Smtp(greeting_delay_s=delay_s)))["talking before the greeting"]
    assert found.verdict == verdict
    assert ("too busy" in found.detail) is (verdict == SKIPPED)


def test_a_gateway_that_was_too_busy_once_does_not_fail(server: Server) -> None:
    asking = Outside(config_for(server, smtp=Smtp(greeting_delay_s=60.0)), server.endpoint)
    server.turned_away = 3
    greeting = asking._talk_early()
    assert greeting is not None
    assert (greeting.code, len(server.sessions)) == (521, 3)


def test_it_never_gives_a_message_for_another_domain(server: Server) -> None:
    verdicts(server, config_for(server))
    assert len(server.sessions) > 50
    assert server.sources == {SOURCE}
    for lines in server.sessions:
        recipients = [line for line in lines if line.upper().startswith(b"RCPT")]
        if any(line.upper().startswith(b"DATA") for line in lines):
            assert all(line == b"RCPT TO:<postmaster@example.test>\r\n" for line in recipients), lines
        assert not lines or lines[0].startswith((b"EHLO selftest.gate.example.test", b"POST", b"\x16"))


def test_a_refusal_for_the_moment_is_a_warning_and_not_proof() -> None:
    running = Server({b"RCPT": b"450 4.7.1 Later\r\n"})
    try:
        found = verdicts(running, config_for(running))
    finally:
        running.close()
    assert found["recipient: plain"].verdict == WARNING
    assert {found[name].verdict for name in END_VARIANTS} == {SKIPPED}


def test_a_host_that_may_relay_cannot_ask(server: Server) -> None:
    found = verdicts(server, config_for(server, relay=Relay(networks=["127.0.0.0/8"])))
    assert found["address forms"].verdict == SKIPPED
    assert not any(b"example.org" in line for lines in server.sessions for line in lines)


def test_nobody_answers() -> None:
    unused = socket.create_server(("127.0.0.1", 0))
    endpoint = unused.getsockname()[:2]
    unused.close()
    config = Config(hostname="g.test", listen=[], spool="/x", domains={"a.test": Domain(next_hop=["mx"])})
    (result,) = Outside(config, endpoint).run()
    assert result.verdict == FAILED and "gateway running" in result.advice


def test_a_server_that_takes_starttls_and_offers_none(server: Server) -> None:
    found = {result.name: result.verdict for result in check_starttls(config_for(server), server.endpoint)}
    assert found == {"not offered, and refused": FAILED, "certificate": WARNING}


def test_only_this_hosts_listening_addresses_are_asked() -> None:
    domains = {"a.test": Domain(next_hop=["smtp://192.0.2.77:25"])}
    config = Config(hostname="g.test", listen=["0.0.0.0:25", "[::]:25", "127.0.0.1:2525"], spool="/x", domains=domains)
    assert endpoints(config) == [("127.0.0.1", 25), ("::1", 25), ("127.0.0.1", 2525)]


def test_unix_sockets_are_not_asked() -> None:
    rows = [
        Listener(address="unix:/run/lmtp", kind="lmtp"),
        Listener(address="unix:/run/submit"),
        Listener(address="127.0.0.1:587"),
    ]
    config = Config(hostname="gate.example.test", listen=["127.0.0.1:25"], spool="/s", domains={}, listeners=rows)
    assert endpoints(config) == [("127.0.0.1", 25)]
    assert talk.submission_endpoints(config) == [(("127.0.0.1", 587), False)]


def test_junit_is_xml_and_carries_no_controls() -> None:
    hostile = 'a "<&> \x1b[31m\x00 \u202e \ud800'
    results = [Result("g", "one", OK), Result("g", hostile, FAILED, hostile, "x"), Result("g", "two", SKIPPED, "y"), Result("g", "w", WARNING)]  # fmt: skip
    text = junit(results, "h")
    suite = ElementTree.fromstring(text)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    assert [case.find("failure") is not None for case in suite] == [False, True, False, False]
    assert not any(ord(each) < 32 and each != "\n" for each in text) and "\u202e" not in text


def test_text_has_what_is_wrong_and_the_counts() -> None:
    results = [Result("g", "one", OK), Result("g", "two", FAILED, "why", "what to do")]
    assert text_lines(results, verbose=False) == [
        "g:", "  failed   two: why", "           what to do", "1 ok, 0 warning, 1 failed, 0 skipped",
    ]  # fmt: skip
    assert "  ok       one" in text_lines(results, verbose=True)
