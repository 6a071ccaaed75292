"""The event log: lines that stand for themselves, never forged, never in the way; and the table that everyone keeps to."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

import gatepost
from gatepost import events
from gatepost.events import EventLog, UnknownEvent, open_output
from gatepost.eventtable import EVENTS

SOURCE = Path(gatepost.__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.log"


@pytest.fixture
def log(path):
    fd = open_output(str(path))
    yield EventLog(fd, "queue", 2, strict=True, clock=lambda: 1_700_000_000.1239)
    os.close(fd)


@pytest.fixture
def pipe():
    """A pipe of 4 KiB whose reading end does not block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


def read(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line(log, path):
    log.event("delivered", id="M1", recipient="user@example.test", code=250, delay_s=0.5)
    assert path.read_bytes() == b""
    log.flush()
    assert path.read_bytes() == (
        b'{"time":"2023-11-14T22:13:20.123Z","event":"delivered","role":"queue","instance":2,'
        b'"id":"M1","recipient":"user@example.test","code":250,"delay_s":0.5}\n'
    )


def test_lines_keep_their_order_and_come_once(log, path):
    for number in range(10):
        log.event("accepted", id=f"M{number}")
        if number % 3 == 0:
            log.flush()
    log.close()
    assert [line["id"] for line in read(path)] == [f"M{number}" for number in range(10)]


def test_an_event_without_fields(log, path):
    log.event("queue_health")
    log.flush()
    assert read(path)[0]["event"] == "queue_health"


def test_time_passes_between_two_flushes(path):
    moments = iter([10.0, 10.25, 11.5])
    fd = open_output(str(path))
    log = EventLog(fd, "queue", clock=lambda: next(moments))
    for _ in range(3):
        log.event("queue_health")
        log.event("queue_health")
        log.flush()
    os.close(fd)
    assert [line["time"][-7:] for line in read(path)] == ["10.000Z"] * 2 + ["10.250Z"] * 2 + ["11.500Z"] * 2


@pytest.mark.parametrize("call", [("nothing", {}), ("accepted", {"colour": "red"})])
def test_what_is_not_in_the_table_is_an_error_in_tests(log, call):
    with pytest.raises(UnknownEvent):
        log.event(call[0], **call[1])


def test_what_is_not_in_the_table_is_noted_in_production(path):
    fd = open_output(str(path))
    log = EventLog(fd, "queue")
    log.event("nothing", id="M1")
    log.event("accepted", id="M2", colour="red")
    log.flush()
    os.close(fd)
    first, second, third = read(path)
    assert (first["event"], first["name"]) == ("event_unknown", "nothing")
    assert second["fields"] == ["colour"]
    assert (third["event"], third["id"], third["colour"]) == ("accepted", "M2", "red")


HOSTILE = 'x\r\n{"event":"accepted"}\x00\x1b[2J\x7f\x9b31m\u202e\u2028\u2066 é 語 \U0001f600 \U000e0001 "\\'


def test_no_text_forges_a_line_or_drives_a_terminal(log, path):
    log.event("reply_refused", text=HOSTILE, helo="bücher.test")
    log.flush()
    data = path.read_bytes()
    (line,) = read(path)
    assert line["text"] == HOSTILE
    assert data.decode().removesuffix("\n").isprintable()
    assert "é 語 \U0001f600".encode() in data
    assert "bücher.test".encode() in data


@pytest.mark.parametrize(
    "value", ["a\ud800b", b"\xff\xfe", object(), {1, 2}, [1, "\udcff"], float("nan"), {"a": 2 << 70}]
)
def test_no_value_breaks_a_line(log, path, value):
    log.event("error", reason=value)
    log.event("error", reason="next")
    log.flush()
    first, second = read(path)
    assert "reason" in first
    assert second["reason"] == "next"


@pytest.mark.parametrize("text", ["x" * 100_000, "é\x9b" * 50_000, ["y" * 100] * 1000])
def test_a_line_that_is_too_long_is_cut(log, path, text):
    log.event("error", id="M1", reason=text, trace=text)
    log.flush()
    (line,) = read(path)
    assert line["cut"] is True
    assert len(path.read_bytes()) <= events.MAX_LINE_BYTES
    assert line["event"] == "error"


def test_of_a_long_text_both_ends_stay(log, path):
    log.event("bug", why="first" + "x" * 10_000 + "last")
    log.event("error", id="M1", reason="first" + "\x9b" * 10_000 + "last")
    log.flush()
    one, two = read(path)
    for text in (one["why"], two["reason"]):
        assert text.startswith("first") and text.endswith("last")
    assert len(one["why"]) > 2000
    assert two["id"] == "M1"


def test_a_line_of_too_many_long_fields_is_cut_to_its_name(log, path):
    log.event("deferred", **dict.fromkeys(EVENTS["deferred"], "\x9b" * 5000))
    log.flush()
    (line,) = read(path)
    assert (line["event"], line["cut"]) == ("deferred", True)


def test_a_full_pipe_does_not_block_and_loses_nothing_up_to_the_limit(pipe):
    reader, writer = pipe  # a blocking writer: the log has to look before it writes
    log = EventLog(writer, "queue", strict=True)
    for number in range(3000):
        log.event("accepted", id=f"M{number}", helo="h" * 50)
    log.flush()
    log.flush()
    assert log.lost == 0
    data = b""
    while True:
        try:
            data += os.read(reader, 65536)
        except BlockingIOError:
            break
        log.flush()
    assert [json.loads(line)["id"] for line in data.splitlines()] == [f"M{number}" for number in range(3000)]


def test_writes_to_a_pipe_are_whole_lines_of_at_most_pipe_buf(pipe, monkeypatch):
    _, writer = pipe
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (written.append(data), write(fd, data))[1])
    log = EventLog(writer, "queue", strict=True)
    for number in range(100):
        log.event("accepted", id=f"M{number}", helo="h" * (number * 37 % 1500))
    log.flush()
    assert len(written) > 5
    assert all(len(data) <= events.MAX_LINE_BYTES and data.endswith(b"\n") for data in written)


