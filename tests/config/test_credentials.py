"""Logins for next hops: what loads, what is wrong with a file of them, and that no error shows a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.credentialsfile import parse_credentials, secret_of, unruled_next_hops
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.paths import named_files
from gatepost.config.schema import Config
from gatepost.delivery.logins import logins_of

HEAD = """hostname = "gate.example.net"
listen = "192.0.2.1:25"
spool = "/var/spool/gatepost"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5:25"
"""
ROW = """[[delivery.credentials]]
next_hop = "smtp://Relay.example.net:587"
user = "gate"
password_file = "pw"
"""
FILE = """# logins
AuthInfo:relay.example.net "U:smmsp" "I:gate" "P:hidden one" "R:example" "M:LOGIN PLAIN CRAM-MD5"
authinfo:[10.0.0.9]:2525 "I:ten" "P:hidden:two"
[smart.example.org]:submission   user@example.org:hidden three
[2001:db8::1]:587 six:hidden4
"""


def load(directory: Path, text: str, listed: str = FILE) -> Config:
    (directory / "pw").write_text("hidden\nsecond line\n")
    (directory / "logins").write_text(listed)
    (directory / "empty").write_text("\nx\n")
    path = directory / "gatepost.toml"
    path.write_text(HEAD + text)
    path.chmod(0o600)
    return load_config(str(path))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(directory / name): (directory / name).read_bytes() for name in ("pw", "logins")}


def test_a_row(tmp_path: Path) -> None:
    config = load(tmp_path, ROW)
    assert config.delivery.credentials[0].next_hop == "smtp://relay.example.net:587"
    assert secret_of(config, 0, contents(tmp_path)) == "hidden"
    assert (str(tmp_path / "pw"), True) in named_files(config)
    assert list(logins_of(config, contents(tmp_path))) == [("relay.example.net", 587)]
    assert unruled_next_hops(config) == ["smtp://relay.example.net:587"]


def test_a_file_in_both_forms(tmp_path: Path) -> None:
    config = load(tmp_path, '[delivery]\ncredentials_file = "logins"\n')
    rows = config.delivery.credentials
    found = {row.next_hop: (row.user, secret_of(config, number, contents(tmp_path))) for number, row in enumerate(rows)}
    assert found == {
        "smtp://relay.example.net:25": ("smmsp", "hidden one"),
        "smtp://relay.example.net:587": ("smmsp", "hidden one"),
        "smtp://10.0.0.9:2525": ("ten", "hidden:two"),
        "smtp://smart.example.org:587": ("user@example.org", "hidden three"),
        "smtp://[2001:db8::1]:587": ("six", "hidden4"),
    }
    assert rows[0].mechanisms == ["LOGIN", "PLAIN"]
    assert (str(tmp_path / "logins"), True) in named_files(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ROW.replace("smtp://Relay.example.net:587", "mx:example.net"), "is not one host"),
        (ROW.replace("smtp://Relay.example.net:587", "lmtp://a.test:24"), "is not one host"),
        (ROW + ROW, "there is a login"),
        (ROW.replace('password_file = "pw"', ""), "needs one of password_file and token_file"),
        (ROW + 'token_file = "pw"\n', "needs one of password_file and token_file"),
        (ROW + 'mechanisms = ["CRAM-MD5"]\n', "not one of the choices"),
        (
            ROW + '[[tls.policies]]\nlevel = "opportunistic"\nnext_hops = ["smtp://relay.example.net:587"]\n',
            "would go in clear",
        ),
        ('[delivery]\ncredentials_file = "gone"\n', "cannot be read"),
        (ROW.replace('"pw"', '"gone"'), "cannot be read"),
        (ROW.replace('"pw"', '"empty"'), "has no password in its first line"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('AuthInfo: "U:a" "P:hidden"', "names no host"),
        ('AuthInfo:a.test "U:a"', "no name or no password"),
        ('AuthInfo:a.test "U:a" "P=aGlkZGVu"', "in base64"),
        ("user@example.net user:hidden", "is a sender"),
        ("a.test hidden", "the line is no login"),
    ],
)
def test_bad_lines_name_the_line_and_no_secret(line: str, problem: str) -> None:
    with pytest.raises(ConfigErrors) as raised:
        parse_credentials("logins", f"# one\n{line}\n".encode())
    assert "logins:2:" in str(raised.value) and problem in str(raised.value) and "hidden" not in str(raised.value)


def test_a_file_without_its_password(tmp_path: Path) -> None:
    config = load(tmp_path, ROW)
    with pytest.raises(ConfigErrors, match="no password for smtp://relay"):
        secret_of(config, 0, {str(tmp_path / "pw"): b"\n"})
