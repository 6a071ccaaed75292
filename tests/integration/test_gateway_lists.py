"""All recipients fetched ahead out of real OpenLDAP (by pages), PostgreSQL, MariaDB and a web service: known when these go away, asked before or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from integration.gateway import Gateway
from integration.peers.databases import PASSWORD, MariaDb, OpenLdap, PostgreSql
from integration.peers.process import wait_until
from integration.peers.tableservers import TableServers, Web

MANY = 1234  # more than two pages of LDAP
ROWS = {f"u{number}@example.test": "" for number in range(MANY)} | {"Else@else.test": ""}
SELECT = 'list_query = "SELECT address FROM people"\n'


class Listing(Web):
    """Answers for each of them, and with the list."""

    def __init__(self, rows: dict[str, str], certificate: Path) -> None:
        super().__init__({"localhost": certificate})
        self.tell(list(rows))

    def tell(self, addresses: list[str]) -> None:
        all_of_them = json.dumps({"people": {"addresses": addresses}}).encode()
        answers = {("localhost", f"/{address.replace('@', '%40')}"): (200, {}, b"{}") for address in addresses}
        self.answers = {**answers, ("localhost", "/all"): (200, {}, all_of_them)}  # at once: it is asked meanwhile


KINDS: dict[str, Any] = {"ldap": OpenLdap, "postgresql": PostgreSql, "mysql": MariaDb, "http": Listing}
TABLES = {"ldap": "ldap:people", "postgresql": "sql:people", "mysql": "sql:people", "http": "http:people"}


def source_of(kind: str, server: Any) -> str:
    if kind == "ldap":
        return (
            f'servers = ["ldaps://localhost:{server.tls_port}"]\nbase = "{server.base}"\nfilter = "(mail={{key}})"\n'
            f'user = "{server.bind_name}"\nlist_query = "(objectClass=inetOrgPerson)"\nlist_field = "mail"\n'
        )
    if kind == "http":
        url = f"https://localhost:{server.port}"
        return f'url = "{url}/{{key}}"\nlist_query = "{url}/all"\nlist_field = "people.addresses"\n'
    return (
        f'servers = ["localhost:{server.port}"]\ndatabase = "mail"\nuser = "gatepost"\n'
        f'query = "SELECT value FROM people WHERE address = {{key}}"\n{SELECT}'
    )


@pytest.fixture
def served(request: pytest.FixtureRequest, table_servers: TableServers) -> tuple[str, Any]:
    """One that runs, with all its rows."""
    kind = request.param
    server = table_servers.running(KINDS[kind], ROWS)
    if kind == "http":
        server.tell(list(ROWS))
    return kind, server


def gateway(directory: Path, kind: str, server: Any, authority: Authority, more: str = "", extra: str = "") -> Gateway:
    password = directory / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    source = (
        f'[sources.people]\ntype = "{kind}"\n{source_of(kind, server)}ca_file = "{authority.file}"\npassword_file = "{password}"\n'
        f"timeout_s = 15\nretry_s = 0.1\nfound_s = 0\nmissing_s = 0\n{more}"
    )
    return Gateway(directory, recipients=[TABLES[kind]], extra=source + extra)


def codes(bed: Gateway, *locals_: str) -> list[bytes]:
    commands = [f"RCPT TO:<{local}@example.test>\r\n".encode() for local in locals_]
    return [reply[:9] for reply in bed.dialog(b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n", *commands)[3:]]


@pytest.mark.parametrize("served", KINDS, indirect=True)
def test_who_was_never_asked_for_is_known_when_the_source_goes_away(
    served: tuple[str, Any], authority: Authority, tmp_path: Path
) -> None:
    kind, server = served
    with gateway(tmp_path, kind, server, authority) as bed:
        told = bed.wait_for_event("recipients_listed")
        assert (told["table"], told["listed"], told["others"]) == (TABLES[kind], MANY, 1)
        assert codes(bed, "u7", "nobody") == [b"250 2.1.5", b"550 5.1.1"]
        (row,) = bed.ask("recipients", "status")["tables"]
        assert (row["listed"], row["known"], row["held"]) == (MANY, MANY, None)
        server.halt()
        assert codes(bed, "u1233", "U8", "nobody") == [b"250 2.1.5", b"250 2.1.5", b"451 4.3.0"]
        assert bed.stats()["resolver/0"]["lists"] == 1
        wait_until(lambda: bed.stats()["resolver/0"]["snapshot_told"] >= MANY, "the queue knows")
        bed.halt()
        bed.start()  # while it is still away
        wait_until(lambda: codes(bed, "u900", "nobody") == [b"250 2.1.5", b"451 4.3.0"], "what was kept is there again")
        bed.wait_for_event("recipients_list_failed")
        bed.assert_no_bugs()


@pytest.mark.parametrize("served", ["http"], indirect=True)
def test_a_list_that_has_lost_many_is_held_until_somebody_confirms_it(
    served: tuple[str, Any], authority: Authority, tmp_path: Path
) -> None:
    kind, server = served
    with gateway(tmp_path, kind, server, authority, "list_interval_s = 1\nmax_vanished = 1\n") as bed:
        bed.wait_for_event("recipients_listed")
        server.tell([f"u{number}@example.test" for number in range(100)])
        held = bed.wait_for_event("recipients_held")
        assert (held["list"], held["kept"], held["found"], held["gone"]) == ("http:people", MANY, 100, MANY - 100)
        status = bed.run("recipients", "status")
        assert status.returncode == 1 and "HELD: its list now has 100" in status.stdout, status.stdout
        server.close()
        assert codes(bed, "u1000") == [b"250 2.1.5"]
        server.open()
        confirmed = bed.run("recipients", "confirm", "http:people")
        assert confirmed.returncode == 0 and "http:people: confirmed" in confirmed.stdout, confirmed.stderr
        # until it has been fetched anew it is held, or not reached, and the command ends with 1
        wait_until(lambda: bed.run("recipients", "status").returncode == 0, "the list that is believed")
        assert bed.ask("recipients", "status")["tables"][0]["listed"] == 100
        server.close()
        assert codes(bed, "u99", "u1001") == [b"250 2.1.5", b"451 4.3.0"]  # the receiver remembers u1000 itself
        bed.assert_no_bugs()


@pytest.mark.parametrize("served", KINDS, indirect=True)
def test_a_list_that_is_longer_than_the_snapshot_is_not_taken(
    served: tuple[str, Any], authority: Authority, tmp_path: Path
) -> None:
    kind, server = served
    with gateway(tmp_path, kind, server, authority, extra="[snapshot]\nmax_entries = 700\n") as bed:
        failed = bed.wait_for_event("recipients_list_failed")
        assert failed["table"] == TABLES[kind] and "more than 700 recipients" in failed["reason"], failed
        assert codes(bed, "u7", "nobody") == [b"250 2.1.5", b"550 5.1.1"]
        assert bed.ask("recipients", "status")["tables"][0]["listed"] == 0
        bed.assert_no_bugs()
