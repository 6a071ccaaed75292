"""The probe for DANE: what is told, once for each change, and that it asks again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatepost.config.schema import Config, Dns, Domain, Tls
from gatepost.ipc.messages import LookupDone
from gatepost.roles.daneprobe import AGAIN_S, SOON_S, DaneProbe
from gatepost.roles.remembering import is_name


class Loop:
    """Calls later when told."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.later.append((0.0, call))

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.later.append((delay_s, call))

    def run(self) -> float:
        delay_s, call = self.later.pop(0)
        call()
        return delay_s


class Resolver:
    def __init__(self, *answers: LookupDone, trusts_ad: bool = True) -> None:
        self.answers, self.trusts_ad = list(answers), trusts_ad
        self.asked: list[tuple[str, str]] = []

    def submit(self, kind: str, name: str, waiter: Callable[[LookupDone], None]) -> None:
        self.asked.append((kind, name))
        waiter(self.answers.pop(0))


SECURE, INSECURE = LookupDone(0, "ok", ["x"], 60, True), LookupDone(0, "ok", ["x"], 60, False)
DOWN = LookupDone(0, "tempfail", [], 0, reason="no answer")


def probe(resolver: Resolver, outbound: str = "best", name: str = "signed.test"):
    config = Config(
        hostname="g.test",
        listen=[],
        spool="/s",
        domains={"a.test": Domain(next_hop=["mx"])},
        dns=Dns(probe=name),
        tls=Tls(outbound=outbound),
    )
    loop, events = Loop(), []
    made = DaneProbe(config, resolver, loop, lambda event, **fields: events.append((event, fields["in_effect"])))
    made.begin()
    return made, loop, events


def test_a_change_is_told_once_and_it_asks_again():
    resolver = Resolver(DOWN, DOWN, SECURE, SECURE, INSECURE)
    made, loop, events = probe(resolver)
    assert events == [] and resolver.asked == []  # the start does not wait
    delays = [loop.run() for _ in range(5)]
    assert delays == [0.0, SOON_S, SOON_S, AGAIN_S, AGAIN_S]
    assert events == [("dane", False), ("dane", True), ("dane", False)]
    assert set(resolver.asked) == {("SOA", "signed.test")}
    assert made.state.startswith("not in effect: the DNS servers do not say")


@pytest.mark.parametrize(
    ("options", "state", "told"),
    [
        ({"outbound": "encrypt"}, "not asked for by any policy", []),
        ({"name": ""}, "not known: dns.probe is empty", []),
    ],
)
def test_where_there_is_nothing_to_ask(options, state, told):
    resolver = Resolver()
    made, loop, events = probe(resolver, **options)
    assert (made.state, events, loop.later, resolver.asked) == (state, told, [], [])


def test_servers_that_are_not_believed_are_not_asked():
    resolver = Resolver(trusts_ad=False)
    made, _, events = probe(resolver)
    assert events == [("dane", False)] and "loopback" in made.state and not resolver.asked


@pytest.mark.parametrize(("text", "good"), [("a.test", True), ("a b", False), ("\x1b[1m", False), ("ä.test", False)])
def test_what_may_be_remembered(text, good):
    assert is_name(text) is good
