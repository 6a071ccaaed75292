"""Mail that is held by its route: accepted, listed with the reason, kept over a restart, sent on when it is released."""

from __future__ import annotations

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import message, send


def test_held_until_released(tmp_path):
    with NextHop() as inside:
        domains = f'[domains."later.test"]\nnext_hop = "hold:{inside.name}"\n'
        with Gateway(tmp_path, next_hop=inside.name, extra=domains) as gateway:
            held = send(gateway.port, "anna@later.test", message("held"))
            send(gateway.port, "anna@example.test", message("not held"))
            inside.wait_to("anna@example.test")
            gateway.wait_for_event("held", id=held, reason="held by its route")
            row = next(row for row in gateway.ask("queue", "list")["messages"] if row["id"] == held)
            assert (row["held"], row["reason"], row["next_hops"]) == (True, "held by its route", [inside.name])
            gateway.halt()
            gateway.start()
            row = next(row for row in gateway.ask("queue", "list")["messages"] if row["id"] == held)
            assert row["held"]
            assert "held, 0 attempts" in gateway.run("queue", "list").stdout
            assert gateway.run("queue", "release", held).returncode == 0
            inside.wait_to("anna@later.test")
            gateway.wait_for_event("delivered", id=held)
            gateway.halt()
            gateway.start()
            assert gateway.ledger()["queued"] == 0
            gateway.assert_no_bugs()


def test_a_release_survives_a_kill(tmp_path):
    """Released while its next hop is down: a queue that comes back must not hold it again."""
    with NextHop() as inside:
        domains = f'[domains."later.test"]\nnext_hop = "hold:{inside.name}"\n'
        with Gateway(tmp_path, next_hop=inside.name, extra=domains) as gateway:
            held = send(gateway.port, "anna@later.test", message("held"))
            gateway.wait_for_event("held", id=held)
            inside.close()
            assert gateway.run("queue", "release", held).returncode == 0
            gateway.wait_for_event("deferred", id=held)
            gateway.kill(with_roles=True)
            inside.open()
            gateway.start()
            inside.wait_to("anna@later.test")
            gateway.wait_for_event("delivered", id=held)
