"""Servers that tables are asked of over the network, kept for all tests of a file: making one takes longer than a test."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Self

from certificates import Authority
from webserver import WebServer


class Web(WebServer):
    """A web service, halted and started as the other servers are."""

    @property
    def process(self) -> Any:
        """None if it does not run."""
        return self._server

    def halt(self) -> None:
        self.close()

    def start(self) -> None:
        self.open()


class TableServers:
    """By their class; each has one set of rows and a certificate for localhost."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._made: dict[Any, Any] = {}
        self._stack = contextlib.ExitStack()

    def running(self, make: Any, rows: Mapping[str, str]) -> Any:
        """The one of this class, with these rows when it is made; a test before may have halted it."""
        if make not in self._made:
            certificate = self._authority.issue(make.__name__, ["DNS:localhost"])
            self._made[make] = self._stack.enter_context(make(rows, certificate))
        elif self._made[make].process is None:
            self._made[make].start()
        return self._made[make]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
