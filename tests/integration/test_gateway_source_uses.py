"""Aliases out of OpenLDAP, PostgreSQL and MariaDB, routes by sender, and rewritten paths out of a web service, by one gateway."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from certificates import Authority
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.databases import PASSWORD, MariaDb, OpenLdap, PostgreSql
from integration.peers.process import wait_until
from integration.talk import Talk, message, send
from webserver import WebServer

BOSS = "boss@example.test"


def sql(kind: str, port: int, query: str) -> str:
    return f'type = "{kind}"\nservers = ["localhost:{port}"]\ndatabase = "mail"\nuser = "gatepost"\nquery = "{query}"\n'


def config_of(directory: Path, authority: Authority, sources: dict[str, str]) -> str:
    password = directory / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    every = f'ca_file = "{authority.file}"\npassword_file = "{password}"\nretry_s = 0.1\nstale_s = 0\ntimeout_s = 15\n'
    rule = (
        '[[rewrite.rules]]\nname = "faces"\nparts = ["reverse-path", "forward-path"]\ndomains = ["inside.test"]\n'
        'tables = ["http:faces"]\n'
    )
    return rule + "".join(f"[sources.{name}]\n{keys}{every}" for name, keys in sources.items())


def test_aliases_routes_by_sender_and_rewritten_paths(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("all", ["DNS:localhost"])
    with (
        NextHop() as inside,
        NextHop() as outside,
        OpenLdap(
            {"anna@example.test": "team@example.test", "zoe@else.test": "team@example.test", "c@else.test": "owner-x@example.test"},
            certificate,
        ) as ldap,
        PostgreSql({"anna@inside.test": outside.name, "bob@example.test": "crew", "d@else.test": "crew"}, certificate) as pg,
        MariaDb({"anna@example.test": "mates", "bob@example.test": "mates"}, certificate) as maria,
        WebServer({"localhost": certificate}) as web,
    ):  # fmt: skip
        for key, value in (("anna@inside.test", BOSS), ("team@inside.test", "team@example.test")):
            web.answers["localhost", "/f/" + quote(key, safe="")] = (
                200,
                {"Connection": "close"},
                b'{"to": "%s"}' % value.encode(),
            )
        sources = {
            "lists": f'type = "ldap"\nservers = ["ldaps://localhost:{ldap.tls_port}"]\nbase = "{ldap.base}"\nuser = "{ldap.bind_name}"\n'
            'filter = "(description={key})"\nattribute = "mail"\n',
            "crews": sql("postgresql", pg.port, "SELECT address FROM people WHERE value = {local} ORDER BY 1"),
            "mates": sql("mysql", maria.port, "SELECT address FROM people WHERE value = {local}"),
            "senders": sql("postgresql", pg.port, "SELECT value FROM people WHERE address = {key}"),
            "faces": f'type = "http"\nurl = "https://localhost:{web.port}/f/{{key}}"\nfield = "to"\n',
        }  # fmt: skip
        top = (
            'aliases = ["ldap:lists", "sql:crews", "sql:mates"]\nalias_domains = ["example.test"]\n'
            'sender_routes = ["sql:senders"]\n'
        )
        gateway = Gateway(
            tmp_path,
            next_hop=inside.name,
            relay_next_hop=inside.name,
            networks=["127.0.0.1/32"],
            recipients=["anna", "bob"],
            top=top,
            extra=config_of(tmp_path, authority, sources),
        )
        with gateway:
            for alias, members in (
                ("team", {"anna@example.test", "zoe@else.test"}),
                ("crew", {"bob@example.test", "d@else.test"}),
                ("mates", {"anna@example.test", "bob@example.test"}),
            ):
                sent = send(gateway.port, f"{alias}@example.test", message(alias), reverse_path="a@out.test")
                assert gateway.wait_for_event("expanded", recipient=f"{alias}@example.test")["count"] == 2
                assert delivered(gateway, sent) == members
            send(gateway.port, ["u@far.test", "team@inside.test"], message("map"), reverse_path="anna@inside.test")
            assert outside.wait_to("u@far.test").reverse_path == BOSS
            assert inside.wait_to("zoe@else.test").reverse_path == "a@out.test"
            explained(gateway)
            for server in (ldap, pg, maria):
                server.halt()
            web.close()
            with Talk(gateway.port) as talk:
                talk.hello()
                talk.say(b"MAIL FROM:<new@inside.test>\r\n", b"451 4.3.0")
                talk.say(b"MAIL FROM:<new@example.test>\r\n", b"250")
                talk.say(b"RCPT TO:<new-list@example.test>\r\n", b"451 4.3.0")
                talk.say(b"RCPT TO:<new@inside.test>\r\n", b"451 4.3.0")
                talk.say(b"RCPT TO:<u@far.test>\r\n", b"451 4.3.0")
                talk.say(b"RCPT TO:<nobody@example.test>\r\n", b"451 4.3.0")
            for name in sources:
                gateway.wait_for_event("source_down", source=name)
            for server in (ldap, pg, maria):
                server.start()
            web.open()
            wait_until(lambda: codes(gateway) == [b"250 2.1.0", b"550 5.1.1", b"250 2.1.5"], "all are back")
            gateway.assert_no_bugs()


def codes(gateway: Gateway) -> list[bytes]:
    """The replies to a sender to be rewritten, a list that is not there, and a domain that is not ours."""
    commands = [
        b"EHLO c\r\n",
        b"MAIL FROM:<late@inside.test>\r\n",
        b"RCPT TO:<no-list@example.test>\r\n",
        b"RCPT TO:<u@late.test>\r\n",
    ]
    return [reply[:9] for reply in gateway.dialog(*commands)[2:]]


def delivered(gateway: Gateway, id: str) -> set[str]:
    """The two recipients of a message, once it has been delivered to both."""

    def rows() -> list[str]:
        return [event["recipient"] for event in gateway.events("delivered") if event["id"] == id]

    wait_until(lambda: len(rows()) == 2, "two deliveries")
    return set(rows())


def explained(gateway: Gateway) -> None:
    """`explain` and `rewrite` ask through the gateway and show what was answered."""
    told = gateway.run("explain", "--ip", "127.0.0.1", "--from", "anna@inside.test", "--to", "team@inside.test").stdout
    for line in (
        "<team@inside.test> becomes <team@example.test>",
        "team@example.test -> anna@example.test, zoe@else.test",
        "sql:crews about owner-team@example.test: not there",
        "reverse-path: <anna@inside.test> becomes <boss@example.test> by the rule faces",
    ):
        assert line in told, told
    assert (
        "outbound reverse-path      <boss@example.test>  by faces" in gateway.run("rewrite", "anna@inside.test").stdout
    )
