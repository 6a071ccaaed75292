"""What time does to a message: delay notice, expiry, the move to a file of its own, restarts in between."""

from __future__ import annotations

import os
import signal

import pytest
from integration.queuebed import QueueBed, queue_bed
from integration.talk import message, send
from peers import take_port, wait_until

LONG_S = 3600.0


def deferred_files(bed: QueueBed) -> list:
    return sorted((bed.gateway.spool / "deferred").glob("*/*.eml"))


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory):
    """Messages expire after some seconds once `shorten_lives` was called: enough for the DSN, which has no more."""
    directory = tmp_path_factory.mktemp("gate")
    dead = f'[domains."dead.test"]\nnext_hop = "smtp://127.0.0.1:{take_port()}"\n'
    with queue_bed(directory, dead, lifetime_s=LONG_S, next_hop_retry_s=1.0, retry_max_s=1.0, delay_notice_s=0) as bed:
        yield bed


def shorten_lives(bed: QueueBed) -> None:
    bed.gateway.extra = bed.gateway.extra.replace(f"lifetime_s = {LONG_S}\n", "lifetime_s = 5.0\n")
    bed.gateway.write_config()
    assert bed.gateway.run("reload").returncode == 0


def test_an_expired_message_comes_back_to_the_sender(short_lived):
    bed = short_lived
    bed.inside.refuse("rcpt", b"450 4.2.1 mailbox is busy")
    before = bed.gateway.ledger()
    sender, recipient, message_id = bed.send()
    wait_until(lambda: len(bed.gateway.events("deferred")) >= 2, "two attempts")
    shorten_lives(bed)
    row = bed.outcome("expired", message_id)
    assert (row["recipient"], row["status"], row["text"]) == (recipient, "4.2.1", "450 4.2.1 mailbox is busy")
    assert 2 <= row["attempts"] == len(bed.gateway.told("deferred"))
    content = bed.dsn_to(sender).content
    for part in (b"Action: failed\r\n", b"450 4.2.1 mailbox is busy", f"Subject: to {recipient}\r\n".encode()):
        assert part in content
    after = bed.wait_until_empty()
    changes = {key: after[key] - before[key] for key in ("accepted", "expired", "delivered", "bounced")}
    assert changes == {"accepted": 2, "expired": 1, "delivered": 1, "bounced": 0}


def test_a_message_whose_next_hop_never_answered_expires_too(short_lived):
    bed = short_lived
    shorten_lives(bed)
    sender, _ = bed.names_of_two()
    message_id = send(bed.gateway.port, "one@dead.test", reverse_path=sender)
    null = send(bed.gateway.port, "two@dead.test", reverse_path="")
    bed.outcome("expired", message_id)
    assert b"Action: failed\r\n" in bed.dsn_to(sender).content
    bed.outcome("expired", null)
    bed.gateway.wait_for_event("dsn_suppressed", id=null)
    bed.wait_until_empty()
    assert not [row for row in bed.gateway.told("dsn_created") if row["about"] == null]


def test_the_sender_is_told_once_that_it_takes_long(tmp_path):
    with queue_bed(tmp_path, lifetime_s=3600.0, delay_notice_s=1.0) as bed:
        bed.inside.refuse("rcpt", b"450 4.2.1 mailbox is busy")
        sender, recipient, message_id = bed.send()
        notice = bed.gateway.wait_for_event("delay_notice", id=message_id)
        content = bed.dsn_to(sender).content
        for part in (b"Action: delayed\r\n", b"450 4.2.1 mailbox is busy", b"Will-Retry-Until: "):
            assert part in content, part
        bed.outcome("delivered", notice["dsn"])
        pid = bed.gateway.roles()["queue"]
        attempts = len(bed.gateway.events("deferred"))
        bed.gateway.halt()
        bed.gateway.start()
        assert bed.gateway.roles()["queue"] != pid
        wait_until(lambda: len(bed.gateway.events("deferred")) > attempts + 3, "some more attempts")
        bed.inside.accept()
        bed.inside.wait_to(recipient)
        bed.wait_until_empty()
        assert len(bed.gateway.events("delay_notice")) == len(bed.senders.taken) == 1


def test_the_sender_of_a_dead_next_hop_is_told_as_well(tmp_path):
    with queue_bed(tmp_path, lifetime_s=3600.0, delay_notice_s=1.0, next_hop_retry_s=100.0, retry_max_s=200.0) as bed:
        bed.inside.close()
        sender, _, message_id = bed.send()
        bed.gateway.wait_for_event("delay_notice", id=message_id)
        assert b"Action: delayed\r\n" in bed.dsn_to(sender).content


