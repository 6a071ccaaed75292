"""Mode and group of what is delivered into Maildirs, by the real roles, and a real Dovecot of the group that reads it."""

from __future__ import annotations

import grp
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.nobody import NOBODY, find_python
from integration.peers.maildir import wait_for_messages
from integration.peers.packages import require
from integration.talk import send

GROUP = "mail"
SECTION = f'[maildir]\nfile_mode = "0640"\ndirectory_mode = "0750"\ngroup = "{GROUP}"\n'
READER = 64999  # a user that nobody is


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="gatepost-box-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def rights(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_gid


def start(place: Path, section: str = SECTION) -> Gateway:
    return Gateway(place, next_hop=f"maildir:{place}/boxes/{{domain}}/{{local}}", extra=section)


def deliver(gateway: Gateway, box: Path, count: int = 1) -> Path:
    """The directory `new` of a Maildir that a message has come to; nothing more is done there when it is on record."""
    sent = send(gateway.port, "user@example.test")
    wait_for_messages(box, count)
    gateway.wait_for_event("delivered", id=sent)
    return box / "new"


@pytest.mark.skipif(not is_root(), reason="roles have a group of their own only under root")
def test_files_and_directories_have_the_mode_and_group_and_dovecot_reads_them(place: Path):
    gid = grp.getgrnam(GROUP).gr_gid
    box = place / "boxes/example.test/user"
    with start(place) as gateway:
        new = deliver(gateway, box)
        for directory in (place / "boxes", box.parent, box, new, box / "tmp", box / "cur"):
            assert rights(directory) == (0o750, gid), directory
        (file,) = new.iterdir()
        assert rights(file) == (0o640, gid)
        report = gateway.ask("privs")
        assert report["as_declared"] is True
        role = next(process for process in report["processes"] if process["role"] == "maildir")
        assert set(role["kernel"]["gids"]) == {gid} and role["kernel"]["groups"] == []
        assert role["declared"]["group"] == f"that of maildir.group, {GROUP}"
        assert b"Subject: " in fetch_with_dovecot(place, box, gid)
        with pytest.raises(AssertionError):
            fetch_with_dovecot(place, box, NOBODY)  # of another group: nothing
        gateway.assert_no_bugs()


def fetch_with_dovecot(place: Path, box: Path, gid: int) -> bytes:
    """What Dovecot finds in the mailbox, as another user who is in that group."""
    home = place / f"reader-{gid}"
    home.mkdir(exist_ok=True)
    os.chown(home, READER, gid)
    config = home / "dovecot.conf"
    config.write_text(f"base_dir = {home}/run\nlog_path = /dev/stderr\nssl = no\nfirst_valid_uid = 1\n")
    require("dovecot")
    command = ["doveadm", "-c", str(config), "-o"]
    command += [f"mail_location=maildir:{box}:INDEX={home}/index:CONTROL={home}/control", "fetch", "text", "ALL"]
    drop = ["setpriv", "--reuid", str(READER), "--regid", str(gid), "--clear-groups", "--inh-caps=-all"]
    environment = {"HOME": str(home), "USER": "reader", "PATH": os.environ["PATH"]}
    done = subprocess.run([*drop, *command], capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr.decode()
    return done.stdout


@pytest.mark.skipif(not is_root(), reason="makes a directory for another group")
def test_a_directory_that_gives_files_to_another_group_gets_no_mail(place: Path):
    box = place / "boxes/example.test/user"
    once = "[queue]\nallow_volatile = true\nretry_min_s = 3600\n"  # another attempt would have its file in tmp for a moment
    with start(place, SECTION + once) as gateway:
        deliver(gateway, box)
        for part in ("tmp", "new", "cur"):
            os.chown(box / part, -1, NOBODY)
            (box / part).chmod(0o2750)  # whatever is made here is nogroup's
        send(gateway.port, "user@example.test")
        told = gateway.wait_for_event("deferred")
        assert "not of the group of maildir.group" in told["text"]
        assert len(list((box / "new").iterdir())) == 1 and not list((box / "tmp").iterdir())
        gateway.assert_no_bugs()


@pytest.mark.skipif(not is_root(), reason="makes directories for the role")
def test_a_group_is_taken_over_by_a_reload_and_a_wrong_one_is_not(place: Path):
    gid = grp.getgrnam(GROUP).gr_gid
    with start(place, "") as gateway:
        box = place / "boxes/example.test/user"
        (file,) = deliver(gateway, box).iterdir()
        assert rights(file)[0] == 0o600 and rights(box)[0] == 0o700
        gateway.extra = SECTION.replace(f'"{GROUP}"', '"nosuchgroup"')
        gateway.write_config()
        refused = gateway.run("reload")
        assert refused.returncode != 0 and 'there is no group "nosuchgroup"' in refused.stdout + refused.stderr
        gateway.extra = SECTION
        gateway.write_config()
        refused = gateway.run("reload")
        assert refused.returncode != 0 and f"chgrp {GROUP} {place}/boxes" in refused.stdout + refused.stderr
        shutil.rmtree(place / "boxes/example.test")
        os.chown(place / "boxes", -1, gid)
        (place / "boxes").chmod(0o750)
        done = gateway.run("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        (file,) = deliver(gateway, box).iterdir()
        assert rights(file) == (0o640, gid) and rights(box) == (0o750, gid)


def test_without_root_the_setgid_bit_gives_the_group(place: Path):
    python = find_python(place)
    gid = grp.getgrnam(GROUP).gr_gid
    os.chown(place, NOBODY, NOBODY)
    gateway = start(place)
    command = gateway.command
    drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", str(gid)]
    drop += ["--inh-caps=-all", "--bounding-set=-all"]

    def as_member() -> list[str]:
        os.chown(gateway.config, NOBODY, NOBODY)
        return [*drop, python, *command()[1:]]

    gateway.command = as_member  # type: ignore[method-assign]
    with gateway:
        box = place / "boxes/example.test/user"
        (file,) = deliver(gateway, box).iterdir()
        assert rights(file) == (0o640, gid)
        for directory in (place / "boxes", box.parent, box, file.parent):
            assert rights(directory) == (0o2750, gid), directory
        assert gateway.ask("privs")["as_declared"] is True
        gateway.assert_no_bugs()


def test_maildirs_that_only_a_table_or_a_rule_names(place: Path):
    """Each root has a process of its own: that of a rule is found, that of a table is named."""
    (place / "routes").write_text(f"user@example.test maildir:{place}/tabled/{{local}}\n")
    (place / "routes").chmod(0o600)
    table = f'routes = ["file:{place}/routes"]\n'
    section = f'[maildir]\nroots = ["{place}/tabled"]\n[[relay.rules]]\nname = "kept"\nnetworks = ["127.0.0.1"]\n'
    section += f'domains = ["elsewhere.test"]\nnext_hop = "maildir:{place}/ruled"\n'
    with Gateway(place, top=table, extra=section) as gateway:
        send(gateway.port, "user@example.test")
        send(gateway.port, "someone@elsewhere.test")
        assert len(wait_for_messages(place / "tabled/user", 1)) == 1
        assert len(wait_for_messages(place / "ruled", 1)) == 1
        gateway.assert_no_bugs()
