"""Asks the running gateway over its control socket: one line of JSON out, one line back."""

from __future__ import annotations

import socket
from typing import Any

import click
import msgspec

from gatepost.cli.output import complain
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.privsep.control_path import control_path

WAIT_S = 130.0


class NotRunning(Exception):
    """Nobody answers on the control socket."""


def ask(config: Config, what: str, **arguments: Any) -> Any:
    """The answer as Python data. Raises NotRunning."""
    path = control_path(config)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(WAIT_S)
    try:
        sock.connect(path)
        sock.sendall(msgspec.json.encode({"what": what, "arguments": arguments}) + b"\n")
        parts = []
        while block := sock.recv(1 << 20):
            parts.append(block)
    except OSError as error:
        raise NotRunning(f"no gateway answers on {path} ({error.strerror or error}); is it running?") from error
    finally:
        sock.close()
    data = b"".join(parts)
    if not data:
        raise NotRunning(f"the gateway on {path} closed the connection without an answer; try again")
    return msgspec.json.decode(data)


def ask_or_exit(config_path: str, what: str, **arguments: Any) -> Any:
    """The same for a command: whatever goes wrong is said, and the exit status is 1 (2 for a bad configuration)."""
    try:
        answer = ask(load_config(config_path), what, **arguments)
    except NotRunning as error:
        complain(f"gatepost: {error}")
        raise click.exceptions.Exit(1) from error
    if isinstance(answer, dict) and "error" in answer:
        complain(f"gatepost: {answer['error']}")
        raise click.exceptions.Exit(1)
    return answer
