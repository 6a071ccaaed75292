"""A reload that the supervisor has begun: what it goes back to, whom it answers and when; and what the queue must know of generations.

Not here: how it goes (`supervisor.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gatepost.config.encoded import encode_config
from gatepost.config.schema import Config
from gatepost.ipc import messages as m
from gatepost.privsep.child import Child


class Generations:
    """The configurations of generations that were superseded: their receivers go on with their routes, and the queue has to know those."""

    def __init__(self) -> None:
        self._superseded: dict[int, Config] = {}

    def supersede(self, generation: int, config: Config, children: Iterable[Child]) -> None:
        """Keep the configuration of a generation that ends now."""
        self._superseded[generation] = config
        self._forget(children)

    def extra_of_queue(self, generation: int, children: Iterable[Child]) -> dict[str, str]:
        """What its Start says of them: whose configuration it has got, and the receivers that live."""
        living = [c for c in children if c.role == "receiver"]
        names = " ".join(f"receiver/{c.instance}/{c.generation}/{c.pid}" for c in living)
        return {"generation": str(generation), "receivers": names}

    def tell(self, child: Child, children: Iterable[Child]) -> None:
        """In front of its links: a queue that was started again gets what its predecessor knew."""
        self._forget(children)
        for generation, config in self._superseded.items() if child.role == "queue" else ():
            child.send(m.OldGeneration(generation, encode_config(config, "queue")))

    def _forget(self, children: Iterable[Child]) -> None:
        living = {child.generation for child in children if child.role == "receiver"}
        self._superseded = {number: config for number, config in self._superseded.items() if number in living}


class PendingReload:
    """A reload under way."""

    def __init__(
        self, generation: int, old_config: Config, asked_by: Child | None, request: int, newly_bound: list[str]
    ) -> None:
        self.generation = generation
        self.old_config = old_config
        self.newly_bound = newly_bound
        self._asked_by = asked_by
        self._request = request

    def answer(self, errors: list[str]) -> None:
        if self._asked_by is not None:
            self._asked_by.send(m.ReloadDone(self._request, errors))


class Succession:
    """A generation has taken over: the reload has ended when no receiver and no control of an older one accepts a connection any more.

    They all accept from the same sockets: whoever connected before could still be served by the configuration of before, although
    the reload had been answered; and the next command of an operator could run into the end of the old control.
    """

    def __init__(self, children: Mapping[tuple[str, int, int], Child], ended: Callable[[], None]) -> None:
        self._children = children
        self._ended = ended
        self._pending: PendingReload | None = None

    @property
    def is_open(self) -> bool:
        """Whether one is waited for."""
        return self._pending is not None

    def begin(self, pending: PendingReload) -> None:
        """The older generations have been told to drain."""
        self._pending = pending
        self.check()

    def check(self) -> None:
        """A receiver or control has closed its doors, or a process has ended."""
        if (pending := self._pending) is not None and all(
            child.has_closed or child.generation >= pending.generation for child in self._children.values()
        ):
            self.end(pending)

    def end(self, pending: PendingReload) -> None:
        """Answer now, also if it was waited for too long."""
        if self._pending is pending:
            self._pending = None
            self._ended()
            pending.answer([])
