"""`gatepost explain`: the conversation as a client would have it, each rule with its facts, and what would change the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatepost.cli.main import cli
from gatepost.config.usersfile import User, Users, write_users
from gatepost.model import ScramVerifier

CONFIG = """
hostname = "mx.example.net"
listen = ["192.0.2.5:25"]
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5:25"
recipients = ["anna"]
[relay]
networks = ["10.0.0.0/8"]
[[relay.rules]]
name = "bulk"
networks = ["10.1.0.0/16", "203.0.113.0/24"]
reverse_paths = ["@news.example.net"]
next_hop = "smtp://10.0.0.9:25"
[[relay.rules]]
name = "trial"
networks = ["198.51.100.0/24"]
mode = "shadow"
"""


@pytest.fixture
def explain(tmp_path: Path):
    path = tmp_path / "gatepost.toml"
    path.write_text(CONFIG)

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(cli, ["explain", "--config", str(path), *arguments])
        assert result.exit_code == status, result.output
        return result.output

    return run


@pytest.fixture
def explain_with(explain, tmp_path: Path):
    """The same with keys in front."""

    def run(keys: str, *arguments: str) -> str:
        (tmp_path / "gatepost.toml").write_text(keys + CONFIG)
        return explain(*arguments)

    return run


def test_a_refusal_says_what_would_change_it(explain) -> None:
    output = explain("--ip", "203.0.113.9", "--from", "me@example.net", "--to", "x@else.example")
    assert "S: 550 5.7.1 We do not relay to that domain for your address" in output
    assert "(EXPLAIN)" in output
    assert "yes client 203.0.113.9 in 203.0.113.0/24" in output
    assert "no  reverse-path <me@example.net>, wanted @news.example.net" in output
    assert "would be accepted from 10.0.0.0/8" in output
    assert "would be accepted with mail from @news.example.net" in output


def test_an_unknown_recipient_and_a_route_in_the_local_part(explain) -> None:
    output = explain("--ip", "8.8.8.8", "--to", "bob@example.net", "--to", "a%b@example.net")
    assert "S: 550 5.1.1 No such mailbox here" in output
    assert "would be accepted if the recipient existed" in output
    assert "would be accepted with a local part that asks for no route" in output


def test_json_has_route_right_and_shadow(explain) -> None:
    data = json.loads(
        explain(
            "--json",
            "--ip",
            "10.1.0.9",
            "--from",
            "x@news.example.net",
            "--to",
            "x@else.example",
            "--to",
            "anna@example.net",
        )
    )
    first, second = data["recipients"]
    assert (first["route"], first["rule"]) == ("smtp://10.0.0.9:25", "bulk")
    assert "would go to mx:else.example without the rule bulk" in first["changes"]
    assert (second["permit"], second["route"]) == ("recipient-domain", "smtp://10.0.0.5:25")
    (shadow,) = json.loads(explain("--json", "--ip", "198.51.100.3", "--to", "x@else.example"))["recipients"][0][
        "shadows"
    ]
    assert shadow == "rule trial would accept, by way of mx:else.example"


def test_a_session_goes_as_far_as_a_real_one(explain, tmp_path: Path) -> None:
    (tmp_path / "x.eml").write_bytes(b"Subject: x\n\n.a dot\nend\n")
    good = explain("--ip", "8.8.8.8", "--to", "anna@example.net", "--eml", str(tmp_path / "x.eml"))
    assert "S: 354" in good and "S: 250 2.0.0 Queued as (nothing is queued" in good
    (tmp_path / "x.eml").write_bytes(b"Received: x\n" * 60 + b"\nx\n")
    assert "S: 554 5.4.6 Too many hops" in explain(
        "--ip", "8.8.8.8", "--to", "anna@example.net", "--eml", str(tmp_path / "x.eml")
    )
    assert "S: 501" in explain("--ip", "8.8.8.8", "--helo", "bad name!", "--to", "anna@example.net")
    assert "S: 501" in explain("--ip", "8.8.8.8", "--from", "no domain", "--to", "anna@example.net")
    assert "S: 553" in explain("--ip", "8.8.8.8", "--to", "ännä@example.net")


def test_a_login_gives_a_right_where_there_are_users(explain, tmp_path: Path) -> None:
    arguments = ("--ip", "8.8.8.8", "--auth", "anna", "--to", "x@else.example")
    assert "S: 550 5.7.1" in explain(*arguments)
    with_users(tmp_path)
    shown = explain(*arguments)
    assert "right: identity anna" in shown and "S: 250 2.1.0" in shown


def with_users(directory: Path) -> None:
    """anna may send as anna@example.net and anna+*@example.net."""
    (directory / "gatepost.toml").write_text(CONFIG + '[auth]\nusers_file = "users"\n')
    verifier = ScramVerifier("sha256", 4096, b"salt" * 4, bytes(32), bytes(32))
    anna = User(name="anna", scram={"sha256": verifier}, addresses=("anna@example.net", "anna+*@example.net"))
    write_users(str(directory / "users"), Users(b"", {"anna": anna}))


def test_a_login_is_held_to_its_addresses(explain, tmp_path: Path) -> None:
    with_users(tmp_path)
    login = ("--ip", "8.8.8.8", "--auth", "anna", "--to", "x@else.example")
    assert "S: 553 5.7.1 This reverse-path is not bound" in explain(*login, "--from", "bob@example.net")
    message = tmp_path / "x.eml"
    message.write_bytes(b"From: bob@example.net\n\nx\n")
    mine = (*login, "--from", "anna+x@example.net", "--eml", str(message))
    assert "S: 550 5.7.1 The From address is not bound" in explain(*mine)
    message.write_bytes(b"From: Anna <anna@example.net>\n\nx\n")
    assert "S: 250 2.0.0 Queued as" in explain(*mine)


def test_who_does_not_exist_cannot_have_authenticated(explain, tmp_path: Path) -> None:
    with_users(tmp_path)
    explain("--ip", "8.8.8.8", "--auth", "bob", "--to", "x@else.example", status=2)


def test_a_user_of_the_host_is_held_to_his_addresses(explain, tmp_path: Path) -> None:
    (tmp_path / "gatepost.toml").write_text(CONFIG + '[local]\nusers = ["www-data"]\n')
    login = ("--ip", "127.0.0.1", "--auth", "uid:www-data", "--to", "x@else.example", "--from")
    assert "S: 553 5.7.1" in explain(*login, "boss@example.net")
    assert "S: 250 2.1.5" in explain(*login, "www-data@mx.example.net")


def test_a_name_is_no_address(explain) -> None:
    explain("--ip", "mail.example.net", "--to", "x@else.example", status=2)


def test_what_would_change_a_circle_is_not_that_the_recipient_existed(explain_with) -> None:
    output = explain_with(
        'aliases = "inline:{a = b, b = a}"\nalias_domains = ["example.net"]\n',
        "--ip",
        "8.8.8.8",
        "--to",
        "a@example.net",
    )
    assert "S: 550 5.4.6 The address leads in a circle" in output
    assert "would be accepted if its aliases led to an end" in output
    assert "if the recipient existed" not in output


def test_an_address_that_stands_for_one_elsewhere_is_called_ours(explain_with) -> None:
    output = explain_with(
        'virtual = "inline:{info@example.net = x@else.example}"\n', "--ip", "8.8.8.8", "--to", "info@example.net"
    )
    assert "domain else.example is not ours, and <info@example.net>, which stands for it, is" in output
    assert "FUTURERELEASE" not in output  # on `listen` it is not offered


def test_what_is_offered_is_what_that_listener_offers(explain, tmp_path: Path) -> None:
    with_users(tmp_path)
    path = tmp_path / "gatepost.toml"
    path.write_text(
        path.read_text()
        + '[[tls.certificates]]\ncertificate_file = "c.pem"\nkey_file = "k.pem"\n[tls]\nrequire = true\n'
    )
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).touch(0o600)
    plain = explain("--ip", "8.8.8.8", "--to", "anna@example.net")
    assert "STARTTLS" in plain and "S: 530 5.7.0" in plain and "AUTH" not in plain
    secured = explain("--ip", "8.8.8.8", "--to", "anna@example.net", "--tls-bits", "256")
    assert "S: 250-REQUIRETLS" in secured and "STARTTLS" not in secured and "S: 250 2.1.5" in secured
    login = explain("--ip", "8.8.8.8", "--auth", "anna", "--from", "anna@example.net", "--to", "x@else.example")
    assert "AUTH SCRAM-SHA-256-PLUS" in login and "FUTURERELEASE" in login and "S: 250 2.1.5" in login
