"""Roles that do not answer: they are noticed, killed and started again, and mail goes on."""

from __future__ import annotations

import os
import signal

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import Talk, message

LIMIT_S = 5
HUNG = ("queue", "receiver", "resolver")


def test_roles_that_hang_are_killed_and_started_again(tmp_path):
    extra = f"[processes]\nhang_limit_s = {LIMIT_S}\n"
    with NextHop() as hop, Gateway(tmp_path, next_hop=hop.name, extra=extra) as gateway:
        before = {role: gateway.roles()[role] for role in HUNG}
        for pid in before.values():
            os.kill(pid, signal.SIGSTOP)
        for role, pid in before.items():
            hung = gateway.wait_for_event("role_hung", pid=pid)
            assert hung["why"] == f"its event loop has not answered for {LIMIT_S} s" and hung["name"] == role
            # SIGABRT, at which it would say where it is stuck, does nothing to one that is stopped
            assert gateway.wait_for_event("role_died", pid=pid)["why"] == "killed by SIGKILL"
        wait_until(lambda: all(gateway.roles()[role] != pid for role, pid in before.items()), "all are back")
        with Talk(gateway.port) as talk:
            talk.hello()
            talk.send("after@example.test", message("after"))
        hop.wait_to("after@example.test")
        assert gateway.stats()["supervisor/0"]["roles_hung"] >= len(HUNG)
        assert gateway.run("privs").returncode == 0
