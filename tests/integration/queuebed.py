"""A gateway between two next hops of the tests: `example.test` goes inside, `senders.test` is where the senders' mail goes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.gateway import Gateway
from integration.nexthop import NextHop, Taken
from integration.talk import message, send

QUICK = {"next_hop_retry_s": 0.2, "retry_min_s": 0.2, "retry_max_s": 0.5}
_numbers = itertools.count(1)


class QueueBed:
    """`gateway`, `inside` and `senders`, and what the tests of the queue do with them."""

    def __init__(self, gateway: Gateway, inside: NextHop, senders: NextHop) -> None:
        self.gateway = gateway
        self.inside = inside
        self.senders = senders

    def names_of_two(self) -> tuple[str, str]:
        """A sender and a recipient that nobody had before."""
        number = next(_numbers)
        return f"s{number}@senders.test", f"r{number}@example.test"

    def send(self, *, body: bytes = b"text\r\n", **more: Any) -> tuple[str, str, str]:
        """A message between two new addresses; sender, recipient, message id."""
        sender, recipient = self.names_of_two()
        return (
            sender,
            recipient,
            send(self.gateway.port, recipient, message("to " + recipient, body), reverse_path=sender, **more),
        )

    def outcome(self, name: str, message_id: str, **fields: Any) -> dict[str, Any]:
        """The event of an outcome."""
        return self.gateway.wait_for_event(name, id=message_id, **fields)

    def dsn_to(self, sender: str) -> Taken:
        """The DSN that the sender gets: it has the null reverse-path."""
        dsn = self.senders.wait_to(sender)
        assert dsn.reverse_path == ""
        assert b"multipart/report" in dsn.content
        return dsn

    def wait_until_empty(self) -> dict[str, int]:
        """Nothing is queued; the ledger, which balances."""
        return self.gateway.wait_until_empty()

    def row(self, message_id: str) -> dict[str, Any] | None:
        """Its row in `gatepost queue list`."""
        rows = self.gateway.ask("queue", "list")["messages"]
        return next((row for row in rows if row["id"] == message_id), None)


def queue_section(**values: Any) -> str:
    """The table [queue], quick unless told otherwise."""
    lines = [f"{key} = {str(value).lower()}" for key, value in (QUICK | {"allow_volatile": True} | values).items()]
    return "[queue]\n" + "\n".join(lines) + "\n"


@contextmanager
def queue_bed(
    directory: Path, extra: str = "", *, port: int = 0, listen: str = "127.0.0.1", **values: Any
) -> Iterator[QueueBed]:
    """Start all of it; `values` are keys of [queue], `extra` is more TOML."""
    with NextHop() as inside, NextHop() as senders:
        domains = f'[domains."senders.test"]\nnext_hop = "{senders.name}"\n'
        gateway = Gateway(directory, next_hop=inside.name, extra=queue_section(**values) + domains + extra)
        gateway.port = port or gateway.port
        gateway.listen = listen
        with gateway:
            yield QueueBed(gateway, inside, senders)
            gateway.ledger()
            gateway.assert_no_bugs()
