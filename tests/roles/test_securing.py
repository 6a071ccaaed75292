"""The memory of clients whose certificate is not asked for again is bounded."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from gatepost.roles import securing
from gatepost.roles.securing import Securing


def test_addresses_that_fail_are_forgotten_at_the_limit(monkeypatch):
    monkeypatch.setattr(securing, "MAX_NOT_ASKED", 100)
    one = object.__new__(Securing)
    one.counts = Counter()
    one._not_asked = {}
    one._event = lambda *_, **__: None
    port = SimpleNamespace(tls=object(), quiet_tls=object())
    for number in range(1000):
        connection = SimpleNamespace(port=port, address=f"2001:db8::{number:x}", session_id="s")
        one.failed(connection, "certificate not verified: x")
        assert 1 <= len(one._not_asked) <= 100
    assert one.counts["handshakes_failed"] == 1000
