"""What the operator sees and does: `gatepost queue` and `gatepost ledger`, for people and as JSON."""

from __future__ import annotations

import json

import pytest
from integration.queuebed import QueueBed, queue_bed
from integration.talk import message, send
from peers import wait_until


@pytest.fixture(scope="module")
def the_bed(tmp_path_factory):
    with queue_bed(tmp_path_factory.mktemp("gate"), next_hop_retry_s=300.0, retry_max_s=600.0) as bed:
        yield bed


@pytest.fixture
def bed(the_bed):
    """Its inside next hop is down, and will not be tried for long unless the operator says so."""
    the_bed.inside.close()
    yield the_bed
    if the_bed.gateway.process is None:
        the_bed.gateway.start()
    the_bed.inside.accept()
    the_bed.inside.open()
    the_bed.gateway.run("queue", "release", "--all")

    def is_empty() -> bool:
        """Again and again: an attempt that was under way when its next hop came back puts it down once more."""
        the_bed.gateway.run("queue", "retry", "--all")
        return the_bed.gateway.ledger()["queued"] == 0

    wait_until(is_empty, "an empty queue")


def put(bed: QueueBed) -> tuple[str, str, str]:
    """A message that waits."""
    sent = bed.send()
    wait_until_it_waits(bed, sent[2])
    return sent


def wait_until_it_waits(bed: QueueBed, message_id: str) -> None:
    """The queue has it, and nothing is under way."""

    def is_down() -> bool:
        answer = bed.gateway.ask("queue", "list")
        is_there = any(row["id"] == message_id for row in answer["messages"])
        return is_there and any(hop["state"] == "down" and not hop["active"] for hop in answer["next_hops"])

    wait_until(is_down, "its next hop is known to be down")


