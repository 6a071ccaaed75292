"""Lines of an access table by the name of a client: the real gateway asks a name server, there and back."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from integration.gateway import Gateway
from integration.names import Names

ACCESS = """\
Connect:bad.test        REJECT
Connect:good.bad.test   OK
Connect:drop.test       DISCARD
TLS_Clt:bank.test       PERM+ENCR:112
"""
ZONES = {
    "0.0.127.in-addr.arpa": (
        "51 IN PTR host.bad.test.\n52 IN PTR good.bad.test.\n53 IN PTR forged.bad.test.\n54 IN PTR mail.bank.test.\n"
        "55 IN PTR broken.test.\n56 IN PTR drop.test.\n"
    ),
    "bad.test": "host IN A 127.0.0.51\ngood IN A 127.0.0.52\nforged IN A 127.0.0.99\n",
    "bank.test": "mail IN A 127.0.0.54\n",
    "broken.test": "@ IN A 127.0.0.55\n",
    "drop.test": "@ IN A 127.0.0.56\n",
}


class Bed(Gateway):
    names: Names


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("names")
    directory.chmod(0o755)
    (directory / "access").write_text(ACCESS)
    with Names(ZONES) as names:
        names.broken.add("broken.test")
        dns = f'[dns]\nservers = ["{names.address}"]\ntimeout_s = 10\nattempts = 2\n'
        with Bed(directory, top=f'access = "sendmail-access:{directory}/access"\n', extra=dns) as bed:
            bed.names = names
            yield bed
            bed.assert_no_bugs()


def replies(bed: Bed, source: str, *commands: bytes) -> list[bytes]:
    """Code and status of the greeting, and of each command."""
    found = []
    with socket.create_connection(("127.0.0.1", bed.port), 60, source_address=(source, 0)) as sock:
        file = sock.makefile("rb")
        for command in (b"", *commands):
            sock.sendall(command)
            while (line := file.readline())[3:4] == b"-":
                pass
            found.append(line[:9])
            if line[:1] != b"2":
                break
    return found


MAIL = (b"EHLO c.test\r\n", b"MAIL FROM:<a@b.test>\r\n")


def test_a_client_is_refused_by_its_name(bed: Bed) -> None:
    assert replies(bed, "127.0.0.51") == [b"554 5.7.1"]
    assert replies(bed, "127.0.0.52", *MAIL)[-1] == b"250 2.1.0"
    assert replies(bed, "127.0.0.53", *MAIL)[-1] == b"250 2.1.0"  # what the name leads to is not this client
    assert replies(bed, "127.0.0.57", *MAIL)[-1] == b"250 2.1.0"  # there is no name


def test_tls_is_demanded_by_name(bed: Bed) -> None:
    assert replies(bed, "127.0.0.54", *MAIL)[-1] == b"503 5.7.0"


def test_a_name_that_cannot_be_looked_up_puts_the_client_off(bed: Bed) -> None:
    assert replies(bed, "127.0.0.55") == [b"421 4.3.0"]


def test_mail_is_dropped_by_name(bed: Bed) -> None:
    rcpt = (*MAIL, b"RCPT TO:<user@example.test>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\nx\r\n.\r\n")
    assert replies(bed, "127.0.0.56", *rcpt[:3])[-1] == b"250 2.1.5"


def test_explain_asks_or_is_told(bed: Bed) -> None:
    to = ["--to", "user@example.test"]
    assert "554 5.7.1" in bed.run("explain", "--ip", "127.0.0.51", *to).stdout
    assert "554 5.7.1" in bed.run("explain", "--ip", "192.0.2.1", "--name", "x.bad.test", *to).stdout
    assert "554 5.7.1" not in bed.run("explain", "--ip", "127.0.0.51", "--name", "x.good.test", *to).stdout
    assert "503 5.7.0" in bed.run("explain", "--ip", "127.0.0.54", *to).stdout


def test_check_says_that_names_are_looked_up(bed: Bed) -> None:
    assert (
        "because of this line the names of clients are looked up"
        in (checked := bed.run("check")).stdout + checked.stderr
    )
