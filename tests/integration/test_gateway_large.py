"""Large messages, many at once: each needs a body file, and there are never enough of them ready."""

from __future__ import annotations

import pytest
from integration.gateway import Gateway
from peers import SmtpSink, send_with_smtp_source, wait_until

MESSAGES = 120
SESSIONS = 60


@pytest.mark.peer("postfix")
def test_more_large_messages_at_once_than_body_files_are_kept_ready(tmp_path):
    (tmp_path / "sink").mkdir()
    with (
        SmtpSink(tmp_path / "sink") as sink,
        Gateway(
            tmp_path, next_hop=f"smtp://{sink.address}", extra="[smtp]\nmax_connections_per_client = 200\n"
        ) as gateway,
    ):
        done = send_with_smtp_source(
            gateway.port, MESSAGES, "user@example.test", sessions=SESSIONS, size_bytes=300_000, options=("-d",)
        )
        assert done.returncode == 0, done.stderr
        sink.wait_for_count(MESSAGES, 60)
        wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
        assert gateway.ledger()["delivered"] == MESSAGES
        assert not list((gateway.spool / "deferred").iterdir())
        gateway.assert_no_bugs()
