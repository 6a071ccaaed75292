"""The administrator's socket: closed to others, bounded, and no request harms the gateway."""

from __future__ import annotations

import json
import os
import socket
import stat

import pytest
from integration.gateway import Gateway

from gatepost.roles.control import MAX_REQUEST_BYTES


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Gateway(tmp_path_factory.mktemp("gate")) as server:
        yield server
        server.assert_no_bugs()


def say(gateway: Gateway, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(gateway.spool / "run" / "control.sock"))
        try:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except ConnectionError:
            return b""


def test_nobody_else_may_open_it(gateway):
    status = os.lstat(gateway.spool / "run" / "control.sock")
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid == os.geteuid()


def test_a_request_without_end_is_cut_off(gateway):
    assert say(gateway, b"x" * (MAX_REQUEST_BYTES + 70_000)) == b""
    assert gateway.ask("status")["problems"] == []


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b'{"what": 5}',
        b"\xff\xfe",
        b'{"what": "remove", "arguments": {"x": {"y": 1}}}',
        b'{"what": "exec"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_request_gets_an_error(gateway, line):
    assert "error" in json.loads(say(gateway, line + b"\n"))