def test_a_file_gets_one_write(log, monkeypatch):
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (written.append(data), write(fd, data))[1])
    for number in range(1000):
        log.event("accepted", id=f"M{number}")
    log.flush()
    log.flush()
    assert len(written) == 1


def test_what_is_lost_is_counted_and_told(pipe, monkeypatch):
    monkeypatch.setattr(events, "MAX_KEPT_BYTES", 100_000)
    reader, writer = pipe
    log = EventLog(writer, "queue", strict=True)
    for number in range(5000):
        log.event("accepted", id=f"M{number}", helo="h" * 50)
        log.flush()
    assert log.lost > 0
    lost = log.lost
    data = b""
    for _ in range(200):
        try:
            data += os.read(reader, 65536)
        except BlockingIOError:
            pass
        log.flush()
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[-1]["event"] == "events_lost"
    assert lines[-1]["count"] == lost
    assert len(lines) - 1 + lost == 5000


def test_a_reader_that_is_gone_is_no_harm(pipe):
    reader, writer = pipe
    log = EventLog(writer, "queue", strict=True)
    os.close(reader)
    for _ in range(10):
        log.event("accepted", id="M1")
        log.flush()
    log.close()
    assert log.lost == 10


def test_a_write_that_was_cut_short_goes_on_where_it_stopped(log, path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:70]))
    for number in range(5):
        log.event("accepted", id=f"M{number}")
    for _ in range(20):
        log.flush()
    assert [line["id"] for line in read(path)] == [f"M{number}" for number in range(5)]


def test_a_full_disk_keeps_the_lines(log, path, monkeypatch):
    def full(fd, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.event("accepted", id="M1")
        log.flush()
    log.flush()
    assert [line["id"] for line in read(path)] == ["M1"]


def test_replace_writes_to_another_file(log, tmp_path, path):
    log.event("accepted", id="M1")
    log.flush()
    other = open_output(str(tmp_path / "other.log"))
    old = log.replace(other)
    log.event("accepted", id="M2")
    log.flush()
    log.replace(old)
    os.close(other)
    assert [line["id"] for line in read(path)] == ["M1"]
    assert [line["id"] for line in read(tmp_path / "other.log")] == ["M2"]


def test_the_file_is_not_for_everyone_and_no_link(tmp_path):
    os.close(open_output(str(tmp_path / "a.log")))
    assert (tmp_path / "a.log").stat().st_mode & 0o037 == 0
    (tmp_path / "link.log").symlink_to(tmp_path / "a.log")
    with pytest.raises(OSError):
        open_output(str(tmp_path / "link.log"))


def test_stderr_is_not_made_non_blocking():
    before = os.get_blocking(2)
    os.close(open_output("stderr"))
    assert os.get_blocking(2) == before


def calls():
    """Every call of `….event("name", field=…)` in the sources."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "event"
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


def test_every_event_in_the_sources_is_in_the_table():
    wrong = []
    for place, node in calls():
        name = node.args[0].value
        strange = {keyword.arg for keyword in node.keywords if keyword.arg} - set(EVENTS.get(name, ()))
        if name not in EVENTS or strange:
            wrong.append(f"{place}: {name} {sorted(strange)}")
    assert not wrong


def test_the_table_is_well_formed():
    for name, fields in EVENTS.items():
        assert name.isidentifier() and name == name.lower()
        assert fields
        assert not set(fields) & {"time", "event", "role", "instance", "cut"}
        assert all(meaning for meaning in fields.values())
