"""Users of the roles: own uid each as root, one uid otherwise. The password file is faked."""

from __future__ import annotations

import os
import pwd

import pytest

from gatepost.config import users
from gatepost.config.schema import Config, Domain, Processes
from gatepost.config.users import FIRST_SPARE_UID, ROLE_USERS, missing_users, role_ids


def config(**processes: dict[str, str]) -> Config:
    return Config(
        hostname="mx.example.net",
        listen=["127.0.0.1:25"],
        spool="/var/spool/gatepost",
        domains={"example.net": Domain(next_hop=["mx"])},
        processes=Processes(**processes),
    )


@pytest.fixture
def passwd(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """User names and uids that exist; the groups have the same numbers."""
    entries: dict[str, int] = {}

    def by_name(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", entries[name], entries[name], "", "/", "/bin/false"))

    def by_uid(uid: int) -> pwd.struct_passwd:
        return by_name({number: name for name, number in entries.items()}[uid])

    monkeypatch.setattr(users.pwd, "getpwnam", by_name)
    monkeypatch.setattr(users.pwd, "getpwuid", by_uid)
    monkeypatch.setattr(users.grp, "getgrgid", by_uid)
    monkeypatch.setattr(users.os, "geteuid", lambda: 0)
    return entries


def test_users_of_the_password_file(passwd: dict[str, int]) -> None:
    passwd.update({name: 100 + number for number, name in enumerate(ROLE_USERS.values())})
    ids = role_ids(config())
    assert ids["receiver"] == (100, 100, "gatepost-in")
    assert ids["maildir"] == (104, 104, "gatepost-box")
    assert missing_users(config()) == {}


def test_missing_users_get_numbers_that_nobody_has(passwd: dict[str, int]) -> None:
    passwd.update({"somebody": FIRST_SPARE_UID + 1, "gatepost-queue": 120})
    ids = role_ids(config())
    assert ids["receiver"] == (FIRST_SPARE_UID, FIRST_SPARE_UID, f"uid {FIRST_SPARE_UID}")
    assert ids["resolver"][0] == FIRST_SPARE_UID + 1 + len(ROLE_USERS)
    assert ids["queue"] == (120, 120, "gatepost-queue")
    assert len({uid for uid, _, _ in ids.values()}) == len(ROLE_USERS)
    assert 0 not in {uid for uid, _, _ in ids.values()}
    assert "queue" not in missing_users(config())
    assert missing_users(config())["receiver"] == "gatepost-in"


def test_configured_users(passwd: dict[str, int]) -> None:
    passwd["mailin"] = 130
    ids = role_ids(config(users={"receiver": "mailin"}))
    assert ids["receiver"] == (130, 130, "mailin")


def test_without_root_everybody_is_the_one_who_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users.os, "geteuid", lambda: 54321)
    ids = role_ids(config())
    assert set(ids) == set(ROLE_USERS)
    assert set(ids.values()) == {(54321, os.getegid(), "uid 54321")}
