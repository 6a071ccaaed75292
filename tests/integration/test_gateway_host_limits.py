"""LIMITS (RFC 9422) of a next hop are obeyed: it never has to refuse for them."""

from __future__ import annotations

from integration.nexthop import EXTENSIONS, NextHop
from integration.queuebed import queue_bed
from integration.talk import HELLO, Talk, message, send


def test_what_a_next_hop_announces_is_kept(tmp_path):
    names = [f"r{number}@many.test" for number in range(7)]
    with NextHop(extensions=(*EXTENSIONS, "LIMITS MAILMAX=2 RCPTMAX=3")) as hop:
        extra = f'[domains."many.test"]\nnext_hop = "{hop.name}"\n'
        with queue_bed(tmp_path, extra) as bed:
            message_id = send(bed.gateway.port, names)
            for name in names:
                hop.wait_to(name)
                bed.outcome("delivered", message_id, recipient=name)
            assert sorted(name for taken in hop.taken for name in taken.recipients) == names
            assert max(len(taken.recipients) for taken in hop.taken) <= 3
            assert len(hop.taken) == 3
            assert hop.connections >= 2
            with Talk(bed.gateway.port) as talk:
                assert b"LIMITS MAILMAX=10000 RCPTMAX=1000\r\n" in talk.say(HELLO, b"250")


def test_one_domain_in_a_transaction(tmp_path):
    names = ["a@one.test", "b@two.test", "c@one.test"]
    with NextHop(extensions=(*EXTENSIONS, "LIMITS RCPTDOMAINMAX=1")) as hop:
        extra = "".join(f'[domains."{name}.test"]\nnext_hop = "{hop.name}"\n' for name in ("one", "two"))
        with queue_bed(tmp_path, extra) as bed:
            send(bed.gateway.port, names, message())
            for name in names:
                hop.wait_to(name)
            assert all(len({name.partition("@")[2] for name in taken.recipients}) == 1 for taken in hop.taken)
            bed.wait_until_empty()
