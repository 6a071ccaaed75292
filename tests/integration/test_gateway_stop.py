"""The stop of a gateway whose queue is behind: what receivers told it last is not lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from integration.gateway import Gateway
from integration.talk import Talk

from gatepost.cli.records import read_records

TRANSACTIONS = 500  # their facts are several packets for the queue
LIMITS = "[smtp]\nmax_idle_commands = 10000\nmax_commands = 10000\nmax_transactions = 10000\n"
NO_LIMIT = "[processes]\nhang_limit_s = 0\n"  # it is stopped for as long as the client takes


def test_facts_that_a_slow_queue_has_not_read_are_kept(tmp_path: Path) -> None:
    with Gateway(tmp_path, extra=LIMITS + NO_LIMIT) as gateway:
        roles = gateway.roles()
        os.kill(roles["queue"], signal.SIGSTOP)
        with Talk(gateway.port) as talk:
            talk.hello()
            for number in range(TRANSACTIONS):
                talk.envelope(["user@example.test"], reverse_path=f"s{number}@outside.test")
                talk.say(b"RSET\r\n", b"250")
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait_for_event("role_ended", pid=roles["receiver"])
        os.kill(roles["queue"], signal.SIGCONT)
        assert gateway.process.wait(60) == 0
        assert len({record.reverse_path for record in read_records(str(gateway.spool))}) == TRANSACTIONS
        gateway.assert_no_bugs()
