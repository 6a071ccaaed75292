"""Recipients that the next hop is asked for: a real Postfix that knows some, defers some, takes all, and is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway
from integration.peers.postfix import PostfixServer
from integration.peers.process import wait_until

FAST = "[call_ahead]\nfound_s = 0\nmissing_s = 0\nretry_s = 0.2\nstale_s = 0\n"


def codes(bed: Gateway, *locals_: str, domain: str = "example.test") -> list[bytes]:
    commands = [f"RCPT TO:<{local}@{domain}>\r\n".encode() for local in locals_]
    return [reply[:9] for reply in bed.dialog(b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n", *commands)[3:]]


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostfixServer]:
    directory = tmp_path_factory.mktemp("known")
    settings = {
        "smtpd_recipient_restrictions": f"check_recipient_access texthash:{directory}/access, permit_mynetworks, reject"
    }
    (directory / "access").write_text(
        "late@example.test 450 4.2.0 Greylisted\nours@example.test 554 5.7.1 Not from you\n"
    )
    with PostfixServer(directory, users=["anna", "late", "ours", "postmaster"], settings=settings) as server:
        yield server


def test_the_next_hop_knows(postfix: PostfixServer, tmp_path: Path) -> None:
    with Gateway(
        tmp_path,
        next_hop=f"smtp://{postfix.address}",
        recipients=["listed", "call-ahead:next-hop"],
        top='detail_separator = "+"',
    ) as bed:
        assert codes(bed, "anna", "ANNA", "postmaster", "listed", "anna+news") == [b"250 2.1.5"] * 5
        assert codes(bed, "nobody", "nobody+x", '"a b"') == [b"550 5.1.1"] * 3
        assert codes(bed, "late", "ours") == [b"451 4.3.0"] * 2
        asked = bed.stats()["deliverer/0"]["call_aheads"]
        assert codes(bed, "anna", "nobody") == [b"250 2.1.5", b"550 5.1.1"]
        assert bed.stats()["deliverer/0"]["call_aheads"] == asked
        explained = bed.run("explain", "--ip", "192.0.2.1", "--to", "nobody@example.test")
        assert "call-ahead:next-hop about nobody@example.test: not there" in explained.stdout
        explained = bed.run("explain", "--ip", "192.0.2.1", "--to", "anna@example.test")
        assert "about anna@example.test: there (127.0.0.1[127.0.0.1]:" in explained.stdout
        bed.assert_no_bugs()


def test_it_is_down_and_comes_back(tmp_path: Path) -> None:
    server = PostfixServer(tmp_path, users=["anna"])
    with Gateway(tmp_path, next_hop=f"smtp://{server.address}", recipients=["call-ahead:next-hop"], extra=FAST) as bed:
        assert codes(bed, "anna", "nobody") == [b"451 4.3.0"] * 2
        bed.wait_for_event("call_ahead_down")
        with server:
            wait_until(lambda: codes(bed, "anna", "nobody") == [b"250 2.1.5", b"550 5.1.1"], "it is asked again")
        bed.assert_no_bugs()


def test_a_host_that_takes_everything_is_told_of(tmp_path: Path) -> None:
    with (
        PostfixServer(tmp_path) as server,
        Gateway(tmp_path, next_hop=f"smtp://{server.address}", recipients=["call-ahead:next-hop"]) as bed,
    ):
        assert codes(bed, "anna") == [b"250 2.1.5"]
        assert bed.wait_for_event("call_ahead_takes_all")["domain"] == "example.test"
        bed.assert_no_bugs()
