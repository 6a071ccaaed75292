"""Mail for a Maildir root that the configuration has no more waits for a reload, and does not spin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gatepost.config.schema import Config, Domain
from gatepost.roles.hands import RETRY_NO_SUCH_ROOT_S, RETRY_WITHOUT_DELIVERER_S, Hands


def test_a_root_that_is_gone_is_asked_for_seldom_and_a_process_that_starts_soon() -> None:
    domains = {"a.test": Domain(next_hop=["maildir:/mail/a/{local}"])}
    queue: Any = SimpleNamespace(config=Config(hostname="g.test", listen=[], spool="/s", domains=domains))
    hands = Hands(queue)
    for next_hop, wait_s in (
        ("maildir:/mail/a/{local}", RETRY_WITHOUT_DELIVERER_S),
        ("maildir:/mail/removed/{local}", RETRY_NO_SUCH_ROOT_S),
        ("smtp://127.0.0.1:25", RETRY_WITHOUT_DELIVERER_S),
    ):
        assert hands.choose(next_hop) is None
        assert hands.absent_s(next_hop) == wait_s
    assert RETRY_NO_SUCH_ROOT_S >= 60
