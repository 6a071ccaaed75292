"""Mail that keeps coming while something happens: one thread, one message after the other, each to a user of its own."""

from __future__ import annotations

import itertools
import threading
from typing import Self

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import Refused, Talk, message

_users = itertools.count(1)


class Load:
    """`with Load(gateway) as load:`; `load.acknowledged` are the recipients whose message was answered 250.

    A connection that is refused or breaks is made anew, a message that is answered 4xx is given up: neither was acknowledged.
    """

    def __init__(self, gateway: Gateway, *, per_connection: int = 3, domain: str = "example.test") -> None:
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._gateway = gateway
        self._per_connection = per_connection
        self._domain = domain
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def wait_until_all_arrived(self, hop: NextHop) -> None:
        """Everything that was acknowledged is at the next hop; each message there is looked at once, as there may be many."""
        missing = set(self.acknowledged)
        looked_at = 0

        def is_all_there() -> bool:
            nonlocal looked_at
            new = hop.taken[looked_at:]
            looked_at += len(new)
            missing.difference_update(*(taken.recipients for taken in new))
            return not missing

        try:
            wait_until(is_all_there, f"what was acknowledged is at {hop.name}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {len(missing)} are missing, such as {min(missing)}") from error

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Talk(self._gateway.port) as talk:
                    talk.hello()
                    for _ in range(self._per_connection):
                        recipient = f"load{next(_users)}@{self._domain}"
                        talk.send(recipient, message(recipient))
                        self.acknowledged.append(recipient)
            except (Refused, OSError) as error:
                self.failures.append(repr(error))
                self._stop.wait(0.01)
