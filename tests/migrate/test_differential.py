"""Real sendmail and real Postfix against Gatepost with their configuration imported: the differences are those that are explained.

`python tests/migrate/test_differential.py` writes the tables of docs/migration.md anew; read the difference before it is committed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

if __name__ == "__main__":  # as pytest does by its configuration
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from integration.gateway import COMMAND
from integration.peers.postfix import PostfixServer
from integration.peers.process import PeerProcess, take_port
from migrate import differential as d
from migrate.sendmail_peer import SendmailServer

from gatepost.cli.main import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
# Replies of both sides that differ, and why; anything else is a failure.
EXPLAINED_SENDMAIL = {
    "550 5.7.1 / 554 5.7.1": "refused in the greeting, where RFC 5321 3.1 wants 554",
    "550 5.0.0 / 554 5.0.0": "refused in the greeting, where RFC 5321 3.1 wants 554",
    "450 4.7.1 / 421 4.7.1": "refused in the greeting, where only 421 says that it may pass",
    "553 5.3.0 / 550 5.1.2": "the word `nohost` has a status of its own, which is given",
    "550 5.0.0 / 550 5.1.1": "the word `nouser` has a status of its own, which is given",
    "250 / 550 5.1.1": "no mail server is named for the domain: sendmail would pass the mail on to itself",
    "250 / 501 5.1.3": "an address without a domain is refused; sendmail completes it",
}
_CODE = "Postfix refuses with 554 what is refused with 550 here"
EXPLAINED_POSTFIX = {
    "554 5.7.1 / 550 5.7.1": _CODE,
    "250 / 550 5.7.1": "an excluded network is excluded wherever it stands; Postfix takes the first that fits",
    "450 4.7.1 / 421 4.7.1": "refused in the greeting, where only 421 says that it may pass",
    "550 5.1.2 / 550 5.1.1": "the recipients are asked before the routes",
    "550 5.1.1 / 501 5.1.3": "an address without a domain is refused; Postfix completes it",
    "550 5.1.1 / 250": "postmaster exists in every domain of ours (RFC 5321 4.5.1)",
}


class ImportedGateway(PeerProcess):
    """Gatepost with the configuration that `gatepost import` has written."""

    def __init__(self, directory: Path, kind: str, source: Path) -> None:
        super().__init__(directory)
        self.port = take_port()
        output = self.directory / "imported"
        done = CliRunner().invoke(cli, ["import", kind, str(source), "--output", str(output), "--force"])
        assert done.exit_code in (0, 1), done.output
        self.config = d.imported_gateway(output, self.port)
        self.tell = done.output

    def configure(self) -> list[str]:
        return [*COMMAND, "run", "--config", self.config]

    def is_ready(self) -> bool:
        return "ready on" in self.read_log()


def run_sendmail(directory: Path) -> list[tuple[d.Probe, str, str]]:
    """The probes against sendmail and against what becomes of its configuration."""
    mail = directory / "mail"
    d.write_files(mail, d.SENDMAIL_FILES)
    with (
        SendmailServer(directory / "peer", mail) as theirs,
        ImportedGateway(directory / "ours", "sendmail", theirs.home / "upper/etc/mail") as ours,
    ):
        return d.compare(d.SENDMAIL_PROBES, theirs.port, ours.port)


def run_postfix(directory: Path) -> list[tuple[d.Probe, str, str]]:
    """The same for Postfix."""
    files = directory / "tables"
    d.write_files(files, d.POSTFIX_FILES)
    directory.chmod(0o755)
    settings = {name: value.replace("{dir}", str(files)) for name, value in d.POSTFIX_SETTINGS.items()}
    with PostfixServer(directory, domains=(), settings=settings) as theirs:
        for name in ("main.cf", "master.cf"):
            shutil.copy(theirs.home / name, files)
        with ImportedGateway(directory / "ours", "postfix", files) as ours:
            return d.compare(d.POSTFIX_PROBES, theirs.port, ours.port)


def unexplained(rows: list[tuple[d.Probe, str, str]], explained: dict[str, str]) -> list[str]:
    return d.rows_as_text([row for row in rows if row[1] != row[2] and f"{row[1]} / {row[2]}" not in explained])


def section(name: str) -> str:
    """What docs/migration.md has between its marks."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match.group(1)


@pytest.fixture
def open_path() -> Iterator[Path]:
    # servers that change their user enter it
    with tempfile.TemporaryDirectory(prefix="gatepost-differential-") as temporary:
        made = Path(temporary)
        made.chmod(0o755)
        for name in ("peer", "ours"):
            (made / name).mkdir()
        yield made


def test_sendmail(open_path: Path) -> None:
    rows = run_sendmail(open_path)
    assert unexplained(rows, EXPLAINED_SENDMAIL) == []
    assert d.table_of(rows, EXPLAINED_SENDMAIL) == section("sendmail")


@pytest.mark.peer("postfix")
def test_postfix(open_path: Path) -> None:
    rows = run_postfix(open_path)
    assert unexplained(rows, EXPLAINED_POSTFIX) == []
    assert d.table_of(rows, EXPLAINED_POSTFIX) == section("postfix")


def test_nobody_relays_here_who_does_not_there() -> None:
    """Of the tables that are committed: wherever the old server says no for good, so does the gateway."""
    for name in ("sendmail", "postfix"):
        for row in section(name).splitlines()[2:]:
            theirs, ours = (cell.strip() for cell in row.split("|")[4:6])
            is_postmaster = "<postmaster@" in row  # which no server may refuse
            assert is_postmaster or not (theirs.startswith("5") and ours == "250"), row


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for name, run, explained in (
        ("sendmail", run_sendmail, EXPLAINED_SENDMAIL),
        ("postfix", run_postfix, EXPLAINED_POSTFIX),
    ):
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary)
            made.chmod(0o755)
            for part in ("peer", "ours"):
                (made / part).mkdir()
            table = d.table_of(run(made), explained)
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: m[1] + t + m[2], page, flags=re.DOTALL
        )  # type: ignore[misc]
    PAGE.write_text(page, encoding="utf-8")
