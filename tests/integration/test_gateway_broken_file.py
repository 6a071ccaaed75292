"""A configuration file that was broken while the gateway runs keeps no operator from it."""

from __future__ import annotations

import pytest
from integration.gateway import Gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    (directory / "mail").mkdir(mode=0o700)
    with Gateway(directory, next_hop=f"maildir:{directory}/mail/box") as server:
        yield server


@pytest.mark.parametrize("broken", ["listen = [\n", "bogus_key = 1\n", 'relay = "all"\n'])
def test_the_running_gateway_still_answers(gateway, broken):
    good = gateway.config.read_text()
    gateway.config.write_text(broken + good)
    try:
        assert gateway.run("check").returncode == 2
        assert gateway.ask("queue", "list")["total"] == 0
        assert gateway.ask("ledger")["accepted"] == 0
        assert gateway.run("status").returncode == 0
        done = gateway.run("privs")
        assert done.returncode == 0 and done.stdout.endswith("as declared\n"), done.stdout + done.stderr
        assert "has errors" in done.stderr and "still runs" in done.stderr
        assert gateway.run("reload").returncode != 0
    finally:
        gateway.config.write_text(good)


def test_without_a_gateway_the_errors_of_the_file_are_told(tmp_path):
    stopped = Gateway(tmp_path)
    stopped.write_config()
    stopped.config.write_text("bogus_key = 1\n" + stopped.config.read_text())
    for command in (["ledger"], ["privs"], ["queue", "list"]):
        done = stopped.run(*command)
        assert done.returncode == 2 and "bogus_key" in done.stderr, done
    stopped.config.unlink()
    assert stopped.run("ledger").returncode == 2
