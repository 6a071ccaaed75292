"""`gatepost selftest` against the real gateway: nothing fails, nothing is queued, and its traffic can be told from an attack."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from integration.gateway import Gateway

from gatepost.selftest.forms import END_VARIANTS, relay_forms, relay_senders
from gatepost.selftest.talk import SOURCE

NO_DNS = '[dns]\nservers = ["127.0.0.1:9"]\ntimeout_s = 0.05\nattempts = 1\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    extra = f"[smtp]\nmax_recipients = 20\ngreeting_delay_s = 0.05\n{NO_DNS}"
    with Gateway(tmp_path_factory.mktemp("gate"), recipients=["user"], extra=extra) as server:
        yield server
        server.assert_no_bugs()


def test_nothing_fails_and_nothing_is_accepted(gateway):
    done = gateway.run("selftest", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout.splitlines()[-1]
    for name in (*relay_forms("a", "b"), *relay_senders("a", "b"), *END_VARIANTS):
        assert f"{name}\n" in done.stdout, name
    assert "ok       talking before the greeting" in done.stdout
    assert gateway.ledger()["accepted"] == 0


def test_its_events_have_its_own_address(gateway):
    gateway.run("selftest", "--only", "smtp")
    rows = [row for row in gateway.told() if "address" in row]
    assert len(rows) > 100 and {row["address"] for row in rows} == {SOURCE}
    named = [row["helo"] for row in rows if row.get("helo")]
    assert named and set(named) == {"selftest.gate.example.test"}


def test_json_and_junit(gateway):
    answer = gateway.ask("selftest", "--only", "smtp", "--only", "inside")
    assert answer["counts"]["failed"] == 0 and answer["counts"]["ok"] > 60
    assert {row["verdict"] for row in answer["results"] if row["group"] == "processes"} == {"ok"}
    done = gateway.run("selftest", "--junit", "--only", "host", "--only", "inside")
    suite = ElementTree.fromstring(done.stdout)
    assert suite.get("failures") == "0" and int(suite.get("tests")) > 10


def test_dns_without_an_answer_is_skipped_and_strict_counts_warnings(gateway):
    answer = gateway.ask("selftest", "--only", "dns")
    assert answer["counts"] == {"ok": 0, "warning": 0, "failed": 0, "skipped": len(answer["results"])}
    assert gateway.run("selftest", "--only", "smtp", "--strict").returncode == 1  # no certificate: a warning


@pytest.mark.parametrize("form", relay_forms("example.test", "gate.example.test"))
def test_no_address_form_relays(gateway, form):
    path = relay_forms("example.test", "gate.example.test")[form]
    replies = gateway.dialog(
        b"EHLO stranger.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<%s>\r\n" % path.encode()
    )
    assert replies[1].startswith(b"250") and replies[2].startswith(b"250")
    assert not replies[3].startswith(b"2"), replies


@pytest.mark.parametrize("sender", relay_senders("example.test", "gate.example.test"))
def test_no_sender_gives_a_right(gateway, sender):
    path = relay_senders("example.test", "gate.example.test")[sender]
    replies = gateway.dialog(
        b"EHLO gate.example.test\r\n", b"MAIL FROM:<%s>\r\n" % path.encode(), b"RCPT TO:<victim@example.org>\r\n"
    )
    assert not replies[3].startswith(b"2"), replies


def test_without_a_gateway_nothing_is_asked_over_the_network(tmp_path):
    stopped = Gateway(tmp_path, extra=NO_DNS)
    stopped.write_config()
    done = stopped.run("selftest", "--only", "smtp", "--only", "inside")
    assert done.returncode == 1
    assert "nothing on this host is asked" in done.stdout
