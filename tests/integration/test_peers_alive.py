"""The real programs themselves, without Gatepost: a failure here is no failure of the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.peers.process import Family
from peers import (
    DovecotLmtp,
    PostfixServer,
    SmtpSink,
    send_with_curl,
    send_with_msmtp,
    send_with_smtp_source,
    send_with_smtplib,
    send_with_swaks,
    wait_until,
)

pytestmark = pytest.mark.peer("postfix")
USER = "user@example.test"
SUBJECT = b"Subject: Hello\n"


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory):
    with PostfixServer(tmp_path_factory.mktemp("postfix"), users=("user", "other")) as server:
        yield server


def take_new(server: PostfixServer, before: int) -> bytes:
    """The one message that came after the first `before`."""
    return server.wait_for_messages(before + 1, USER)[-1]


@pytest.mark.parametrize("send", [send_with_swaks, send_with_curl, send_with_msmtp])
def test_client_delivers_to_maildir(postfix: PostfixServer, send) -> None:
    before = len(postfix.messages(USER))
    done = send(postfix.port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SUBJECT in take_new(postfix, before)


@pytest.mark.parametrize("send", [send_with_swaks, send_with_curl, send_with_msmtp])
def test_client_tells_a_refusal(postfix: PostfixServer, send) -> None:
    done = send(postfix.port, ("nobody@example.test",))
    assert done.returncode != 0
    assert "550 5.1.1" in done.stdout + done.stderr


def test_smtplib_delivers_to_maildir(postfix: PostfixServer) -> None:
    before = len(postfix.messages(USER))
    assert list(send_with_smtplib(postfix.port, (USER, "nobody@example.test"))) == ["nobody@example.test"]
    assert SUBJECT in take_new(postfix, before)


def test_smtp_source_delivers_all(postfix: PostfixServer) -> None:
    done = send_with_smtp_source(postfix.port, 30, "other@example.test")
    assert done.returncode == 0, done.stderr
    assert len(postfix.wait_for_messages(30, "other@example.test")) == 30


def test_postfix_hands_to_dovecot(tmp_path: Path) -> None:
    with (
        DovecotLmtp(tmp_path, users=(USER,)) as dovecot,
        PostfixServer(tmp_path, transport=f"lmtp:inet:{dovecot.address}") as postfix,
    ):
        assert send_with_swaks(postfix.port).returncode == 0
        assert b"A line of text." in dovecot.wait_for_messages(1, USER)[0]
        assert send_with_swaks(postfix.port, ("nobody@example.test",)).returncode == 0
        assert "550 5.1.1" in postfix.wait_for_log("status=bounced")


def test_postfix_relays_what_a_program_submits(tmp_path: Path) -> None:
    with (
        SmtpSink(tmp_path, keep_messages=True) as sink,
        PostfixServer(tmp_path, domains=(), relay_host=sink.address) as postfix,
    ):
        postfix.submit(b"Subject: Hello\n\nA line of text.\n", [USER])
        assert sink.wait_for_count(1) == 1
        assert b"A line of text." in sink.messages()[0]


def test_halted_server_queues_and_comes_back(tmp_path: Path) -> None:
    with SmtpSink(tmp_path) as sink, PostfixServer(tmp_path, domains=(), relay_host=sink.address) as postfix:
        sink.halt()
        postfix.submit(b"Subject: Hello\n\nA line of text.\n", [USER])
        postfix.wait_for_log("status=deferred")
        assert USER in postfix.queue()
        sink.start()
        wait_until(lambda: postfix.flush() or "is empty" in postfix.queue(), "an empty queue")


def test_stop_leaves_nothing(tmp_path: Path) -> None:
    server = PostfixServer(tmp_path).start()
    assert send_with_swaks(server.port).returncode == 0
    family = Family(server.process.pid)
    assert len(family.list_living()) > 2
    home = server.home
    server.stop()
    assert family.list_living() == []
    assert not home.exists()
