"""`gatepost queue hold` and `release` while an attempt is under way: that attempt is the one, and no second begins beside it."""

from __future__ import annotations

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import message, send


def test_released_while_under_way(tmp_path):
    with NextHop() as inside, Gateway(tmp_path, next_hop=inside.name) as gateway:
        inside.held = True
        seen: list[str] = []
        inside.answer = lambda stage, what: seen.append(stage)  # type: ignore[func-returns-value]
        sent = send(gateway.port, "anna@example.test", message("slow"))
        wait_until(lambda: "data" in seen, "an attempt is under way")
        for _ in range(2):
            gateway.ask("queue", "hold", sent)
            gateway.ask("queue", "release", sent)
        other = send(gateway.port, "berta@example.test", message("behind it"))
        inside.release()
        gateway.wait_for_event("delivered", id=other)
        gateway.wait_for_event("delivered", id=sent)
        wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
        assert sum("anna@example.test" in taken.recipients for taken in inside.taken) == 1
        assert len([row for row in gateway.told("delivered") if row["id"] == sent]) == 1
        gateway.assert_no_bugs()
