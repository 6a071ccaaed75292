"""`[maildir]`: which modes and groups are taken, and what is said of the others."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.maildirfiles import parse_directory_mode, parse_file_mode, root_mode
from gatepost.config.paths import inspect_paths
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue

GROUP = "mail"  # of every Debian


def load(directory: Path, text: str) -> Config:
    path = directory / "gatepost.toml"
    path.write_text(
        f'hostname = "mx.example.net"\nlisten = "127.0.0.1:2525"\nspool = "{directory}/spool"\n'
        f'domains = ["example.net"]\nnext_hop = "maildir:{directory}/mail/{{domain}}/{{local}}"\n[maildir]\n{text}\n'
    )
    path.chmod(0o600)
    return load_config(str(path))


def errors(directory: Path, text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load(directory, text)
    return str(caught.value)


def test_by_default_only_the_owner_reads_mail(tmp_path: Path):
    config = load(tmp_path, "")
    assert (config.maildir.file_mode, config.maildir.directory_mode, config.maildir.group) == ("0600", "0700", None)
    assert root_mode(config, as_root=False) == 0o700


@pytest.mark.parametrize("mode", ["0620", "0602", "0660", "666", "0666"])
def test_a_mode_that_lets_others_write_messages_is_refused_with_the_reason(tmp_path: Path, mode: str):
    assert "lets others than the gateway write there" in errors(tmp_path, f'file_mode = "{mode}"')


@pytest.mark.parametrize("mode", ["0720", "0770", "0702", "777"])
def test_a_mode_that_lets_others_write_directories_is_refused_with_the_reason(tmp_path: Path, mode: str):
    assert "lets others than the gateway write there" in errors(tmp_path, f'directory_mode = "{mode}"')


@pytest.mark.parametrize(
    ("parse", "mode", "problem"),
    [
        (parse_file_mode, "0644", "every user of this host"),
        (parse_directory_mode, "0755", "every user of this host"),
        (parse_file_mode, "0750", "executed"),
        (parse_file_mode, "0400", "owner"),
        (parse_directory_mode, "0600", "owner"),
        (parse_file_mode, "2640", "not a mode"),
        (parse_directory_mode, "rwx", "not a mode"),
    ],
)
def test_other_modes_that_make_no_sense(parse, mode: str, problem: str):
    with pytest.raises(InvalidValue) as caught:
        parse(mode)
    assert problem in caught.value.problem


def test_a_group_has_to_exist(tmp_path: Path):
    told = errors(tmp_path, 'file_mode = "0640"\ngroup = "nosuchgroup"')
    assert 'there is no group "nosuchgroup"' in told and "addgroup" in told


def test_a_group_that_the_modes_give_nothing(tmp_path: Path):
    assert "give the group nothing" in errors(tmp_path, f'group = "{GROUP}"')


def test_the_group_of_root_is_refused(tmp_path: Path):
    assert "the group of root" in errors(tmp_path, 'file_mode = "0640"\ngroup = "root"')


def test_the_group_of_another_role_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = grp.struct_group(("gatepost-queue", "x", 4711, []))
    monkeypatch.setattr(grp, "getgrnam", lambda name: entry)
    assert "the group of another role" in errors(tmp_path, 'file_mode = "0640"\ngroup = "gatepost-queue"')


def test_who_is_not_root_has_to_be_in_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = f'file_mode = "0640"\ndirectory_mode = "0750"\ngroup = "{GROUP}"'
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: nobody.pw_gid)
    monkeypatch.setattr(os, "getgroups", lambda: [nobody.pw_gid])
    told = errors(tmp_path, text)
    assert "is not in the group" in told and f"adduser USER {GROUP}" in told
    monkeypatch.setattr(os, "getgroups", lambda: [grp.getgrnam(GROUP).gr_gid])
    assert load(tmp_path, text).maildir.group == GROUP


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to a group")
def test_a_root_that_the_group_cannot_enter_is_a_problem_with_its_command(tmp_path: Path):
    config = load(tmp_path, f'file_mode = "0640"\ndirectory_mode = "0750"\ngroup = "{GROUP}"')
    root = tmp_path / "mail"
    root.mkdir(mode=0o700)
    gid = grp.getgrnam(GROUP).gr_gid

    def found(starter: int) -> list[str]:
        return [
            problem.command
            for problem in inspect_paths(config, f"{tmp_path}/gatepost.toml", starter)
            if problem.path == str(root)
        ]

    assert f"chgrp {GROUP} {root} && chmod 0750 {root}" in found(0)
    os.chown(root, 0, gid)
    root.chmod(0o750)
    assert not found(0)
    nobody = pwd.getpwnam("nobody").pw_uid
    # without root only the setgid bit gives the group
    assert f"chgrp {GROUP} {root} && chmod 2750 {root}" in found(nobody)
    root.chmod(0o2750)
    assert not found(0)
    assert all("chgrp" not in command for command in found(nobody))
    root.chmod(0o2770)
    assert f"chmod g-w {root}" in found(0)  # as ever


def test_the_root_has_the_setgid_bit_only_without_root(tmp_path: Path):
    config = load(tmp_path, f'file_mode = "0640"\ndirectory_mode = "0750"\ngroup = "{GROUP}"')
    assert root_mode(config, as_root=True) == 0o750
    assert root_mode(config, as_root=False) == 0o750 | stat.S_ISGID
