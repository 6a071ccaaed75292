"""`gatepost check`: all errors, unsafe paths and warnings, with the exit code that a script needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatepost.cli.check import relay_statement
from gatepost.cli.main import cli
from gatepost.config.schema import Config, Domain, Relay

GOOD = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5"
recipients = ["anna"]
"""


def check(path: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["check", "--config", str(path), *more])


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "gatepost.toml"
    path.write_text(GOOD)
    os.chmod(path, 0o640)
    return path


def test_good(config_path: Path) -> None:
    result = check(config_path)
    assert result.exit_code == 0, result.output
    assert "the configuration is good" in result.stdout
    assert "Anyone may send to 1 listed recipient and postmaster of example.net" in result.stdout
    assert "No client may send to other domains." in result.stdout
    assert "warning: tls.certificates: " in result.stderr
    assert "backscatter" not in result.stderr


def test_all_errors_at_once(config_path: Path) -> None:
    config_path.write_text(GOOD.replace("mx.example.net", "mx") + 'spol = "x"\n[relay]\nnetworks = ["0.0.0.0/0"]\n')
    result = check(config_path)
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        f"{config_path}:1",
        f"{config_path}:7",
        f"{config_path}:9",
    ]
    data = json.loads(check(config_path, "--json").stdout)
    assert data["ok"] is False
    assert [error["key"] for error in data["errors"]] == ["hostname", "spol", "relay.networks[1]"]
    assert set(data["errors"][0]) == {"file", "line", "key", "problem", "advice"}


def test_unsafe_paths_end_2_with_the_command(config_path: Path) -> None:
    os.chmod(config_path, 0o666)
    result = check(config_path)
    assert result.exit_code == 2
    assert "chmod" in result.stderr and str(config_path) in result.stderr
    assert "would refuse to start" in result.stdout
    (problem,) = json.loads(check(config_path, "--json").stdout)["paths"]
    assert problem["mode"] == "0666"


def test_warnings_end_0(config_path: Path) -> None:
    config_path.write_text(GOOD.replace('recipients = ["anna"]\n', ""))
    result = check(config_path)
    assert result.exit_code == 0
    assert "backscatter" in result.stderr
    data = json.loads(check(config_path, "--json").stdout)
    assert data["ok"] is True
    assert 'domains."example.net"' in [warning["key"] for warning in data["warnings"]]


def test_names_from_the_file_do_no_harm(config_path: Path) -> None:
    config_path.write_text(GOOD + '"\\u001b]0;evil\\u0007" = 1\n', encoding="utf-8")
    result = check(config_path)
    assert result.exit_code == 2
    assert "\x1b" not in result.output and "\\x1b]0;evil\\x07" in result.stderr


def test_the_file_may_come_from_the_environment(config_path: Path) -> None:
    result = CliRunner().invoke(cli, ["check"], env={"GATEPOST_CONFIG": str(config_path)})
    assert result.exit_code == 0


def test_relay_statement() -> None:
    config = Config(
        hostname="mx.example.net",
        listen=["127.0.0.1:25"],
        spool="/s",
        domains={"a.test": Domain(next_hop=["smtp://10.0.0.5:25", "smtp://10.0.0.6:25"])},
        relay=Relay(networks=["10.0.0.0/8", "::1/128"], next_hop=["smtp://smart.test:25"]),
    )
    assert relay_statement(config) == [
        "Anyone may send to any recipient of a.test; it goes to smtp://10.0.0.5:25, then smtp://10.0.0.6:25.",
        "Clients in 10.0.0.0/8, ::1/128 may send to every domain; it goes to smtp://smart.test:25.",
        "Everything else is refused with 550 5.7.1, whatever the sender address, HELO or DNS name.",
    ]
