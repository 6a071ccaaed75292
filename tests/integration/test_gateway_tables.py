"""The running gateway with sendmail's tables used as they are: routes, virtual addresses, access, discard, reload."""

from __future__ import annotations

import re
import socket

import pytest
from integration.gateway import Gateway
from peers import SmtpSink, wait_until

HELLO = b"EHLO stranger.example.net\r\n"
MESSAGE = b"Subject: tables\r\n\r\nbody\r\n.\r\n"
TABLES = {
    "access": (
        "Connect:127.0.0.7 REJECT\nConnect:127.0.0.8 RELAY\nFrom:bad.example REJECT\nTo:hole@example.test DISCARD\n"
        "To:relayed.example RELAY\nClientConn:127.0.0.9 1\nGreetPause:127.0.0.10 1\n"
    ),
    "virtusertable": "anna@example.test anna.smith@relayed.example\ngone@example.test error:nouser 550 left us\n",
    "mailertable": "relayed.example esmtp:[127.0.0.1]:{port}\n.relayed.example error:5.1.2:550 no such host here\n",
}
TOP = 'access = "sendmail-access:access"\nroutes = "sendmail-mailertable:mailertable"\nvirtual = "sendmail-virtusertable:virtusertable"\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with SmtpSink(tmp_path_factory.mktemp("sink"), keep_messages=True) as sink:
        server = Gateway(tmp_path_factory.mktemp("gate"), next_hop=f"smtp://{sink.address}", top=TOP)
        for name, text in TABLES.items():
            (server.directory / name).write_text(text.format(port=sink.port))
            (server.directory / name).chmod(0o600)
        server.sink = sink
        with server:
            yield server
            server.assert_no_bugs()


def rcpt(gateway: Gateway, address: str, path: str = "a@b.example", source: str = "127.0.0.1") -> bytes:
    commands = (HELLO, f"MAIL FROM:<{path}>\r\n".encode(), f"RCPT TO:<{address}>\r\n".encode())
    return gateway.dialog(*commands, source=source)[-1]


def test_a_client_that_the_table_rejects_gets_no_greeting(gateway):
    assert gateway.dialog(source="127.0.0.7")[0].startswith(b"554 5.7.1 ")


def test_a_sender_that_the_table_rejects(gateway):
    assert gateway.dialog(HELLO, b"MAIL FROM:<x@sub.bad.example>\r\n")[-1].startswith(b"550 5.7.1 ")


def test_relay_rights(gateway):
    assert rcpt(gateway, "x@else.example").startswith(b"550 5.7.1 ")
    assert rcpt(gateway, "x@else.example", source="127.0.0.8").startswith(b"250 ")
    assert rcpt(gateway, "x@relayed.example").startswith(b"250 ")
    assert rcpt(gateway, "x@sub.relayed.example").startswith(b"550 5.1.2 no such host here")
    assert rcpt(gateway, "gone@example.test").startswith(b"550 5.1.1 left us")


def test_limits_of_a_client(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60, source_address=("127.0.0.9", 0)) as first:
        assert first.recv(3) == b"220"
        assert gateway.dialog(source="127.0.0.9")[0].startswith(b"421 ")
    assert gateway.dialog(source="127.0.0.10")[0].startswith(b"220 ")


def test_mail_goes_to_the_address_and_the_host_that_the_tables_say(gateway):
    replies = gateway.dialog(
        HELLO, b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<anna@example.test>\r\n", b"DATA\r\n", MESSAGE
    )
    assert replies[-1].startswith(b"250 ")
    event = gateway.wait_for_event("delivered", recipient="anna.smith@relayed.example")
    assert event["next_hop"] == f"smtp://127.0.0.1:{gateway.sink.port}"


def test_discarded_mail_is_taken_and_counted(gateway):
    before = gateway.ledger()
    replies = gateway.dialog(
        HELLO, b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<hole@example.test>\r\n", b"DATA\r\n", MESSAGE
    )
    assert replies[-1].startswith(b"250 ")
    gateway.wait_for_event("discarded", recipient="hole@example.test")
    wait_until(lambda: gateway.ledger()["queued"] == 0, "the queue is empty")
    assert gateway.ledger()["discarded"] == before["discarded"] + 1


def test_a_reload_with_a_bad_line_keeps_the_old_table(gateway):
    access = gateway.directory / "access"
    good = access.read_text()
    access.write_text(good + "Connect:host.example RELAY\nTo:x@example.test nonsense without meaning\nFrom:a.example\n")
    done = gateway.run("reload")
    assert done.returncode != 0
    assert re.search(r"access:8: .*would let everyone relay", done.stderr)
    assert re.search(r'access:10: "From:a.example" has no value', done.stderr)
    assert rcpt(gateway, "x@else.example", source="127.0.0.8").startswith(b"250 ")
    access.write_text(good.replace("To:relayed.example RELAY", "To:relayed.example REJECT"))
    done = gateway.run("reload")
    assert done.returncode == 0, done.stderr
    assert rcpt(gateway, "x@relayed.example").startswith(b"550 ")
