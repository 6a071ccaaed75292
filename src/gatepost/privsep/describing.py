"""What the supervisor tells the control role of the gateway as a whole: its processes, its state, its counters."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from gatepost import __version__
from gatepost.config.maildirfiles import maildir_roots
from gatepost.config.schema import Config
from gatepost.ipc.messages import Answer
from gatepost.privsep.attest import notes
from gatepost.privsep.child import Child
from gatepost.privsep.watch import Watch

PART_BYTES = 60_000  # of one packet


def describe_roles(children: Iterable[Child], generation: int) -> list[dict[str, Any]]:
    """One row for each process, the supervisor's first."""
    supervisor = {
        "role": "supervisor", "instance": 0, "generation": generation, "pid": os.getpid(), "state": "ready",
        "rights": "", "tries": [],
    }  # fmt: skip
    return [supervisor] + [
        {
            "role": c.role, "instance": c.instance, "generation": c.generation, "pid": c.pid, "state": c.state.value,
            "rights": c.rights, "tries": msgspec.json.decode(c.tries),
        }
        for c in children
    ]  # fmt: skip


def look_at_all(
    watch: Watch, config: Config, children: Collection[Child], generation: int, only_new: bool = False
) -> list[dict[str, Any]]:
    """What the watch finds new in all processes, with the records that the supervisor holds open; `only_new`: if it has not seen one yet."""
    if only_new and watch.has_seen(child.pid for child in children):
        return []
    records = {child.pid: child.records for child in children if child.records is not None}
    return watch.look(config, describe_roles(children, generation), records)


def describe_state(
    config: Config, generation: int, started_s: float, watch: Watch, listen: list[str]
) -> dict[str, Any]:
    """The supervisor's part of `gatepost status`."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "generation": generation,
        "uptime_s": round(time.monotonic() - started_s, 1),
        "listen": listen,
        "sandbox": config.sandbox,
        "sandbox_debug": config.sandbox_debug,
        "notes": notes(config),
        "attestation": watch.last() | {"every_s": config.processes.recheck_s},
        "running": {  # for `gatepost privs` while the file has errors
            "spool": config.spool,
            "users": config.processes.users,
            "maildir_roots": maildir_roots(config),
            "sandbox": config.sandbox,
            "sandbox_debug": config.sandbox_debug,
        },
        "exceptions": [msgspec.to_builtins(exception) for exception in config.exceptions],
    }


def answer_control(child: Child, request: int, data: Any) -> None:
    """Send an answer to the control role, in as many packets as it needs."""
    encoded = msgspec.json.encode(data)
    for at in range(0, len(encoded) or 1, PART_BYTES):
        child.send(Answer(request, encoded[at : at + PART_BYTES], at + PART_BYTES < len(encoded)))
