"""Rewriting in the running gateway: what arrives at the next hop, what is refused, and what the events say."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from integration.gateway import Gateway, gatepost, read_reply
from peers import SmtpSink, wait_until

SECRET = "a secret of sixteen octets or more\n"
TOP = 'virtual = "inline:{forwarded@example.test = someone@away.test}"\n'
RULES = """
[[rewrite.rules]]
name = "one face"
domains = ["inside.test", ".inside.test"]
to_domain = "example.test"

[[rewrite.rules]]
name = "moved"
directions = ["inbound"]
parts = ["forward-path", "header-recipients"]
tables = ["inline:{old@example.test = new@example.test, away@example.test = a@away.test, bad@example.test = \\"two@example.test}"]

[[rewrite.rules]]
name = "broken"
parts = ["reverse-path", "header-senders"]
tables = ["inline:{bad@inside2.test = \\"two@example.test}"]

[[rewrite.rules]]
name = "soon"
parts = ["reverse-path"]
domains = ["example.test"]
to_domain = "later.test"
mode = "shadow"

[rewrite]
hide_received = ["127.0.0.0/8"]

[rewrite.srs]
domain = "example.test"
secrets_file = "srs.secrets"
"""
INSIDE, STRANGER = "127.0.0.2", "127.0.0.1"
HEADER = (
    b"Received: from pc.inside.test ([127.0.0.9]) by x; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"From: \xc3\x84nne (at a@inside.test)\r\n\t<a@pc.inside.test>\r\nDKIM-Signature: v=1; d=inside.test; h=From:Subject; b=x\r\n"
    b"To: old@example.test, friends: b@inside.test;\r\nCc: not an <address@x\r\nSubject: %s a@inside.test\r\n"
)
NUMBERS = count()


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    with SmtpSink(tmp_path_factory.mktemp("sink"), keep_messages=True) as peer:
        yield peer


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, sink: SmtpSink) -> Iterator[Gateway]:
    hop = f"smtp://{sink.address}"
    directory: Path = tmp_path_factory.mktemp("gate")
    server = Gateway(
        directory, next_hop=hop, relay_next_hop=hop, recipients=["new", "anna", "forwarded"], top=TOP, extra=RULES
    )
    secrets = server.directory / "srs.secrets"
    secrets.write_text(SECRET)
    secrets.chmod(0o600)
    with server:
        yield server
        server.assert_no_bugs()


def send(gateway: Gateway, sender: str, recipient: str, source: str, body: bytes = b"text\r\n", *, pieces: int = 1):
    """The last reply, and the mark in the subject by which the message is found."""
    mark = b"mark-%d-" % next(NUMBERS)
    content = HEADER % mark + b"\r\n" + body
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60, source_address=(source, 0)) as sock:
        file = sock.makefile("rb")
        read_reply(file)
        for line in ("EHLO pc.inside.test", f"MAIL FROM:<{sender}> BODY=8BITMIME", f"RCPT TO:<{recipient}>", "DATA"):
            sock.sendall(line.encode() + b"\r\n")
            reply = read_reply(file)
            if reply[:1] not in b"23":
                return reply, mark
        size = max(1, len(content) // pieces)
        for at in range(0, len(content), size):
            sock.sendall(content[at : at + size])
        sock.sendall(b".\r\n")
        return read_reply(file), mark


def arrived(sink: SmtpSink, mark: bytes) -> bytes:
    def find() -> bytes | None:
        return next((one for one in sink.messages() if mark in one and one.endswith(b"text\n\n")), None)

    return wait_until(find, f"message {mark!r} at the sink")


def envelope(message: bytes) -> tuple[bytes, bytes]:
    sender = re.search(rb"X-Mail-Args: <(.*?)>", message)
    recipient = re.search(rb"X-Rcpt-Args: <(.*?)>", message)
    assert sender is not None and recipient is not None
    return sender.group(1), recipient.group(1)


def test_outbound_mail_wears_one_face(gateway: Gateway, sink: SmtpSink) -> None:
    reply, mark = send(gateway, "a@pc.inside.test", "x@away.test", INSIDE, pieces=40)
    assert reply.startswith(b"250 2.0.0 Queued")
    message = arrived(sink, mark)
    assert envelope(message) == (b"a@example.test", b"x@away.test")
    wanted = (
        (HEADER % mark)
        .replace(b"<a@pc.inside.test>", b"<a@example.test>")
        .replace(b"b@inside.test;", b"b@example.test;")
    )
    wanted = wanted.replace(b"from pc.inside.test ([127.0.0.9]) by x", b"(a host inside)")
    assert wanted.replace(b"\r\n", b"\n") in message
    assert b"127.0.0.2" not in message and b"from inside ([inside])" in message
    session = gateway.wait_for_event("path_rewritten", after="a@example.test")["session"]
    shown = gateway.wait_for_event("header_rewritten", session=session)
    assert (shown["fields"], shown["addresses"], shown["rules"], shown["hidden"]) == (
        ["From", "To"],
        2,
        ["one face"],
        1,
    )
    assert gateway.wait_for_event("rewrite_kept", session=session)["field"] == "Cc"
    assert gateway.wait_for_event("rewrite_breaks_signature", session=session)["domain"] == "inside.test"
    assert gateway.wait_for_event("rewrite_shadow", session=session)["after"] == "a@later.test"


def test_inbound_mail_goes_to_the_new_address(gateway: Gateway, sink: SmtpSink) -> None:
    reply, mark = send(gateway, "x@away.test", "old@example.test", STRANGER)
    assert reply.startswith(b"250")
    message = arrived(sink, mark)
    assert envelope(message) == (b"x@away.test", b"new@example.test")
    assert (HEADER % mark).replace(b"To: old@", b"To: new@").replace(b"\r\n", b"\n") in message


def test_rewriting_is_no_right(gateway: Gateway) -> None:
    reply, _ = send(gateway, "x@away.test", "away@example.test", STRANGER)
    assert reply.startswith(b"550 5.7.1")


def test_what_would_be_no_address_is_put_off_and_told(gateway: Gateway) -> None:
    for sender, recipient, verb in (
        ("x@away.test", "bad@example.test", "RCPT"),
        ("bad@inside2.test", "x@away.test", "MAIL"),
    ):
        reply, _ = send(gateway, sender, recipient, STRANGER if verb == "RCPT" else INSIDE)
        assert reply.startswith(b"451 4.3.0") and b"two@" not in reply
        assert '"two@example.test' in gateway.wait_for_event("reply_refused", verb=verb, status="4.3.0")["cause"]


@pytest.mark.parametrize("pieces", [1, 7])
def test_large_messages_and_those_that_are_given_up(gateway: Gateway, sink: SmtpSink, pieces: int) -> None:
    body = b"x" * 70 + b"\r\n"
    reply, mark = send(gateway, "a@inside.test", "x@away.test", INSIDE, body * 5000 + b"text\r\n", pieces=pieces)
    assert reply.startswith(b"250")
    message = arrived(sink, mark)
    assert message.count(body.replace(b"\r\n", b"\n")) == 5000 and b"<a@example.test>" in message
    reply, _ = send(gateway, "a@inside.test", "x@away.test", INSIDE, b"", pieces=pieces)
    assert reply.startswith(b"250")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60, source_address=(INSIDE, 0)) as sock:
        file = sock.makefile("rb")
        for line in (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<x@away.test>\r\n", b"DATA\r\n"):
            read_reply(file)
            sock.sendall(line)
        read_reply(file)
        sock.sendall(b"Subject: " + b"x\r\n " * 100_000 + b"\r\n\r\n.\r\n")
        assert read_reply(file).startswith(b"552")
    wait_until(lambda: gateway.stats()["receiver/0"]["held_bytes"] == 0, "nothing held")


def test_forwarded_mail_and_its_bounce(gateway: Gateway, sink: SmtpSink) -> None:
    reply, mark = send(gateway, "sender@away.test", "forwarded@example.test", STRANGER)
    assert reply.startswith(b"250")
    sender, recipient = envelope(arrived(sink, mark))
    assert recipient == b"someone@away.test"
    assert re.fullmatch(rb"SRS0=.{6}=..=away\.test=sender@example\.test", sender)
    reply, _ = send(gateway, "spammer@away.test", sender.decode(), STRANGER)
    assert reply.startswith(b"550 5.7.1")
    reply, _ = send(gateway, "", sender.decode().replace("=sender", "=other"), STRANGER)
    assert reply.startswith(b"550 5.1.1")
    reply, mark = send(gateway, "", sender.decode(), STRANGER)
    assert reply.startswith(b"250")
    assert envelope(arrived(sink, mark)) == (b"", b"sender@away.test")


def test_what_paths_became_is_recorded_and_replayed(gateway: Gateway) -> None:
    reply, _ = send(gateway, "rec@pc.inside.test", "x@away.test", INSIDE)
    identifier = reply.split()[-1].decode()

    def told() -> dict | None:
        done = gateway.run("why", identifier, "--json")
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    why = wait_until(told, f"facts of {identifier}")
    assert "rec@pc.inside.test" in why["record"] and "rec@example.test" in why["record"]
    same = gateway.run("replay")
    assert same.returncode == 0, same.stdout
    other = gateway.directory / "other.toml"
    other.write_text(gateway.config.read_text().replace('to_domain = "example.test"', 'to_domain = "other.test"'))
    changed = gatepost("replay", "--config", str(other))
    assert changed.returncode == 1
    # other.test is not ours
    assert "re-written: " in changed.stdout and "reverse-path <srs:example.test> (srs)" in changed.stdout


def test_our_own_notice_about_forwarded_mail_goes_to_its_sender(tmp_path: Path) -> None:
    with (
        SmtpSink(tmp_path, keep_messages=True) as good,
        SmtpSink(tmp_path, options=("-f", "rcpt")) as bad,
    ):
        rules = (
            RULES
            + f'[[relay.rules]]\nname = "back"\nanyone = true\ndomains = ["ours"]\nnext_hop = "smtp://{bad.address}"\n'
        )
        server = Gateway(
            tmp_path, next_hop=f"smtp://{good.address}", relay_next_hop=f"smtp://{good.address}",
            recipients=["forwarded"], top=TOP, extra=rules,
        )  # fmt: skip
        secrets = server.directory / "srs.secrets"
        secrets.write_text(SECRET)
        secrets.chmod(0o600)
        with server:
            reply, _ = send(server, "sender@away.test", "forwarded@example.test", STRANGER)
            assert reply.startswith(b"250")
            assert server.wait_for_event("dsn_created")["recipient"] == "sender@away.test"
