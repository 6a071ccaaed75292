"""Which role processes a configuration asks for, which of them are linked, and what a reload cannot change. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gatepost.config.maildirfiles import maildir_roots
from gatepost.config.schema import Config
from gatepost.privsep.roles import are_peers


@dataclass(frozen=True, slots=True)
class Placement:
    """One role process to be started; `root` is its Maildir root, for that role only."""

    role: str
    instance: int
    generation: int
    root: str = ""


def placements(config: Config, generation: int) -> list[Placement]:
    """Everything that is to run, the queue first: its recovery takes longest."""
    result = [Placement("queue", 0, 0), Placement("resolver", 0, generation), Placement("control", 0, generation)]
    result += [Placement("deliverer", i, generation) for i in range(config.processes.deliverers)]
    result += [Placement("maildir", i, generation, root) for i, root in enumerate(maildir_roots(config))]
    result += [Placement("receiver", i, generation) for i in range(config.processes.receivers)]
    return result


def are_wired(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    """Whether two role processes are linked: peers of one generation, and the queue with every generation."""
    if not are_peers(one[0], other[0]):
        return False
    return one[2] == other[2] or "queue" in (one[0], other[0])


def changes_needing_restart(old: Config, new: Config) -> list[str]:
    """What a reload may not change, because files or sockets of the running gateway hang on it."""
    problems = []
    for key in ("spool", "control_socket", "sandbox", "sandbox_debug"):
        if getattr(old, key) != getattr(new, key):
            problems.append(f"{key} cannot be changed by a reload; restart the gateway")
    if old.processes.users != new.processes.users:
        problems.append("processes.users cannot be changed by a reload; restart the gateway")
    return problems
