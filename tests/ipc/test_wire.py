"""What a role may send another in one go is bounded, and more is fatal to the reader rather than to its memory."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import pytest

from gatepost.ipc import wire
from gatepost.ipc.messages import Answer, Link, LookupDone
from gatepost.ipc.wire import Channel, PacketReader, WireError, packets_of, send_blocking


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_an_array_without_end_is_cut_off_at_its_limit(pair, monkeypatch):
    ours, theirs = pair
    monkeypatch.setattr(wire, "MAX_ARRAY_BYTES", 3 * wire.PART_BYTES)
    reader = PacketReader(theirs)
    part = b"\x01" + bytes(wire.PART_BYTES)  # "more follows", for ever
    taken = 0
    with pytest.raises(WireError):
        for _ in range(10):
            ours.send(part)
            reader.read()
            taken += 1
    assert taken <= 3


def test_a_large_message_arrives_whole(pair):
    ours, theirs = pair
    reader = PacketReader(theirs)
    data = os.urandom(250_000)
    got: list = []
    for packet in packets_of([Answer(1, data)]):
        ours.send(packet)
        got += reader.read()[0]
    assert got == [Answer(1, data)]


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\x00\xc1", b"\x00\x91\x91\xa4Evil", b"\x00\x93"])
def test_garbage_is_the_end_of_the_reader_and_nothing_else(pair, garbage):
    ours, theirs = pair
    ours.send(garbage) if garbage else ours.shutdown(socket.SHUT_WR)
    with pytest.raises((WireError, wire.LinkClosed)):
        PacketReader(theirs).read()


def test_descriptors_come_with_their_message(pair):
    ours, theirs = pair
    with open(os.devnull, "rb") as file:
        send_blocking(ours, Link("queue", 0, 0), [file.fileno()])
    messages, descriptors = PacketReader(theirs).read()
    assert messages == [Link("queue", 0, 0)] and len(descriptors) == 1
    os.close(descriptors[0])


class Loop:
    """Calls nothing by itself."""

    def __init__(self):
        self.soon = []
        self.writers = 0

    def add_reader(self, descriptor, call):
        self.readable = call

    def remove_reader(self, descriptor):
        pass

    def add_writer(self, descriptor, call):
        self.writers += 1

    def remove_writer(self, descriptor):
        self.writers -= 1

    def call_soon(self, call, *arguments):
        self.soon.append((call, arguments))


def channel_on(sock, lost=None, taken=None):
    return Channel(
        sock,
        Loop(),
        peer=("resolver", 0, 0),
        accepts=frozenset({LookupDone, Link}),
        on_message=lambda channel, message, descriptors: taken.append(message),
        on_lost=lambda channel: lost.append(channel.peer),
    )


def test_a_descriptor_that_a_dying_disk_will_not_close_says_nothing_of_the_peer(pair, monkeypatch):
    ours, theirs = pair
    closed, lost = [], []

    def close_with_error(descriptor: int) -> None:
        closed.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    channel = channel_on(ours, lost=lost)
    monkeypatch.setattr(wire.os, "close", close_with_error)
    with open(os.devnull, "rb") as file:
        channel.post(Link("queue", 0, 0), [file.fileno()])
        channel.flush()
    monkeypatch.undo()
    assert len(closed) == 1
    messages, descriptors = PacketReader(theirs).read()
    assert messages == [Link("queue", 0, 0)] and len(descriptors) == 1
    for descriptor in (*descriptors, *closed):
        os.close(descriptor)
    assert channel.is_open and not [call for call, _ in channel._loop.soon if call == channel.lost]


def test_descriptors_that_belong_to_no_message_end_the_reader_and_are_closed(pair):
    ours, theirs = pair
    taken = []
    channel = channel_on(theirs, taken=taken)
    before = count_nulls()
    with open(os.devnull, "rb") as file:
        for batch in ([LookupDone(1, "ok", [], 0)], [Link("queue", 0, 0), Link("queue", 0, 0)]):
            (packet,) = packets_of(batch)
            socket.send_fds(ours, [packet], [file.fileno()] * 5)
            with pytest.raises(WireError):
                channel._loop.readable()
    assert taken == [] and count_nulls() == before


def count_nulls() -> int:
    """Descriptors of the null device: those of a server that another test has left may go meanwhile."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return links.count(os.devnull)


def test_a_peer_that_does_not_read_is_given_up(pair, monkeypatch):
    ours, _ = pair
    monkeypatch.setattr(wire, "MAX_BLOCKED_BYTES", 10 * wire.PART_BYTES)
    lost = []
    channel = channel_on(ours, lost=lost)
    for number in range(100):
        channel.post(LookupDone(number, "ok", ["x" * wire.PART_BYTES], 0))
        channel.flush()
        for call, arguments in channel._loop.soon:
            call(*arguments)
        channel._loop.soon.clear()
        if lost:
            break
    assert lost == [("resolver", 0, 0)] and number < 20 and not channel.is_open
    assert channel._loop.writers == 0
