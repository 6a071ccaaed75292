"""Measures the embedded spool: durable messages/s, CPU per message, moving to deferred files, recovery.

    python bench/spool.py [--directory DIR] [--messages N] [--deferred N]

It runs in one process, what receiver and queue do one after the other; the figures bound what the daemon can reach.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

from gatepost.config.schema import Queue
from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope, Outcome, Recipient, Result
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.layout import prepare_spool
from gatepost.spool.segment import SegmentWriter, build_record

TRACE = b"Received: from client.example ([192.0.2.1]) by mx.example.test\r\n"
DELIVERED = [Outcome(0, Result.DELIVERED, "body", 250, "2.0.0", "2.0.0 Ok: queued as 4XkD")]
DEFERRED = [Outcome(0, Result.DEFERRED, "connect", 0, "4.4.1", "connection refused", "mail.example[192.0.2.9]:25")]


def build_envelope(number: int) -> Envelope:
    recipient = Recipient(f"user{number}@example.test", "example.test", "smtp://192.0.2.9:25")
    return Envelope(
        f"m{number:015d}", "s0123456789abcde", f"from{number}@example.org", [recipient], time.time(), "192.0.2.1",
        "client.example", "recipient-domain",
    )  # fmt: skip


def receive(spool: JournalSpool, count: int, batch: int, body: bytes, first: int = 0) -> Iterator[Accepted]:
    """Append `count` messages, synced `batch` at a time, as a receiver does; what it would tell the queue."""
    writer: SegmentWriter | None = None
    done = 0
    while done < count:
        if writer is None or writer.length >= spool.config.segment_bytes:
            if writer is not None:
                spool.seal(writer.number, writer.length)
                writer.close()
            number, fd = spool.new_segment("receiver")
            writer = SegmentWriter(fd, number)
        envelopes = [build_envelope(first + done + index) for index in range(min(batch, count - done))]
        records = [build_record(envelope, TRACE, [body], len(TRACE) + len(body)) for envelope in envelopes]
        offsets = writer.append(records)
        writer.sync()
        for envelope, record, offset in zip(envelopes, records, offsets, strict=True):
            end = offset + record.length
            size = len(TRACE) + len(body)
            yield Accepted(writer.number, offset, end, envelope, offset + record.content_start, size)
        done += len(records)
    if writer is not None:
        spool.seal(writer.number, writer.length)
        writer.close()


def open_spool(directory: str, **settings: float) -> JournalSpool:
    prepare_spool(directory, queue_uid=-1, queue_gid=-1, allow_volatile=True)
    spool = JournalSpool(directory, config=Queue(min_free_bytes=0, min_free_inodes=0, **settings))
    spool.recover()
    return spool


def measure_durable(directory: str, batch: int, count: int, size: int) -> float:
    """Messages/s from append to finish, with the receiver's and the queue's group commits."""
    spool = open_spool(directory)
    body = b"x" * size
    started = time.perf_counter()
    pending = 0
    for accepted in receive(spool, count, batch, body):
        for entry in spool.take(accepted):
            spool.source(entry)
            spool.record(entry, DELIVERED, 0.0)
            spool.finish(entry)
        pending += 1
        if pending >= batch:
            spool.commit()
            spool.closed_sources()
            pending = 0
    spool.commit()
    rate = count / (time.perf_counter() - started)
    spool.close()
    return rate


def measure_queue_cpu(directory: str, count: int) -> dict[str, float]:
    """CPU microseconds per message of take, source, record and finish."""
    spool = open_spool(directory)
    messages = list(receive_without_telling(spool, count))
    spent: dict[str, float] = {}
    started = time.process_time()
    entries = [entry for accepted in messages for entry in spool.take(accepted)]
    spent["take"] = time.process_time() - started
    started = time.process_time()
    for entry in entries:
        spool.source(entry)
    spent["source"] = time.process_time() - started
    started = time.process_time()
    for entry in entries:
        spool.record(entry, DELIVERED, 0.0)
    spent["record"] = time.process_time() - started
    started = time.process_time()
    for entry in entries:
        spool.finish(entry)
    spent["finish"] = time.process_time() - started
    spool.close()
    return {name: seconds / count * 1e6 for name, seconds in spent.items()}


def receive_without_telling(spool: JournalSpool, count: int) -> Iterator[Accepted]:
    """Like `receive`, but the segment stays open, so that `take` is what learns of each message."""
    number, fd = spool.new_segment("receiver")
    writer = SegmentWriter(fd, number)
    body = b"x" * 1024
    for index in range(count):
        envelope = build_envelope(index)
        size = len(TRACE) + len(body)
        record = build_record(envelope, TRACE, [body], size)
        offset = writer.append([record])[0]
        yield Accepted(number, offset, offset + record.length, envelope, offset + record.content_start, size)
    writer.sync()
    writer.close()


def measure_deferred(directory: str, count: int, size: int) -> dict[str, float]:
    """Seconds to move `count` messages to deferred files, and to recover them; resident bytes of an entry."""
    spool = open_spool(directory, defer_after_s=-1.0)
    body = b"x" * size
    for accepted in receive(spool, count, 256, body):
        for entry in spool.take(accepted):
            spool.record(entry, DEFERRED, time.time() + 300)
    spool.commit()
    started = time.perf_counter()
    while batch := spool.to_defer(1000):
        spool.defer_to_file(batch)
        spool.commit()
    moved = time.perf_counter() - started
    spool.close()
    before = resident_bytes()
    spool = JournalSpool(directory, config=Queue(min_free_bytes=0, min_free_inodes=0))
    found = spool.recover()
    after = resident_bytes()
    started = time.perf_counter()
    spool.ledger()
    ledger = time.perf_counter() - started
    spool.close()
    return {
        "moved_per_s": count / moved,
        "recovery_s": found.seconds,
        "recovered": found.deferred,
        "bytes_per_entry": (after - before) / count,
        "ledger_ms": ledger * 1e3,
    }


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", default=".", help="where to make the spool; on the disk that is to be measured")
    parser.add_argument("--messages", type=int, default=20000)
    parser.add_argument("--deferred", type=int, default=100000)
    options = parser.parse_args()
    parent = tempfile.mkdtemp(prefix="spool-bench-", dir=options.directory)
    try:
        for batch in (1, 8, 32):
            count = max(500, options.messages * batch // 32)
            rate = measure_durable(f"{parent}/durable{batch}", batch, count, 4096)
            print(f"durable, 4 KiB, batches of {batch:2d}: {rate:8.0f} messages/s")
        spent = measure_queue_cpu(f"{parent}/cpu", options.messages)
        parts = ", ".join(f"{name} {us:.1f}" for name, us in spent.items())
        print(f"queue CPU per message: {sum(spent.values()):.1f} us ({parts})")
        if options.deferred:
            for name, value in measure_deferred(f"{parent}/deferred", options.deferred, 4096).items():
                print(f"{options.deferred} deferred: {name} {value:.2f}")
    finally:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
