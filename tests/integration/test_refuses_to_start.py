"""A gateway that is not safe to run does not start: exit status 2, all that is wrong with the advice, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.nobody import NOBODY, as_nobody, find_python
from integration.peers.process import Family
from integration.talk import message, send
from peers import wait_until

needs_root = pytest.mark.skipif(not is_root(), reason="needs root")


@pytest.fixture
def gateway(tmp_path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    gateway.write_config()
    yield gateway
    gateway.stop()


def refuse(gateway: Gateway, *, before: str = "") -> str:
    """Start it, which must fail; what it printed. `before` is a shell command in a mount namespace of its own."""
    command = gateway.command()
    if before:
        command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    family = Family(process.pid)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, output + errors
    assert output == ""
    assert family.list_living() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
    assert not (gateway.spool / "run" / "control.sock").exists()
    return errors


def test_a_bad_configuration_tells_all_its_errors_and_nothing_is_made(gateway):
    text = gateway.config.read_text()
    text = (
        text.replace("hostname =", "hostnam =")
        .replace("networks =", "netwroks =")
        .replace("127.0.0.1:", "127.0.0.1:99999")
    )
    gateway.config.write_text(text + "[smtp]\nmax_errors = -1\n")
    errors = refuse(gateway)
    for part in ("hostnam", "did you mean", "netwroks", "99999", "max_errors", "hostname"):
        assert part in errors, errors
    assert f"{gateway.config}:" in errors
    assert not gateway.spool.exists() and not gateway.events_file.exists()


def test_a_configuration_that_is_not_there(gateway):
    gateway.config.unlink()
    assert str(gateway.config) in refuse(gateway)


def test_a_configuration_that_others_may_write_to(gateway):
    gateway.config.chmod(0o666)
    assert f"chmod go-w {gateway.config}" in refuse(gateway)


def test_a_spool_that_a_group_may_write_to(gateway):
    gateway.spool.mkdir()
    gateway.spool.chmod(0o777)
    assert f"chmod go-w {gateway.spool}" in refuse(gateway)
    gateway.spool.chmod(0o755)
    (gateway.spool / "segments").mkdir(mode=0o700)
    (gateway.spool / "segments").chmod(0o770)
    errors = refuse(gateway)
    assert "chmod" in errors and f"{gateway.spool}/segments" in errors


@needs_root
def test_a_spool_of_somebody_else(gateway):
    gateway.spool.mkdir()
    os.chown(gateway.spool, NOBODY, NOBODY)
    errors = refuse(gateway)
    assert "chown" in errors and str(gateway.spool) in errors and "nobody" in errors


@needs_root
def test_a_directory_in_the_spool_of_somebody_else(gateway):
    gateway.spool.mkdir(mode=0o711)
    (gateway.spool / "journal").mkdir(mode=0o700)
    os.chown(gateway.spool / "journal", NOBODY, NOBODY)
    errors = refuse(gateway)
    assert "chown" in errors and f"{gateway.spool}/journal" in errors


def test_a_spool_that_is_a_symbolic_link(gateway):
    real = gateway.directory / "elsewhere"
    real.mkdir(mode=0o711)
    gateway.spool.symlink_to(real)
    assert "symbolic link" in refuse(gateway)


def test_a_directory_above_the_spool_that_others_may_write_to(gateway):
    above = gateway.directory / "above"
    above.mkdir()
    above.chmod(0o777)
    gateway.spool = above / "spool"
    gateway.write_config()
    assert f"chmod go-w {above}" in refuse(gateway)


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_spool_that_would_not_survive_a_restart(gateway, kind):
    gateway.extra += "[queue]\n"
    gateway.write_config()
    gateway.spool.mkdir(mode=0o711)
    mount = f"mount -t tmpfs -o mode=0711 tmpfs {gateway.spool}"
    if kind == "overlay":
        layers = gateway.directory / "layers"
        layers.mkdir()
        parts = " ".join(f"{layers}/{name}" for name in ("lower", "upper", "work"))
        mount = (
            f"mount -t tmpfs tmpfs {layers} && mkdir -m 0711 {parts} && mount -t overlay overlay "
            f"-o lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work {gateway.spool}"
        )
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine lets nobody mount {kind}")
    errors = refuse(gateway, before=mount)
    assert f"lies on {kind}" in errors and "allow_volatile" in errors


def test_a_port_that_is_in_use(gateway):
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", gateway.port))
        taken.listen()
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("listen = [", f'listen = ["127.0.0.2:{gateway.port}", '))
        errors = refuse(gateway)
    assert f"cannot listen on 127.0.0.2:{gateway.port}" in errors and "another mail server" in errors


@needs_root
def test_a_port_below_1024_without_the_right_to_it():
    """In a network of its own: containers often let every user bind every port."""
    directory = Path(tempfile.mkdtemp(prefix="gatepost-port-"))
    directory.chmod(0o755)
    try:
        python = find_python(directory)
        gateway = Gateway(directory)
        gateway.write_config()
        gateway.config.write_text(gateway.config.read_text().replace(f"127.0.0.1:{gateway.port}", "0.0.0.0:25"))
        for path in (directory, gateway.config):
            os.chown(path, NOBODY, NOBODY)
        command = as_nobody(python, "-I", "-m", "gatepost", "run", "--config", str(gateway.config))
        done = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        assert "a port below 1024 needs root, CAP_NET_BIND_SERVICE or socket activation" in done.stderr
    finally:
        shutil.rmtree(directory)


def test_a_maildir_root_that_others_may_write_to(gateway):
    boxes = gateway.directory / "boxes"
    boxes.mkdir()
    boxes.chmod(0o777)
    gateway.next_hop = f"maildir:{boxes}/{{local}}"
    gateway.write_config()
    assert f"chmod go-w {boxes}" in refuse(gateway)


def test_an_event_file_that_cannot_be_written(gateway):
    gateway.events_file.mkdir()
    assert str(gateway.events_file) in refuse(gateway)


def test_an_event_file_that_the_file_system_refuses(gateway):
    gateway.events_file = "/sys/gatepost-events"
    gateway.write_config()
    errors = refuse(gateway)
    assert "not started: events.output: /sys/gatepost-events cannot be opened for writing (" in errors
    assert 'write "stderr"' in errors


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_a_damaged_segment_gives_back_its_good_records(tmp_path, where):
    """Five messages wait; the record of one is damaged on disk: four go on, its octets are kept aside, and it is reported."""
    with Gateway(tmp_path) as gateway:
        ids = [send(gateway.port, f"u{n}@example.test", message(f"number {n}", b"x" * 300 + b"\r\n")) for n in range(5)]
        wait_until(lambda: gateway.ledger()["queued"] == 5, "five messages")
        gateway.kill()
        victim = 2 if where == "in the middle" else 4
        segment = next(path for path in (gateway.spool / "segments").iterdir() if path.stat().st_size)
        octets = bytearray(segment.read_bytes())
        at = octets.index(b"Subject: number %d" % victim)
        octets[at : at + 7] = b"DAMAGED"
        segment.write_bytes(octets)
        gateway.start()
        assert {row["id"] for row in gateway.ask("queue", "list")["messages"]} >= set(ids) - {ids[victim]}
        damage = wait_until(
            lambda: [row for row in gateway.events("damaged") if row.get("id") == ids[victim]], "the report"
        )
        kept = [row["kept_as"] for row in damage if row.get("kept_as")]
        assert kept and b"DAMAGED: number %d" % victim in (gateway.spool / kept[0]).read_bytes()
        gateway.ledger()
