"""The resolver role: answers questions of other roles, of DNS and of tables that are asked over the network. Sees no message."""

from __future__ import annotations

from typing import Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.net.dns import StubResolver
from gatepost.roles.skeleton import Role


class Resolver(Role):
    """Wiring only; see `net/dns.py`."""

    def begin(self) -> None:
        self.resolver = StubResolver(self.start.extra.get("servers", "").split(), self.config.dns, loop=self.loop)
        self.counts = {"questions": 0}

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        self.counts["questions"] += 1
        number = message.query  # type: ignore[attr-defined]
        if type(message) is m.TableLookup:
            channel.post(m.TableLookupDone(number, [], f"there is no table {message.table}"))
            return

        def answered(done: m.LookupDone) -> None:
            done.query = number
            channel.post(done)
            if done.status == "tempfail":
                self.event("resolver_trouble", name=message.name, kind=message.kind, reason=done.reason)  # type: ignore[attr-defined]

        try:
            self.resolver.submit(message.kind, message.name, answered)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - the one broad catch of a question: whoever asks must hear something
            self.event("internal_error", what=f"lookup of {message.name}", error=repr(error))  # type: ignore[attr-defined]
            channel.post(m.LookupDone(number, "tempfail", [], 0, False, "internal error"))

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        return self.counts if what == "stats" else super().answer(what, arguments)
