"""Asks the running gateway over its control socket: one line of JSON out, one line back.

A configuration file with errors must not keep an operator from the gateway that still runs with the one before: then only the
place of the socket is looked for in the file, and it is said.
"""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Any

import click
import msgspec

from gatepost.cli.output import complain
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Config, Domain, Processes
from gatepost.privsep.control_path import control_path
from gatepost.safeopen import read_regular

WAIT_S = 130.0
TRIES = 4
AGAIN_S = 0.1
ONLY_ASKS = frozenset(
    {
        "ledger",
        "list",
        "recipients_lists",
        "recipients_status",
        "roles",
        "show",
        "stats",
        "status",
        "tls_remembered",
        "tls_report",
        "tls_show",
    }
)  # asked twice, nothing is done twice
_MAX_FILE_BYTES = 1 << 20
_PLACE = re.compile(r"""^[ \t]*(spool|control_socket)[ \t]*=[ \t]*(?:"([^"\\\n]+)"|'([^'\n]+)')""", re.MULTILINE)


class NotRunning(Exception):
    """Nobody answers on the control socket."""


class CutOff(NotRunning):
    """It answered no more: its control process has ended, as that of an old generation does."""


def ask(config: Config, what: str, **arguments: Any) -> Any:
    """The answer as Python data. Raises NotRunning."""
    return ask_at(control_path(config), what, **arguments)


def ask_at(path: str, what: str, **arguments: Any) -> Any:
    """The same, by the path of the socket. A question that ran into the end of an old generation is asked again."""
    for _ in range(TRIES - 1 if what in ONLY_ASKS else 0):
        try:
            return _ask_once(path, what, arguments)
        except CutOff:
            time.sleep(AGAIN_S)
    return _ask_once(path, what, arguments)


def _ask_once(path: str, what: str, arguments: dict[str, Any]) -> Any:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(WAIT_S)
    try:
        sock.connect(path)
        sock.sendall(msgspec.json.encode({"what": what, "arguments": arguments}) + b"\n")
        parts = []
        while block := sock.recv(1 << 20):
            parts.append(block)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise CutOff(f"the gateway on {path} closed the connection without an answer; try again") from error
    except OSError as error:
        raise NotRunning(f"no gateway answers on {path} ({error.strerror or error}); is it running?") from error
    finally:
        sock.close()
    data = b"".join(parts)
    if not data:
        raise CutOff(f"the gateway on {path} closed the connection without an answer; try again")
    return msgspec.json.decode(data)


def ask_or_exit(config_path: str, what: str, **arguments: Any) -> Any:
    """The same for a command: whatever goes wrong is said, and the exit status is 1 (2 for a bad configuration and no gateway)."""
    try:
        answer = ask_at(find_socket(config_path), what, **arguments)
    except NotRunning as error:
        complain(f"gatepost: {error}")
        raise click.exceptions.Exit(1) from error
    if isinstance(answer, dict) and "error" in answer:
        complain(f"gatepost: {answer['error']}")
        raise click.exceptions.Exit(1)
    return answer


def find_socket(config_path: str) -> str:
    """The control socket that a configuration names, also one with errors, if a socket is there; else raises ConfigErrors."""
    try:
        return control_path(load_config(config_path))
    except ConfigErrors:
        path = _named_socket(config_path)
        if path is None:
            raise
        return path


def running_config(config_path: str) -> Config:
    """The configuration, or, if the file has errors, as much of the running gateway's as says what its processes may do."""
    try:
        return load_config(config_path)
    except ConfigErrors:
        path = _named_socket(config_path)
        if path is None:
            raise
    complain(
        f"gatepost: {config_path} has errors (gatepost check); this is the gateway that still runs with the one before"
    )
    try:
        running = ask_at(path, "status")["running"]
    except NotRunning as error:
        complain(f"gatepost: {error}")
        raise click.exceptions.Exit(1) from error
    return Config(
        hostname="",
        listen=[],
        spool=running["spool"],
        domains={str(n): Domain(next_hop=[f"maildir:{root}"]) for n, root in enumerate(running["maildir_roots"])},
        processes=Processes(users=running["users"]),
        sandbox=running["sandbox"],
        sandbox_debug=running["sandbox_debug"],
    )


def _named_socket(config_path: str) -> str | None:
    """A socket that exists, by the lines of the file that say where it is, whatever else is in the file."""
    directory = os.path.dirname(os.path.abspath(config_path))
    try:
        text = read_regular(os.path.abspath(config_path), _MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    named = {match[1]: match[2] or match[3] for match in _PLACE.finditer(text)}
    if not named:
        return None
    path = named.get("control_socket") or os.path.join(named["spool"], "run", "control.sock")
    path = os.path.join(directory, path)
    return path if os.path.exists(path) else None
