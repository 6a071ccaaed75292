"""What is offered where: extensions that hang on the kind of a listener or on TLS."""

from __future__ import annotations

import pytest

from gatepost.config.schema import Config, Listener, Smtp
from gatepost.roles.ports import Port


def offered(port: Port, name: str) -> list[str]:
    return [line.partition(" ")[0] for line in getattr(port, name).offer.lines.split("\n")[1:]]


@pytest.mark.parametrize(
    ("address", "kind", "holds"),
    [
        ("127.0.0.1:25", "edge", False),
        ("127.0.0.1:587", "submission", True),
        ("127.0.0.1:465", "submissions", True),
        ("unix:/run/x/lmtp", "lmtp", False),
        ("unix:/run/x/submission", "submission", True),
    ],
)
def test_messages_are_kept_for_who_submits(address, kind, holds):
    """RFC 4865 1."""
    config = Config(hostname="g.test", listen=[], spool="", domains={})
    port = Port(config, Listener(address=address, kind=kind), None, None)
    for name in ("plain", "repair", "secured", "secured_repair"):
        assert ("FUTURERELEASE" in offered(port, name)) == holds
    off = Config(hostname="g.test", listen=[], spool="", domains={}, smtp=Smtp(future_release=False))
    assert "FUTURERELEASE" not in offered(Port(off, Listener(address=address, kind=kind), None, None), "secured")


def test_requiretls_exists_inside_tls_only():
    config = Config(hostname="g.test", listen=[], spool="", domains={})
    port = Port(config, Listener(address="127.0.0.1:25", kind="edge"), None, None)
    assert "REQUIRETLS" not in offered(port, "plain")
    assert "REQUIRETLS" in offered(port, "secured")


def test_binary_messages_are_not_for_lmtp():
    """It has no CHUNKING."""
    config = Config(hostname="g.test", listen=[], spool="", domains={})
    port = Port(config, Listener(address="unix:/run/x/lmtp", kind="lmtp"), None, None)
    assert "BINARYMIME" not in offered(port, "plain")
    assert "DSN" in offered(port, "plain")
