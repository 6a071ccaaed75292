"""`gatepost user`: what is written, what is refused, and that no password is ever in the file."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatepost.cli.main import cli
from gatepost.config import argon2id
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.usersfile import (
    User,
    Users,
    locked,
    parse_pattern,
    parse_users,
    read_users,
    render_users,
    write_users,
)
from gatepost.config.values import InvalidValue
from gatepost.smtp.sasl.scram import derive_verifier, is_password

CONFIG = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5"
[auth]
users_file = "users"
"""
GOOD = "correct horse"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "gatepost.toml").write_text(CONFIG)
    return tmp_path


def run(directory: Path, *arguments: str, typed: str = "") -> Result:
    command = ["user", *arguments, "--config", str(directory / "gatepost.toml")]
    return CliRunner().invoke(cli, command, input=typed)


def users(directory: Path) -> dict[str, User]:
    return read_users(str(directory / "users")).users


def test_add_list_passwd_remove(directory: Path) -> None:
    assert run(directory, "add", "Anna@Example.net", "--stdin", typed=f"{GOOD}\n").exit_code == 0
    file = directory / "users"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert GOOD not in file.read_text()
    anna = users(directory)["anna@example.net"]
    assert is_password(anna.scram["sha256"], GOOD)
    assert (anna.addresses, list(anna.scram), anna.argon2id) == ((), ["sha256"], "")

    done = run(
        directory,
        "add",
        "scanner",
        "--from",
        "scan@example.net",
        "--from",
        "scan+*@Example.net",
        "--generate",
        "--json",
    )
    made = json.loads(done.stdout)
    assert len(made["password"]) == 20
    assert is_password(users(directory)["scanner"].scram["sha256"], made["password"])
    assert made["password"] not in file.read_text()

    rows = json.loads(run(directory, "list", "--json").stdout)
    assert [(row["name"], row["from"]) for row in rows] == [
        ("anna@example.net", ["anna@example.net"]),
        ("scanner", ["scan@example.net", "scan+*@example.net"]),
    ]
    assert "anna@example.net  scram-sha256  from anna@example.net" in run(directory, "list").stdout

    secret = read_users(str(file)).secret
    assert (
        run(directory, "passwd", "scanner", "--stdin", "--verifier", "argon2id", typed="battery staple").exit_code == 0
    )
    scanner = users(directory)["scanner"]
    assert argon2id.is_password(scanner.argon2id, "battery staple")
    assert not argon2id.is_password(scanner.argon2id, "battery stapler")
    assert (scanner.scram, scanner.addresses) == ({}, ("scan@example.net", "scan+*@example.net"))
    assert read_users(str(file)).secret == secret

    assert run(directory, "remove", "ANNA@example.net").exit_code == 0
    assert list(users(directory)) == ["scanner"]
    assert os.listdir(directory).count("users.new") == 0


def test_a_prompt_asks_twice(directory: Path) -> None:
    assert run(directory, "add", "anna@example.net", typed=f"{GOOD}\n{GOOD}\n").exit_code == 0
    assert run(directory, "add", "bob@example.net", typed=f"{GOOD}\nother\n").exit_code == 1
    assert list(users(directory)) == ["anna@example.net"]


def test_sha_1_only_if_asked_for(directory: Path) -> None:
    run(directory, "add", "anna@example.net", "--stdin", "--sha-1", typed=GOOD)
    assert is_password(users(directory)["anna@example.net"].scram["sha1"], GOOD)


