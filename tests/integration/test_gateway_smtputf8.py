"""Mail of clients that say SMTPUTF8 whenever it is offered, for a next hop that does not know it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import Talk


@pytest.fixture(scope="module")
def hop() -> Iterator[NextHop]:
    with NextHop(extensions=("PIPELINING", "8BITMIME")) as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, hop: NextHop) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("utf8"), next_hop=hop.name) as gateway:
        yield gateway
        gateway.assert_no_bugs()


def send(gateway: Gateway, recipient: str, content: str) -> None:
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.envelope([recipient], parameters="SMTPUTF8 BODY=8BITMIME")
        talk.data(content.encode())


def test_what_needs_no_smtputf8_arrives(gateway: Gateway, hop: NextHop) -> None:
    send(gateway, "plain@example.test", "From: a@b.test\r\n\r\nGr\u00fc\u00dfe\r\n")
    assert "Gr\u00fc\u00dfe".encode() in hop.wait_to("plain@example.test").content


@pytest.mark.parametrize(
    ("recipient", "header"), [("gr\u00fc\u00dfe@example.test", "x"), ("header@example.test", "Gr\u00fc\u00dfe")]
)
def test_what_needs_it_is_returned(gateway: Gateway, recipient: str, header: str) -> None:
    send(gateway, recipient, f"From: a@b.test\r\nSubject: {header}\r\n\r\nx\r\n")
    assert gateway.wait_for_event("bounced", recipient=recipient)["status"] == "5.6.7"
