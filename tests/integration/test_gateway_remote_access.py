"""Access tables out of PostgreSQL and OpenLDAP: clients, senders and recipients that are refused, and nothing decided while they are down."""

from __future__ import annotations

from pathlib import Path

from certificates import Authority
from integration.gateway import Gateway
from integration.peers.databases import PASSWORD, OpenLdap, PostgreSql
from integration.peers.process import wait_until

LINES = {
    "connect:127.0.0.31": "REJECT",
    "from:bad.test": "ERROR:5.7.1:550 not from there",
    "to:closed@example.test": "REJECT",
    "connect:127.0.0.1": "RELAY",
}
MAIL = b"MAIL FROM:<%b>\r\n"


def replies(gateway: Gateway, reverse_path: bytes, to: bytes) -> list[bytes]:
    """Code and status of MAIL and RCPT, or of the refusal before them."""
    return [
        reply[:9]
        for reply in gateway.dialog(b"EHLO c\r\n", b"MAIL FROM:<%b>\r\n" % reverse_path, b"RCPT TO:<%b>\r\n" % to)
    ][2:]


def test_clients_senders_and_recipients(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("all", ["DNS:localhost"])
    with (
        PostgreSql(LINES, certificate) as pg,
        OpenLdap({"from:ldap.test": "ERROR:5.7.1:550 not from there either"}, certificate) as ldap,
    ):
        password = tmp_path / "password"
        password.write_text(f"{PASSWORD}\n")
        password.chmod(0o600)
        every = (
            f'ca_file = "{authority.file}"\npassword_file = "{password}"\nretry_s = 0.1\nfound_s = 0\nmissing_s = 0\n'
            "timeout_s = 15\n"
        )
        sources = (
            f'[sources.lines]\ntype = "postgresql"\nservers = ["localhost:{pg.port}"]\ndatabase = "mail"\nuser = "gatepost"\n'
            f'query = "SELECT value FROM people WHERE address = {{key}}"\n{every}'
            f'[sources.tree]\ntype = "ldap"\nservers = ["ldaps://localhost:{ldap.tls_port}"]\nbase = "{ldap.base}"\n'
            f'user = "{ldap.bind_name}"\nfilter = "(mail={{key}})"\nattribute = "description"\n{every}'
        )
        with Gateway(tmp_path, top='access = ["sql:lines", "ldap:tree"]\n', extra=sources) as gateway:
            assert replies(gateway, b"a@good.test", b"user@example.test") == [b"250 2.1.0", b"250 2.1.5"]
            assert replies(gateway, b"a@good.test", b"closed@example.test") == [b"250 2.1.0", b"550 5.2.1"]
            # RELAY is no right
            assert replies(gateway, b"a@good.test", b"user@else.test") == [b"250 2.1.0", b"550 5.7.1"]
            assert replies(gateway, b"a@sub.bad.test", b"user@example.test")[0] == b"550 5.7.1"
            assert replies(gateway, b"a@ldap.test", b"user@example.test")[0] == b"550 5.7.1"
            told = gateway.run("explain", "--ip", "127.0.0.31", "--to", "user@example.test").stdout
            assert "554 5.7.1" in told
            told = gateway.run(
                "explain", "--ip", "192.0.2.1", "--from", "a@bad.test", "--to", "user@example.test"
            ).stdout
            assert "550 5.7.1 not from there" in told
            pg.halt()
            assert gateway.dialog()[0][:9] == b"421 4.3.0"
            gateway.wait_for_event("source_down", source="lines")
            pg.start()
            wait_until(
                lambda: replies(gateway, b"a@good.test", b"user@example.test") == [b"250 2.1.0", b"250 2.1.5"],
                "it is back",
            )
            ldap.halt()
            assert replies(gateway, b"a@bad.test", b"user@example.test")[0] == b"550 5.7.1"  # the first table says it
            assert replies(gateway, b"a@good.test", b"user@example.test")[0] == b"451 4.3.0"
            gateway.assert_no_bugs()
