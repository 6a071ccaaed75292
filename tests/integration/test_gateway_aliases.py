"""An alias of the running gateway: one RCPT, several recipients, each once; members of a list have its owner as reverse-path."""

from __future__ import annotations

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import message, send

ALIASES = """team: anna, bob, zoe@other.test
news: anna, gone@other.test
owner-news: bob
one: two
two: one
"""


def test_several_recipients_owner_and_what_comes_back(tmp_path):
    with NextHop() as inside, NextHop() as other:
        top = 'aliases = "file:aliases"\nalias_domains = ["example.test"]\n'
        extra = f'[domains."other.test"]\nnext_hop = "{other.name}"\n'
        gateway = Gateway(tmp_path, next_hop=inside.name, recipients=["anna", "bob"], top=top, extra=extra)
        (gateway.directory / "aliases").write_text(ALIASES)
        (gateway.directory / "aliases").chmod(0o644)
        with gateway:
            sent = send(
                gateway.port, ["team@example.test", "anna@example.test"], message("team"), reverse_path="a@out.test"
            )
            assert gateway.wait_for_event("expanded", recipient="team@example.test")["count"] == 3
            wait_until(lambda: len(gateway.events("delivered")) == 3, "three deliveries")
            assert {row["recipient"] for row in gateway.events("delivered")} == {
                "anna@example.test",
                "bob@example.test",
                "zoe@other.test",
            }
            assert {taken.reverse_path for taken in inside.taken} == {"a@out.test"}
            assert all(row["id"] == sent for row in gateway.events("delivered"))
            reply = gateway.dialog(b"EHLO c\r\n", b"MAIL FROM:<a@out.test>\r\n", b"RCPT TO:<one@example.test>\r\n")[-1]
            assert reply.startswith(b"550 5.4.6")
            refused = gateway.wait_for_event("reply_refused", recipient="one@example.test")
            assert "one@example.test -> two@example.test" in refused["cause"]
            other.refuse("rcpt", b"550 5.1.1 gone", only="gone@other.test")
            news = send(gateway.port, "news@example.test", message("news"), reverse_path="a@out.test")
            delivered = gateway.wait_for_event("delivered", id=news)
            assert delivered["reverse_path"] == "owner-news@example.test"
            dsn = inside.wait_to("bob@example.test")
            wait_until(lambda: any(t.reverse_path == "" for t in inside.taken), "the owner is told")
            assert dsn is not None
            taken = next(t for t in inside.taken if t.reverse_path == "")
            assert b"gone@other.test" in taken.content
            gateway.assert_no_bugs()
