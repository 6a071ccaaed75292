"""`gatepost rewrite` and what `gatepost explain` shows of rewriting: each change with its rule, before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatepost.cli.main import cli

CONFIG = """
hostname = "mx.example.net"
listen = ["192.0.2.5:25"]
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5:25"
recipients = ["anna", "new", "away"]
domaintable = "inline:{old.test = example.net}"
virtual = "inline:{away@example.net = someone@else.test}"
[relay]
networks = ["10.0.0.0/8"]
[[rewrite.rules]]
name = "one face"
domains = [".example.net"]
to_domain = "example.net"
[[rewrite.rules]]
name = "moved"
directions = ["inbound"]
parts = ["forward-path"]
tables = ["inline:{former@example.net = new@example.net, bad@example.net = \\"a@b.test}"]
[rewrite]
hide_received = ["10.0.0.0/8"]
[rewrite.srs]
domain = "example.net"
secrets_file = "secrets"
"""
MESSAGE = (
    b"Received: from pc ([10.0.0.3]) by x; Mon, 1 Jan 2024 00:00:00 +0000\nFrom: A <a@pc.example.net>\nCc: a@b c\n"
    b"DKIM-Signature: v=1; d=pc.example.net; h=From:To; b=x\nTo: anna@example.net\n\ntext\n"
)


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "gatepost.toml").write_text(CONFIG)
    (tmp_path / "secrets").write_text("a secret of sixteen octets\n")
    (tmp_path / "secrets").chmod(0o600)
    (tmp_path / "mail.eml").write_bytes(MESSAGE)

    def call(command: str, *arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(cli, [command, "--config", str(tmp_path / "gatepost.toml"), *arguments])
        assert result.exit_code == status, result.output
        return result.output

    return call


def test_each_part_in_both_directions(run) -> None:
    output = run("rewrite", "a@pc.example.net")
    assert "outbound reverse-path      <a@example.net>  by one face" in output
    assert "outbound forward-path      stays" in output and "inbound  header-senders    stays" in output
    rows = json.loads(run("rewrite", "--json", "former@old.test"))[0]["rows"]
    found = {(row["direction"], row["part"]): row["address"] for row in rows}
    assert found["inbound", "forward-path"] == "new@example.net"
    assert found["inbound", "header-senders"] == "former@example.net"


def test_what_cannot_be_and_what_is_no_address(run) -> None:
    assert "put off (451 4.3.0): <bad@example.net> becomes" in run("rewrite", "bad@example.net", status=1)
    run("rewrite", "no address", status=2)
    assert "refused: it does not have our signature" in run("rewrite", "SRS0=AAAAAA=AA=a.test=b@example.net")


def test_explain_shows_header_and_signature(run, tmp_path: Path) -> None:
    eml = str(tmp_path / "mail.eml")
    output = run("explain", "--ip", "10.0.0.1", "--from", "a@pc.example.net", "--to", "x@else.test", "--eml", eml)
    for line in (
        "reverse-path: <a@pc.example.net> becomes <a@example.net> by the rule one face",
        "header From: <a@pc.example.net> becomes <a@example.net> by the rule one face",
        "header Received: 1 of inside hosts are hidden",
        "header Cc: stays as it is: it is no list of addresses",
        "WARNING: the DKIM signature of pc.example.net covers from, and will not hold any more",
    ):
        assert line in output
    plain = run("explain", "--ip", "8.8.8.8", "--from", "a@else.test", "--to", "anna@example.net", "--eml", eml)
    assert "becomes" not in plain and "hidden" not in plain


def test_explain_shows_the_forward_path_and_what_would_change(run) -> None:
    output = run(
        "explain", "--ip", "8.8.8.8", "--to", "former@old.test", "--to", "bad@example.net", "--to", "away@example.net"
    )
    assert "rewrite rule domaintable" in output and "<former@old.test> becomes <former@example.net>" in output
    assert "as <new@example.net>" in output
    assert "would be refused (550 5.1.1) without the rewrite rule moved" in output
    assert "would be refused (550 5.7.1) without domaintable" in output
    assert "S: 451 4.3.0 The address cannot be rewritten at the moment" in output and '"a@b.test' in output
    assert "would be accepted, by way of smtp://10.0.0.5:25 without the virtual addresses" in output


def test_explain_shows_forwarded_mail_and_its_bounce(run) -> None:
    told = json.loads(run("explain", "--json", "--ip", "8.8.8.8", "--from", "a@b.test", "--to", "away@example.net"))
    signed = told["rewriting"]["reverse_path"][0]["after"]
    assert signed.startswith("SRS0=") and "=b.test=a@example.net" in signed
    output = run("explain", "--ip", "8.8.8.8", "--to", signed)
    assert "a return address of ours (SRS)" in output and "stands for <a@b.test>" in output
    assert "right: srs example.net" in output
    assert "550 5.7.1 This address takes only notices" in run(
        "explain", "--ip", "8.8.8.8", "--from", "x@y.test", "--to", signed
    )
    assert "bounces go to <a@b.test>" in run("rewrite", signed)


def test_without_the_secrets_it_says_so(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gatepost.cli.rewriting.read_regular", closed)
    output = run("explain", "--ip", "8.8.8.8", "--from", "a@b.test", "--to", "away@example.net")
    assert "the secrets of SRS cannot be read here" in output
