"""Which mechanisms are offered where, and what of `[auth]` does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.authvalues import auth_files, offered_mechanisms
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Auth

HEAD = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5"
[auth]
"""
ALL = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")


@pytest.mark.parametrize(
    ("auth", "kind", "secured", "asks", "offered"),
    [
        (Auth(), "submission", True, True, ()),
        (Auth(users_file="u"), "submission", False, False, ()),
        (Auth(users_file="u"), "edge", True, True, ()),
        (Auth(users_file="u", jwks_file="j"), "submission", True, True, ALL),
        (Auth(users_file="u"), "submission", True, True, (*ALL[:2], *ALL[4:])),
        (Auth(users_file="u"), "submissions", True, False, (*ALL[:2], *ALL[4:])),
        (Auth(users_file="u", mechanisms=["EXTERNAL", "PLAIN"]), "submission", True, True, ("EXTERNAL", "PLAIN")),
        (Auth(users_file="u", mechanisms=["EXTERNAL", "PLAIN"]), "submission", True, False, ("PLAIN",)),
        (Auth(users_file="u", on_edge=True), "edge", True, False, (*ALL[:2], *ALL[4:])),
        (Auth(users_file="u", require_tls=False, jwks_file="j"), "submission", False, True, ("SCRAM-SHA-256",)),
        (Auth(users_file="u", require_tls=False, mechanisms=["PLAIN"]), "submission", False, True, ()),
        (Auth(users_file="u", mechanisms=["SCRAM-SHA-1", "PLAIN"]), "submission", True, True, ("SCRAM-SHA-1", "PLAIN")),
    ],
)
def test_offers(auth: Auth, kind: str, secured: bool, asks: bool, offered: tuple[str, ...]) -> None:
    assert offered_mechanisms(auth, kind, secured=secured, asks_certificate=asks) == offered


def test_files() -> None:
    assert auth_files(Auth()) == auth_files(Auth(jwks_file="j")) == []
    assert auth_files(Auth(users_file="u", jwks_file="j")) == ["u", "j"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("require_tls = true", "the key users_file is missing"),
        ('users_file = "users"\njwks_file = "j"\nissuer = "i"', 'the key "audience" is missing'),
        ('users_file = "users"\njwks_file = "j"\naudience = "a"', 'the key "issuer" is missing'),
        ('users_file = "users"\nmechanisms = ["CRAM-MD5"]', '"CRAM-MD5" is not one of the choices'),
        ('users_file = "users"\ndelay_s = 60\nmax_delay_s = 30', "the first delay cannot be longer"),
        ('users_file = "users"\nmax_failures = 0', "out of range"),
        ('users_file = "users"\nusers = "x"', "there is no such key"),
    ],
)
def test_errors(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "gatepost.toml").write_text(HEAD + text + "\n")
    with pytest.raises(ConfigErrors, match=says):
        load_config(str(tmp_path / "gatepost.toml"))


def test_a_users_file_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "gatepost.toml").write_text(HEAD + 'users_file = "users"\n')
    assert load_config(str(tmp_path / "gatepost.toml")).auth.users_file == str(tmp_path / "users")
