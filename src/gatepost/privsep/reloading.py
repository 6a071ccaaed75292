"""A reload that the supervisor has begun: what it goes back to, and whom it answers. Not here: how it goes (`supervisor.py`)."""

from __future__ import annotations

from gatepost.config.schema import Config
from gatepost.ipc import messages as m
from gatepost.privsep.child import Child


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
