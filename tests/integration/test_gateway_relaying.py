"""A running gateway: rules route and limit, facts are recorded and explain a reply, and an open relay does not start or reload."""

from __future__ import annotations

import json
import re

import pytest
from integration.gateway import Gateway, gatepost
from peers import SmtpSink, wait_until

RULES = """
[[relay.rules]]
name = "bulk"
networks = ["127.0.0.3/32"]
reverse_paths = ["@news.example.net"]
next_hop = "smtp://{sink}"
max_per_hour = 3
[[relay.rules]]
name = "trial"
networks = ["127.0.0.4/32"]
mode = "shadow"
[policy]
masquerade_names = 3
masquerade_senders = 3
"""
OPEN = '[[relay.rules]]\nname = "own domain"\nreverse_paths = ["@example.test"]\n'
HELLO = b"EHLO stranger.example.net\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with (
        SmtpSink(tmp_path_factory.mktemp("sink"), keep_messages=True) as sink,
        Gateway(
            tmp_path_factory.mktemp("gate"), next_hop=f"smtp://{sink.address}", recipients=["user"], extra=RULES.format(sink=sink.address)
        ) as server,
    ):  # fmt: skip
        yield server
        server.assert_no_bugs()


def mail(sender: str, *recipients: str) -> tuple[bytes, ...]:
    return (HELLO, f"MAIL FROM:<{sender}>\r\n".encode(), *(f"RCPT TO:<{to}>\r\n".encode() for to in recipients))


def why(gateway: Gateway, identifier: str):
    """The recorded facts with recipients, which come within a second."""

    def told():
        done = gateway.run("why", identifier, "--json")
        return [one for one in json.loads(done.stdout) if one["recipients"]] if done.returncode == 0 else None

    return wait_until(told, f"facts of {identifier}")


def test_a_rule_gives_right_route_and_rate(gateway):
    recipients = [f"r{number}@example.org" for number in range(4)]
    replies = gateway.dialog(*mail("list@news.example.net", *recipients), source="127.0.0.3")
    assert [reply[:3] for reply in replies[3:]] == [b"250", b"250", b"250", b"450"]
    refused = gateway.dialog(*mail("me@example.test", "r@example.org"), source="127.0.0.3")
    assert refused[-1].startswith(b"550 5.7.1")


def test_why_explains_a_refusal_and_a_message(gateway):
    replies = gateway.dialog(*mail("x@example.net", "v@example.org"))
    session = re.search(rb"\((\w+)\)", replies[-1])[1].decode()
    (entry,) = why(gateway, session)
    assert entry["recipients"][0]["then"][1] == 550
    assert "would be accepted from 127.0.0.2/32" in entry["recipients"][0]["now"]["changes"]
    replies = gateway.dialog(*mail("x@example.net", "user@example.test"), b"DATA\r\n", b"Subject: x\r\n\r\nx\r\n.\r\n")
    message = replies[-1].split()[-1].decode()
    (entry,) = why(gateway, message)
    assert entry["recipients"][0]["now"]["accepted"]
    assert gateway.run("why", "NOSUCHID").returncode == 1
    assert f"message {message}" in gateway.run("why", message).stdout


def test_replay_tells_what_a_new_configuration_would_change(gateway):
    gateway.dialog(*mail("x@example.net", "user@example.test"))
    wait_until(lambda: not gateway.run("replay").stdout.startswith("0 recipients"), "facts")
    same = gateway.run("replay", "--since", "1h")
    assert same.returncode == 0 and "nothing would change" in same.stdout
    new = gateway.directory / "new.toml"
    new.write_text(gateway.config.read_text().replace('recipients = ["user"]', 'recipients = ["other"]'))
    new.chmod(0o600)
    changed = gatepost("replay", "--config", str(new), "--json")
    assert changed.returncode == 1
    assert {"newly refused"} == {change["kind"] for change in json.loads(changed.stdout)["changes"]}


def test_a_shadow_rule_is_an_event(gateway):
    assert gateway.dialog(*mail("x@example.net", "v@example.org"), source="127.0.0.4")[-1].startswith(b"550")
    assert gateway.wait_for_event("shadow", rule="trial")["recipient"] == "v@example.org"


def test_the_world_behind_a_trusted_address_is_noticed(gateway):
    for number in range(3):
        commands = (f"EHLO host{number}.example\r\n".encode(), *mail(f"a@s{number}.example", "v@example.org")[1:])
        replies = gateway.dialog(*commands, source="127.0.0.2")
    assert replies[-1].startswith(b"450 4.7.1")
    assert "expect_many" in gateway.wait_for_event("trust_suspended", address="127.0.0.2")["advice"]
    assert gateway.dialog(*mail("a@s1.example", "user@example.test"), source="127.0.0.2")[-1].startswith(b"250")


def test_an_open_relay_is_refused_with_its_session(gateway):
    good = gateway.config.read_text()
    try:
        gateway.config.write_text(good + OPEN)
        for command in ("check", "run", "reload"):
            done = gateway.run(command)
            assert done.returncode != 0, command
            assert "C: MAIL FROM:<someone@example.test>" in done.stdout + done.stderr, command
            assert "S: 250 2.1.5 Recipient ok" in done.stdout + done.stderr, command
    finally:
        gateway.config.write_text(good)
    assert gateway.dialog(*mail("user@example.test", "v@example.org"))[-1].startswith(b"550")
