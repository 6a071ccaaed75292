"""Which mechanisms are offered where, and what of `[auth]` does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.authvalues import auth_files, offered_mechanisms
from gatepost.config.errors import ConfigErrors
from gatepost.config.introspection import introspection_files, parse_credentials
from gatepost.config.load import load_config
from gatepost.config.schema import Auth
from gatepost.config.tlsvalues import SYSTEM_CA_FILE

HEAD = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "spool"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5"
[auth]
"""
ASKED = """\
users_file = "users"
audience = "a"
introspection_url = "https://l.test/i"
introspection_credentials_file = "secret"
"""
ALL = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")


@pytest.mark.parametrize(
    ("auth", "kind", "secured", "asks", "offered"),
    [
        (Auth(), "submission", True, True, ()),
        (Auth(users_file="u"), "submission", False, False, ()),
        (Auth(users_file="u"), "edge", True, True, ()),
        (Auth(users_file="u", jwks_file="j"), "submission", True, True, ALL),
        (Auth(users_file="u", introspection_url="https://l.test/i"), "submission", True, True, ALL),
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
        ('users_file = "users"\nintrospection_url = "https://l.test/i"', 'the key "audience" is missing'),
        (ASKED.replace("https", "http"), "tokens would go there in clear"),
        (ASKED.replace("l.test", "me:pw@l.test"), "has a login in its address"),
        (ASKED.replace("l.test", "192.0.2.1"), "not a domain|is an address"),
        (ASKED.replace("/i", "/i#x"), "is not an address of a web server"),
        (ASKED + 'jwks_file = "j"\nissuer = "i"', "both say which tokens are good"),
        (ASKED.replace('"secret"', '"none"'), "cannot be read"),
        (ASKED.replace('"secret"', '"bad"'), "neither"),
        (ASKED.replace("introspection_credentials_file", "#"), "introspection_credentials_file is missing"),
        (ASKED + "introspection_keep_s = 61", "out of range"),
        ('dovecot = "unix:/x"\nintrospection_url = "https://l.test/i"', "both say who the users are"),
        ('users_file = "users"\nmechanisms = ["CRAM-MD5"]', '"CRAM-MD5" is not one of the choices'),
        ('users_file = "users"\ndelay_s = 60\nmax_delay_s = 30', "the first delay cannot be longer"),
        ('users_file = "users"\nmax_failures = 0', "out of range"),
        ('users_file = "users"\nusers = "x"', "there is no such key"),
    ],
)
def test_errors(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "gatepost.toml").write_text(HEAD + text + "\n")
    (tmp_path / "secret").write_text("name:secret\n")
    (tmp_path / "bad").write_text("secret\n")
    with pytest.raises(ConfigErrors, match=says):
        load_config(str(tmp_path / "gatepost.toml"))


def test_a_users_file_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "gatepost.toml").write_text(HEAD + 'users_file = "users"\n')
    assert load_config(str(tmp_path / "gatepost.toml")).auth.users_file == str(tmp_path / "users")


def test_introspection_is_set_up(tmp_path: Path) -> None:
    (tmp_path / "gatepost.toml").write_text(HEAD + ASKED.replace("/i", "/i?x=1").replace("l.test", "L.test:443"))
    (tmp_path / "secret").write_text("name:secret\n")
    config = load_config(str(tmp_path / "gatepost.toml"))
    assert config.auth.introspection_url == "https://l.test/i?x=1"
    assert introspection_files(config) == [SYSTEM_CA_FILE, str(tmp_path / "secret")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a:b", "Basic YTpi"),
        (b"a:b:c\r\nmore", "Basic YTpiJTNBYw=="),
        ("\u00e4 x:y".encode(), "Basic JUMzJUE0K3g6eQ=="),
        (b"Bearer abc.def==\n", "Bearer abc.def=="),
        (b"Bearer a b", ""),
        (b"a:", ""),
        (b":b", ""),
        (b"a:b\0", ""),
        (b"a:" + b"x" * 5000, ""),
    ],
)
def test_credentials(content: bytes, says: str) -> None:
    if says:
        assert parse_credentials(content) == says
    else:
        with pytest.raises(ValueError, match="neither"):
            parse_credentials(content)