def test_a_message_that_waits_moves_to_a_file_and_is_delivered_from_there(tmp_path):
    """A small one, a large one that lay in a body file, one with several recipients; after a restart and a kill as well."""
    with queue_bed(
        tmp_path, "[smtp]\nbody_file_bytes = 50000\n", defer_after_s=0.0, next_hop_retry_s=600.0, retry_max_s=900.0
    ) as bed:
        bed.inside.close()
        large = message("large", b"0123456789\r\n" * 20_000)
        contents = {"small": message("small", b".dot\r\n..dots\r\n"), "large": large, "many": message("many")}
        ids = {
            name: send(
                bed.gateway.port, [f"{name}{n}@example.test" for n in range(3)], content, reverse_path="s@senders.test"
            )
            for name, content in contents.items()
        }
        wait_until(lambda: len(deferred_files(bed)) == 3, "three files in the deferred store")
        files = {path.stem: path for path in deferred_files(bed)}
        for name, content in contents.items():
            assert files[ids[name]].read_bytes().endswith(content)  # ordinary tools can look at it
        wait_until(
            lambda: not any((bed.gateway.spool / "bodies").glob("*.body")) or bodies_are_spare(bed),
            "no body file is kept",
        )
        bed.gateway.halt()
        assert bed.gateway.run("queue", "fsck").returncode == 0
        bed.gateway.start()
        os.kill(bed.gateway.roles()["queue"], signal.SIGKILL)
        wait_until(lambda: len(bed.gateway.events("recovered")) == 3, "recovery after the kill")
        assert bed.gateway.events("recovered")[-1]["deferred"] == 3
        bed.inside.open()
        wait_until(lambda: bed.gateway.run("queue", "retry", "--all").returncode == 0, "the queue answers")
        for name, content in contents.items():
            assert bed.inside.wait_to(f"{name}1@example.test").content.endswith(content)
        assert bed.wait_until_empty()["delivered"] == 9
        wait_until(lambda: not deferred_files(bed), "the files are removed")
        bed.gateway.events_file.write_text("")  # the death was ours


def bodies_are_spare(bed: QueueBed) -> bool:
    """Body files that are there are empty: handed out, not used."""
    try:
        return all(path.stat().st_size == 0 for path in (bed.gateway.spool / "bodies").glob("*.body"))
    except FileNotFoundError:
        return False  # removed meanwhile: look again


def test_messages_in_segments_outlive_a_restart(tmp_path):
    with queue_bed(tmp_path, next_hop_retry_s=600.0, retry_max_s=900.0) as bed:
        bed.inside.close()
        sent = [bed.send() for _ in range(20)]
        wait_until(lambda: bed.gateway.ledger()["accepted"] == 20, "the queue knows of all of them")
        bed.gateway.halt()
        bed.inside.open()
        bed.gateway.start()
        recovered = bed.gateway.told("recovered")[-1]
        assert (recovered["messages"], recovered["damaged"]) == (20, 0)
        assert bed.gateway.ledger()["accepted"] == 20
        bed.gateway.run("queue", "retry", "--all")
        for sender, recipient, _ in sent:
            assert bed.inside.wait_to(recipient).reverse_path == sender
        bed.wait_until_empty()
        assert len(bed.inside.taken) == 20


def test_a_failure_that_was_in_no_dsn_at_the_crash_is_reported_after_it(tmp_path):
    """The queue dies while the sender's next hop holds the DSN: it is there again after the restart."""
    with queue_bed(tmp_path) as bed:
        bed.senders.held = True
        bed.inside.refuse("rcpt", b"550 5.1.1 unknown")
        sender, _, message_id = bed.send()
        bed.gateway.wait_for_event("dsn_created", about=message_id)
        bed.gateway.kill()
        bed.senders.close()
        bed.senders.held = False
        bed.senders.open()
        bed.gateway.start()
        assert b"Action: failed\r\n" in bed.dsn_to(sender).content
        bed.wait_until_empty()


def test_the_spool_sheds_mail_before_the_disk_is_full(tmp_path):
    """The least free space is asked to be more than the disk has: 452 4.3.1, and what waits goes on."""
    with queue_bed(tmp_path, min_free_bytes=1 << 40) as bed:
        bed.gateway.wait_for_event("queue_health", accepting=False)

        def is_answered(begin: bytes) -> bool:
            replies = bed.gateway.dialog(b"EHLO x.test\r\n", b"MAIL FROM:<a@b.test>\r\n", b"QUIT\r\n")
            return replies[2].startswith(begin)

        wait_until(lambda: is_answered(b"452 4.3.1 "), "452")
        assert bed.gateway.wait_for_event("shed")["code"] == 452
        bed.gateway.extra = bed.gateway.extra.replace(f"min_free_bytes = {1 << 40}\n", "")
        bed.gateway.write_config()
        assert bed.gateway.run("reload").returncode == 0
        wait_until(lambda: is_answered(b"250 "), "mail is taken again")
        _, recipient, _ = bed.send()
        bed.inside.wait_to(recipient)
