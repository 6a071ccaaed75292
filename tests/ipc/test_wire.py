"""What a role may send another in one go is bounded, and more is fatal to the reader rather than to its memory."""

from __future__ import annotations

import os
import socket

import pytest

from gatepost.ipc import wire
from gatepost.ipc.messages import Answer, Link
from gatepost.ipc.wire import PacketReader, WireError, packets_of, send_blocking


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
