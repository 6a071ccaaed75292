"""Recipients and routes from real OpenLDAP, PostgreSQL, MariaDB and web servers, asked by roles that are locked in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from certificates import Authority
from integration.gateway import Gateway
from integration.peers.databases import PASSWORD, MariaDb, OpenLdap, PostgreSql
from integration.peers.process import wait_until
from integration.peers.tableservers import TableServers, Web

KNOWN = {
    "anna@example.test": "smtp://10.0.0.5:25", "o'neill@example.test": "", "moved@example.test": "mx",
    "bad@example.test": "no next hop at all",
}  # fmt: skip
HOSTILE = ["*", "a*", "x'||'", "anna'--", r'"anna\\"', '"anna)(mail=*"', "anna/../anna", "nobody"]


class Rows(Web):
    """A web service with the same rows."""

    def __init__(self, rows: dict[str, str], certificate: Path) -> None:
        super().__init__({"localhost": certificate})
        for address in rows:
            path = "/r/" + quote(address, safe="")
            self.answers["localhost", path] = (200, {}, b'{"mail": ["%s"]}' % address.encode())


KINDS: dict[str, tuple[str, Any]] = {
    "ldaps": ("ldap", OpenLdap), "starttls": ("ldap", OpenLdap), "postgresql": ("sql", PostgreSql), "mysql": ("sql", MariaDb),
    "http": ("http", Rows),
}  # fmt: skip


def source_of(kind: str, server: Any) -> str:
    """The keys of the source of a kind."""
    if kind in ("ldaps", "starttls"):
        url = f"ldaps://localhost:{server.tls_port}" if kind == "ldaps" else f"ldap://localhost:{server.port}"
        return (
            f'type = "ldap"\nservers = ["{url}"]\nbase = "{server.base}"\nfilter = "(&(objectClass=person)(mail={{key}}))"\n'
            f'user = "{server.bind_name}"\n'
        )
    if kind == "http":
        return f'type = "http"\nurl = "https://localhost:{server.port}/r/{{key}}"\nfield = "mail"\n'
    return (
        f'type = "{kind}"\nservers = ["localhost:{server.port}"]\ndatabase = "mail"\nuser = "gatepost"\n'
        f'query = "SELECT value FROM people WHERE address = {{key}}"\n'
    )


@pytest.fixture
def served(table_servers: TableServers) -> Callable[[str], Any]:
    """The server of a kind, which runs."""
    return lambda kind: table_servers.running(KINDS[kind][1], KNOWN)


def gateway(directory: Path, kind: str, server: Any, authority: Path, top: str = "", more: str = "") -> Gateway:
    password = directory / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    extra = (
        f'[sources.people]\n{source_of(kind, server)}ca_file = "{authority}"\npassword_file = "{password}"\nretry_s = 0.1\n'
        f"timeout_s = 15.0\n{more}"
    )
    return Gateway(directory, recipients=[f"{KINDS[kind][0]}:people"], top=top, extra=extra)


def codes(bed: Gateway, *locals_: str) -> list[bytes]:
    commands = [f"RCPT TO:<{local}@example.test>\r\n".encode() for local in locals_]
    return [reply[:9] for reply in bed.dialog(b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n", *commands)[3:]]


@pytest.mark.parametrize("kind", KINDS)
def test_recipients(kind: str, served: Any, authority: Authority, tmp_path: Path) -> None:
    server = served(kind)
    with gateway(tmp_path, kind, server, authority.file, more="missing_s = 600\n") as bed:
        assert codes(bed, "anna", "ANNA", "o'neill", "postmaster") == [b"250 2.1.5"] * 4
        refused = codes(bed, *HOSTILE)
        assert set(refused) <= {b"550 5.1.1", b"501 5.1.3"}, dict(zip(HOSTILE, refused, strict=True))
        assert refused.count(b"550 5.1.1") >= 6
        server.halt()
        assert codes(bed, "anna", "nobody", "carl", "dora") == [b"250 2.1.5", b"550 5.1.1", b"451 4.3.0", b"451 4.3.0"]
        assert bed.wait_for_event("source_down", source="people")["reason"]
        server.start()
        wait_until(lambda: codes(bed, "moved") == [b"250 2.1.5"], "the server is asked again")
        assert codes(bed, "moved", "carl") == [b"250 2.1.5", b"550 5.1.1"]
        bed.wait_for_event("source_up", source="people")
        bed.assert_no_bugs()
        assert PASSWORD.split()[0] not in bed.events_file.read_text() + bed.read_log()


@pytest.mark.parametrize("kind", ["ldaps", "starttls", "postgresql", "mysql"])
def test_a_server_with_another_certificate_gets_no_password(
    kind: str, served: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"), "other")
    with gateway(tmp_path, kind, served(kind), other.file) as bed:
        assert codes(bed, "anna") == [b"451 4.3.0"]
        assert "certificate" in bed.wait_for_event("source_down")["reason"].lower()
        bed.assert_no_bugs()


def test_who_was_known_goes_on_while_the_directory_is_away(served: Any, authority: Authority, tmp_path: Path) -> None:
    server = served("ldaps")
    with gateway(tmp_path, "ldaps", server, authority.file, more="found_s = 0\nmissing_s = 0\n") as bed:
        assert codes(bed, "anna", "nobody") == [b"250 2.1.5", b"550 5.1.1"]
        server.halt()
        assert codes(bed, "anna", "nobody") == [b"250 2.1.5", b"451 4.3.0"]
        assert bed.wait_for_event("snapshot_answers", table="ldap:people")["known"] >= 1


def test_a_server_without_tls_is_not_talked_to(authority: Authority, tmp_path: Path) -> None:
    with MariaDb(KNOWN) as server, gateway(tmp_path, "mysql", server, authority.file) as bed:
        assert codes(bed, "anna") == [b"451 4.3.0"]
        assert "SSL" in bed.wait_for_event("source_down")["reason"]


def test_routes_explain_and_what_makes_no_sense(served: Any, authority: Authority, tmp_path: Path) -> None:
    """One directory for recipients and their routes; `explain` asks through the gateway, and says so without it."""
    server = served("postgresql")
    bed = gateway(
        tmp_path, "postgresql", server, authority.file, top='routes = "sql:people"', more='keys = ["address"]\n'
    )
    with bed:
        assert codes(bed, "anna", "bad", "nobody") == [b"250 2.1.5", b"451 4.3.0", b"550 5.1.1"]
        assert "next hop" in bed.wait_for_event("table_trouble", table="sql:people")["reason"]
        asked = ["explain", "--ip", "203.0.113.9", "--from", "a@b.example", "--to"]
        (found,) = bed.ask(*asked, "anna@example.test")["recipients"]
        assert found["accepted"] and found["route"] == "smtp://10.0.0.5:25" and not found["missing"]
        (found,) = bed.ask(*asked, "nobody@example.test")["recipients"]
        assert found["reply"].startswith("550 5.1.1")
        assert bed.run("check").returncode == 0
        server.halt()
        (found,) = bed.ask(*asked, "someone@example.test")["recipients"]
        assert found["reply"].startswith("451 4.3.0") and "sql:people: localhost:" in found["missing"]
        bed.halt()
        (found,) = bed.ask(*asked, "anna@example.test")["recipients"]
        assert found["reply"].startswith("451 4.3.0") and "is it running?" in found["missing"]