@pytest.mark.parametrize(
    ("arguments", "typed", "says"),
    [
        (["add", "anna"], GOOD, "is not an address"),
        (["add", "an na@example.net"], GOOD, "is not a user name"),
        (["add", "!secret"], GOOD, "is not a user name"),
        (["add", "anna@example.net", "--from", "*@*"], GOOD, "is not an address or a pattern"),
        (["add", "anna@example.net", "--from", "@example.net"], GOOD, "is not an address or a pattern"),
        (["add", "anna@example.net"], "short", "8 characters"),
        (["add", "anna@example.net"], "contr\x07ol character", "not every client"),
        (["add", "bob@example.net"], GOOD, "exists"),
        (["passwd", "anna@example.net"], GOOD, "there is no user"),
    ],
)
def test_refusals(directory: Path, arguments: list[str], typed: str, says: str) -> None:
    run(directory, "add", "bob@example.net", "--stdin", typed=GOOD)
    before = (directory / "users").read_bytes()
    done = run(directory, *arguments, "--stdin", typed=typed)
    assert (done.exit_code, says in done.stderr) == (1, True), done.stderr
    assert (directory / "users").read_bytes() == before


def test_without_a_users_file_in_the_configuration(directory: Path) -> None:
    (directory / "gatepost.toml").write_text(CONFIG.split("[auth]")[0])
    assert run(directory, "list").exit_code == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_file_that_others_may_read_is_refused(directory: Path, mode: int) -> None:
    run(directory, "add", "anna@example.net", "--stdin", typed=GOOD)
    (directory / "users").chmod(mode)
    done = run(directory, "list")
    assert done.exit_code == 2
    assert "chmod 0600" in done.stderr
    with pytest.raises(ConfigErrors, match="chmod 0600"):
        load_config(str(directory / "gatepost.toml"))


def test_a_link_is_refused(directory: Path) -> None:
    (directory / "real").write_text("")
    (directory / "users").symlink_to(directory / "real")
    assert run(directory, "add", "anna@example.net", "--stdin", typed=GOOD).exit_code == 2
    assert (directory / "real").read_text() == ""


SECRET = f"!secret {'A' * 43}=\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("anna@example.net\n", "has no verifier"),
        ("anna@example.net scram-sha-256=4096:AAAA:BBBB\n", "damaged"),
        ("anna@example.net scram-sha-256=1000:AAAAAAAAAAAAAAAA:AAAA:AAAA\n", "too few"),
        ("anna@example.net scram-sha-256=9999999:AAAAAAAAAAAAAAAA:AAAA:AAAA\n", "too many"),
        ("anna@example.net scram-sha-256=4096:AAAAAAAAAAAAAAAA:AAAA:AAAA\n", "another length"),
        ("anna@example.net argon2id=$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA\n", "Argon2id"),
        (
            "anna@example.net argon2id=$argon2id$v=19$m=999999,t=2,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA\n",
            "expensive",
        ),
        ("anna@example.net password=hunter2\n", "unknown here"),
        ("!secret x\n", "another length"),
    ],
)
def test_bad_lines(directory: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigErrors, match=says):
        parse_users(SECRET + text, "users")
    (directory / "users").write_text(SECRET + text)
    (directory / "users").chmod(0o600)
    with pytest.raises(ConfigErrors, match=f"users:2: .*{says}" if not text.startswith("!") else says):
        load_config(str(directory / "gatepost.toml"))


def test_what_is_written_is_read_back() -> None:
    anna = User(name="anna", scram={"sha256": derive_verifier("x", b"s" * 16, 4096)}, addresses=("a@example.net",))
    bob = User(name="bob", argon2id=argon2id.derive("y"))
    kept = Users(b"k" * 32, {"anna": anna, "bob": bob})
    assert parse_users(render_users(kept)) == kept


def test_patterns() -> None:
    assert parse_pattern("A+*@Müller.test") == "a+*@xn--mller-kva.test"
    for bad in ("a@*.test", "*a*@b.test", "a", "a b@c.test", '"a"@b.test'):
        with pytest.raises(InvalidValue):
            parse_pattern(bad)


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "users")
    verifier = {"sha256": derive_verifier("x", b"s" * 16, 4096)}

    def add(name: str) -> None:
        with locked(path):
            kept = read_users(path)
            write_users(path, Users(kept.secret, kept.users | {name: User(name=name, scram=verifier)}))

    threads = [threading.Thread(target=add, args=(f"user{n}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_users(path).users) == 12
