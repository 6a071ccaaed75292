"""`gatepost init`: what it writes loads, is private, whole, and never over an existing file; prompts ask again."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatepost.cli.main import cli
from gatepost.config.load import load_config

ALL = {
    "--hostname": "MX.example.net",
    "--domain": "Bücher.example",
    "--next-hop": "smtp://10.0.0.5",
    "--network": "10.0.0.0/8",
    "--listen": "127.0.0.1:2525",
}


def init(output: Path, *more: str, answers: str | None = None, **changes: str | None) -> Result:
    options = ALL | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
    arguments = [part for key, value in options.items() if value is not None for part in (key, value)]
    if answers is None:
        more = ("--yes", *more)
    return CliRunner().invoke(cli, ["init", "--output", str(output), *arguments, *more], input=answers)


def test_what_is_written_loads(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("anna\n")
    output = tmp_path / "gatepost.toml"
    result = init(output, "--domain", "example.net", "--next-hop", "lmtp://[::1]:24", "--network", "192.0.2.1",
                  spool=str(tmp_path / "sp ool"), recipients=str(tmp_path / "people"))  # fmt: skip
    assert result.exit_code == 0, result.output
    config = load_config(str(output))
    assert config.hostname == "mx.example.net"
    assert list(config.domains) == ["xn--bcher-kva.example", "example.net"]
    for domain in config.domains.values():
        assert domain.next_hop == ["smtp://10.0.0.5:25", "lmtp://[::1]:24"]
        assert domain.recipients == ["anna"]
    assert config.relay.networks == ["10.0.0.0/8", "192.0.2.1/32"]
    assert config.relay.next_hop == ["mx"]
    assert config.listen == ["127.0.0.1:2525"]
    assert config.spool == str(tmp_path / "sp ool")
    assert "example.net. IN MX 10 mx.example.net." in " ".join(result.stdout.split())


def test_mode_and_nothing_left_beside(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert init(tmp_path / "gatepost.toml").exit_code == 0
    finally:
        os.umask(old)
    mode = stat.S_IMODE(os.stat(tmp_path / "gatepost.toml").st_mode)
    assert mode == (0o640 if os.geteuid() == 0 else 0o600)
    assert os.listdir(tmp_path) == ["gatepost.toml"]


def test_an_existing_file_stays(tmp_path: Path) -> None:
    output = tmp_path / "gatepost.toml"
    output.write_text("mine")
    result = init(output)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert output.read_text() == "mine"
    assert init(output, "--force").exit_code == 0
    assert load_config(str(output)).hostname == "mx.example.net"
    output.unlink()
    output.symlink_to(tmp_path / "nowhere")
    assert init(output).exit_code == 2


def test_nothing_is_written_when_an_answer_is_bad(tmp_path: Path) -> None:
    output = tmp_path / "gatepost.toml"
    for changes, text in (
        ({"network": "0.0.0.0/0"}, "open relay"),
        ({"network": "10.0.0.1/8"}, "10.0.0.0/8"),
        ({"next_hop": "10.0.0.5"}, "smtp://10.0.0.5"),
        ({"hostname": "mx"}, "fully qualified"),
        ({"domain": "*.example.net"}, "wildcard"),
        ({"listen": "25"}, "0.0.0.0:25"),
        ({"next_hop": "smtp://127.0.0.1:2525"}, "gateway itself"),
        ({"recipients": str(tmp_path / "none")}, "no such file"),
        ({"domain": None, "next_hop": None}, "--domain, --next-hop"),
        ({"spool": "a\nb"}, "control"),
    ):
        result = init(output, **changes)
        assert result.exit_code == 2, changes
        assert text in " ".join(result.stderr.split()), (changes, result.stderr)
        assert ".new" not in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = init(tmp_path / "file" / "gatepost.toml")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_prompts_ask_until_the_answer_is_good(tmp_path: Path) -> None:
    output = tmp_path / "gatepost.toml"
    answers = "\n".join(
        ["mx", "mx.example.net", "", "10.0.0.5", "smtp://10.0.0.5 smtp://10.0.0.6", "0.0.0.0/0", "10.0.0.0/8, ::1",
         "127.0.0.1:2525", str(tmp_path / "spool"), "none"]
    )  # fmt: skip
    nothing = dict.fromkeys(("hostname", "domain", "next_hop", "network", "listen"))
    result = init(output, answers=answers + "\n", **nothing)
    assert result.exit_code == 0, result.output
    config = load_config(str(output))
    assert list(config.domains) == ["example.net"]  # suggested from the host name
    assert config.domains["example.net"].next_hop == ["smtp://10.0.0.5:25", "smtp://10.0.0.6:25"]
    assert config.relay.networks == ["10.0.0.0/8", "::1/128"]
    assert config.domains["example.net"].recipients is None
    for text in ("fully qualified", "does not say how to deliver", "open relay"):
        assert text in result.stderr


def test_options_are_not_asked_for(tmp_path: Path) -> None:
    result = init(tmp_path / "gatepost.toml", answers="\n\n", spool=str(tmp_path / "s"), recipients=None)
    assert result.exit_code == 0, result.output
    assert "host name" not in result.stderr and "recipients" in result.stderr


def test_json(tmp_path: Path) -> None:
    result = init(tmp_path / "gatepost.toml", "--json", listen="192.0.2.5:25")
    data = json.loads(result.stdout)
    assert data["file"] == str(tmp_path / "gatepost.toml")
    kinds = [(record["type"], record["name"]) for record in data["dns"]]
    assert kinds == [
        ("A", "mx.example.net."),
        ("PTR", "5.2.0.192.in-addr.arpa."),
        ("TXT", "mx.example.net."),
        ("MX", "xn--bcher-kva.example."),
        ("TXT", "xn--bcher-kva.example."),
        ("TXT", "_dmarc.xn--bcher-kva.example."),
    ]


@pytest.mark.parametrize("text", ['/tmp/a"b', "/tmp/a\\b", "/tmp/é", "/tmp/#x"])
def test_text_is_quoted(tmp_path: Path, text: str) -> None:
    assert init(tmp_path / "gatepost.toml", spool=text).exit_code == 0
    assert load_config(str(tmp_path / "gatepost.toml")).spool == text
