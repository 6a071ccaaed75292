"""A pool of next hops of the running gateway: the spread by weight, a member that goes away and comes back, all of them gone."""

from __future__ import annotations

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import message, send


def pool(*hops: tuple[NextHop, int], **settings: float) -> str:
    lines = ["[pools.inside]", *(f"{key} = {value}" for key, value in settings.items())]
    for hop, weight in hops:
        lines += ["[[pools.inside.members]]", f'next_hop = "{hop.name}"', f"weight = {weight}"]
    return "\n".join(lines) + "\n"


def test_weights_and_failover(tmp_path):
    with NextHop() as one, NextHop() as two:
        extra = pool((one, 2), (two, 1), retry_s=0.2)
        with Gateway(tmp_path, next_hop="pool:inside", extra=extra) as gateway:
            for number in range(30):
                send(gateway.port, f"r{number}@example.test", message(str(number)))
            wait_until(lambda: len(one.taken) + len(two.taken) == 30, "all are delivered")
            assert (len(one.taken), len(two.taken)) == (20, 10)
            assert (
                "pool:inside"
                in gateway.run("explain", "--ip", "127.0.0.1", "--from", "a@b.test", "--to", "x@example.test").stdout
            )
            one.close()
            for number in range(10):
                send(gateway.port, f"s{number}@example.test", message(str(number)))
            wait_until(lambda: len(two.taken) == 20, "the other one takes all of it")
            gateway.wait_for_event("pool_member", member=one.name, state="down")
            one.open()

            def came_back() -> bool:
                send(gateway.port, "back@example.test", message("back"))
                return any(row["state"] == "up" for row in gateway.events("pool_member"))

            wait_until(came_back, "the first one is used again")
            gateway.wait_for_event("pool_member", member=one.name, state="up")
            one.close()
            two.close()
            lost = send(gateway.port, "nobody@example.test", message("later"))
            text = gateway.wait_for_event("deferred", id=lost)["text"]
            assert (
                text.startswith("no member of the pool inside can be reached (")
                and one.name in text
                and two.name in text
            )
            one.open()
            two.open()
            gateway.wait_for_event("delivered", id=lost)
            wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
            gateway.assert_no_bugs()
