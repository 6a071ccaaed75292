"""`mailq`, `sendmail -bp` and `sendmail -q`: the queue, for whoever may ask the gateway; everybody else is told plainly.

Who may: root and whoever can read the configuration and open the control socket. Others are not shown part of the queue, because
even the number of messages and their recipients are other people's.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from gatepost.cli.ask import NotRunning, ask
from gatepost.cli.options import DEFAULT_CONFIG
from gatepost.cli.output import complain, emit
from gatepost.cli.queue import list_lines
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.privsep.control_path import control_path
from gatepost.sendmail.sysexits import EX_NOPERM, EX_OK, EX_TEMPFAIL, EX_USAGE

LIMIT = 100_000


def main() -> None:
    """The entry point of `gatepost-mailq`."""
    sys.exit(print_queue())


def print_queue() -> int:
    """Print all of it; returns the exit status."""
    answer = _ask("mailq", "list", limit=LIMIT)
    if isinstance(answer, int):
        return answer
    emit(answer, False, list_lines(answer))
    return EX_OK


def flush_queue() -> int:
    """Have all of it tried now, as `gatepost queue retry --all` does; returns the exit status."""
    answer = _ask("sendmail -q", "retry", all=True)
    return answer if isinstance(answer, int) else EX_OK


def _ask(command: str, what: str, **arguments: Any) -> Any:
    """The gateway's answer, or the exit status if this user gets none, which has been said."""
    path = os.environ.get("GATEPOST_CONFIG") or DEFAULT_CONFIG
    if not _may(path, os.R_OK):
        return _refuse(command, EX_NOPERM, f"not permitted: the queue is shown to who may read {path}")
    try:
        config = load_config(path)
    except ConfigErrors as errors:
        return _refuse(command, EX_USAGE, str(errors))
    socket_path = control_path(config)
    if not _may(socket_path, os.W_OK):
        return _refuse(command, EX_NOPERM, f"not permitted: the queue is shown to who may open {socket_path}")
    try:
        answer = ask(config, what, **arguments)
    except NotRunning as error:
        return _refuse(command, EX_TEMPFAIL, str(error))
    if "error" in answer:
        return _refuse(command, EX_TEMPFAIL, str(answer["error"]))
    return answer


def _may(path: str, right: int) -> bool:
    """Whether this user may; what is not there nobody forbids."""
    try:
        os.stat(path)
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, right)


def _refuse(command: str, status: int, text: str) -> int:
    complain(*(f"{command}: {line}" for line in text.splitlines()))
    return status