def out(bed: QueueBed, *arguments: str) -> str:
    done = bed.gateway.run("queue", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_list(bed):
    sender, recipient, message_id = put(bed)
    text = out(bed, "list")
    for part in (
        message_id,
        f"<{sender}>",
        recipient,
        "due 20",
        "Connection refused",
        f"{bed.inside.name}: down",
        "1 messages in the queue",
    ):
        assert part in text, (part, text)
    answer = bed.gateway.ask("queue", "list")
    assert answer["total"] == 1
    row = answer["messages"][0]
    assert (row["id"], row["reverse_path"], row["recipients"]) == (message_id, sender, [recipient])
    assert row["next_hops"] == [bed.inside.name] and row["waiting"] == 1 and not row["held"]
    hop = answer["next_hops"][0]
    assert (hop["next_hop"], hop["state"], hop["waiting"]) == (bed.inside.name, "down", 1)


def test_list_by_what_it_is(bed):
    sender, recipient, message_id = put(bed)
    other = bed.send()

    def ids(*arguments: str) -> set[str]:
        return {row["id"] for row in bed.gateway.ask("queue", "list", *arguments)["messages"]}

    wait_until(lambda: ids() == {message_id, other[2]}, "both")
    assert ids("--from", sender) == {message_id}
    assert ids("--from", "") == set()
    assert ids("--recipient", recipient) == {message_id}
    assert ids("--recipient", "example.test") == {message_id, other[2]}
    assert ids("--next-hop", bed.inside.name) == {message_id, other[2]}
    assert ids("--next-hop", "smtp://192.0.2.1:25") == set()
    assert len(ids("--limit", "1")) == 1
    assert "none of 2 messages fits" in out(bed, "list", "--from", "nobody@senders.test")


def test_show(bed):
    sender, recipient, message_id = put(bed)
    text = out(bed, "show", message_id)
    for part in (
        message_id,
        f"<{sender}>",
        f"<{recipient}>",
        "pending",
        bed.inside.name,
        "Subject: to " + recipient,
        "127.0.0.1",
    ):
        assert part in text, (part, text)
    answer = bed.gateway.ask("queue", "show", message_id)
    assert answer["permit"] == "recipient-domain" and answer["helo"] == "client.outside.test"
    assert answer["recipients"][0]["address"] == recipient
    assert answer["header"].startswith("Received: ")


def test_show_has_the_last_reply_once(bed):
    bed.inside.open()
    bed.inside.refuse("rcpt", b"450 4.2.1 come later")
    _, _, message_id = bed.send()
    bed.outcome("deferred", message_id)
    assert out(bed, "show", message_id).count("450 4.2.1") == 1
    assert bed.gateway.ask("queue", "show", message_id)["recipients"][0]["text"] == "450 4.2.1 come later"


def test_control_characters_of_strangers_reach_no_terminal(bed):
    _, recipient = bed.names_of_two()
    content = b"Subject: \x1b[31mred\x1b]0;title\x07\r\n\r\nx\r\n"
    message_id = send(bed.gateway.port, recipient, content)
    wait_until_it_waits(bed, message_id)
    assert "\x1b" not in out(bed, "show", message_id) and "\\x1b" in out(bed, "show", message_id)
    assert "\\u001b" in bed.gateway.run("queue", "show", message_id, "--json").stdout
    # folded by a tab
    assert "\n        by gate.example.test with " in bed.gateway.run("queue", "show", message_id).stdout


def test_retry(bed):
    _, recipient, message_id = put(bed)
    bed.inside.open()
    assert out(bed, "retry", message_id) == "1 message due now\n"
    bed.inside.wait_to(recipient)
    bed.outcome("delivered", message_id)


def test_retry_by_next_hop(bed):
    first, second = put(bed), bed.send()
    wait_until(lambda: bed.gateway.ask("queue", "list")["total"] == 2, "two messages")
    bed.inside.open()
    assert bed.gateway.ask("queue", "retry", "--next-hop", bed.inside.name) == {"count": 2}
    for _, recipient, _ in (first, second):
        bed.inside.wait_to(recipient)


def test_remove(bed):
    sender, recipient, message_id = put(bed)
    before = bed.gateway.ledger()
    assert out(bed, "remove", message_id) == "1 message removed\n"
    after = bed.gateway.ledger()
    assert after["discarded"] == before["discarded"] + 1 and after["queued"] == before["queued"] - 1
    assert bed.row(message_id) is None
    assert bed.gateway.wait_for_event("removed", id=message_id)["by"] == "operator"
    bed.inside.open()
    bed.gateway.run("queue", "retry", "--all")
    _, other, _ = bed.send()
    bed.inside.wait_to(other)
    assert bed.inside.find(recipient) is None and bed.senders.find(sender) is None


def test_remove_all_asks_first(bed):
    put(bed)
    assert bed.gateway.run("queue", "remove", "--all").returncode == 1
    assert bed.gateway.ask("queue", "list")["total"] == 1
    assert out(bed, "remove", "--all", "--yes") == "1 message removed\n"
    assert out(bed, "list") == "the queue is empty\n"


def test_hold_and_release(bed):
    _, recipient, message_id = put(bed)
    assert out(bed, "hold", message_id) == "1 message held\n"
    assert bed.row(message_id)["held"] and "held" in out(bed, "list")
    bed.inside.open()
    bed.gateway.run("queue", "retry", "--all")
    _, other, other_id = bed.send()
    bed.inside.wait_to(other)
    bed.outcome("delivered", other_id)
    assert bed.inside.find(recipient) is None
    wait_until(lambda: bed.gateway.ledger()["queued"] == 1, "the held message is left")
    assert out(bed, "release", message_id) == "1 message released\n"
    bed.inside.wait_to(recipient)


def test_a_held_message_is_held_after_a_restart_too(bed):
    _, recipient, message_id = put(bed)
    bed.gateway.ask("queue", "hold", message_id)
    bed.gateway.halt()
    bed.inside.open()
    bed.gateway.start()
    assert bed.row(message_id)["held"]
    _, other, _ = bed.send()
    bed.inside.wait_to(other)
    assert bed.inside.find(recipient) is None


def test_what_is_not_there_is_said(bed):
    for verb in ("show", "retry", "remove", "hold", "release"):
        done = bed.gateway.run("queue", verb, "00000000000000NONE")
        assert done.returncode == 1, verb
    assert bed.gateway.run("queue", "retry").returncode == 2


def test_fsck_wants_a_stopped_gateway_and_finds_nothing_wrong(bed):
    put(bed)
    refused = bed.gateway.run("queue", "fsck")
    assert refused.returncode == 1 and "in use" in refused.stderr
    bed.gateway.halt()
    done = bed.gateway.run("queue", "fsck")
    assert done.returncode == 0, done.stdout
    assert "1 live messages" in done.stdout and done.stdout.endswith("clean\n")
    report = json.loads(bed.gateway.run("queue", "fsck", "--json").stdout)
    assert report["live"] == 1 and not report["findings"]


def test_ledger_text_balances(bed):
    put(bed)
    done = bed.gateway.run("ledger")
    ledger = bed.gateway.ledger()
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"accepted {ledger['accepted']} = delivered {ledger['delivered']} + ")
    assert ledger["queued"] == 1 and f"queued {ledger['queued']}" in last


def test_the_ledger_outlives_a_restart(bed):
    put(bed)
    before = bed.gateway.ledger()
    bed.gateway.halt()
    bed.gateway.start()
    assert bed.gateway.ledger() == before


def test_a_gateway_that_does_not_run_is_said(bed):
    bed.gateway.halt()
    for command in (("queue", "list"), ("ledger",), ("privs",), ("reload",)):
        done = bed.gateway.run(*command)
        assert done.returncode == 1 and "is it running?" in done.stderr


def test_many_messages_are_listed_whole(bed):
    """An answer of more than one part."""
    for number in range(20):
        send(bed.gateway.port, [f"u{number}-{n}@example.test" for n in range(400)], message("x" * 500))

    def listed() -> list | None:
        rows = bed.gateway.ask("queue", "list")["messages"]
        return rows if len(rows) == 20 and all(row["waiting"] == 400 for row in rows) else None

    rows = wait_until(listed, "all of them")
    assert len(bed.gateway.ask("queue", "show", rows[0]["id"])["recipients"]) == 400
    assert bed.gateway.ask("queue", "remove", "--all", "--yes") == {"count": 20}
