"""The look at the live processes: what is new is told once, what is gone is forgotten, and a failure of the look is told too."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from gatepost.config.schema import Config
from gatepost.privsep import attest, watch
from gatepost.privsep.attest import RoleReport, notes
from gatepost.privsep.kernel import read_process
from gatepost.privsep.watch import Watch
from gatepost.privsep.writable import writable_paths

CONFIG = Config(hostname="g.test", listen=[], spool="/x", domains={})


def look(one: Watch, monkeypatch: pytest.MonkeyPatch, *differences: list[str]) -> list[dict]:
    reports = [RoleReport("receiver", n, 1, 100 + n, differences=found) for n, found in enumerate(differences)]
    monkeypatch.setattr(watch, "attest", lambda config, rows, records: reports)
    return one.look(CONFIG, [{}] * len(reports))


def test_each_difference_is_told_once_for_as_long_as_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Watch()
    assert one.last()["as_declared"] is None
    assert look(one, monkeypatch, [], []) == []
    assert one.last()["as_declared"] is True
    (event,) = look(one, monkeypatch, ["a", "b"], [])
    assert (event["name"], event["number"], event["differences"]) == ("receiver", 0, ["a", "b"])
    assert look(one, monkeypatch, ["a", "b"], []) == []
    assert [row["differences"] for row in look(one, monkeypatch, ["a", "c"], ["a"])] == [["c"], ["a"]]
    assert one.counters() == {"privs_checks": 4, "privs_differences": 3, "privs_differences_ever": 4}
    assert look(one, monkeypatch, [], []) == []
    assert one.last()["as_declared"] is True and one.counters()["privs_differences_ever"] == 4


def test_a_process_counts_as_seen_when_it_was_locked_in(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Watch()
    monkeypatch.setattr(watch, "attest", lambda config, rows, records: [])
    one.look(CONFIG, [{"pid": 1, "state": "ready"}, {"pid": 2, "state": "draining"}, {"pid": 3, "state": "starting"}])
    assert one.has_seen([1, 2]) and not one.has_seen([1, 3]) and not one.has_seen([4])


def test_a_process_that_ended_meanwhile_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(Watch(), monkeypatch, ["the process has ended"]) == []


def test_a_look_that_fails_is_told_and_does_not_end_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no /proc")

    one = Watch()
    monkeypatch.setattr(watch, "attest", fail)
    assert "no /proc" in str(one.look(CONFIG, []))
    assert one.look(CONFIG, []) == []
    assert one.last()["as_declared"] is False


def test_writable_paths_by_owner_group_and_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, mode in (("own", 0o600), ("theirs", 0o644), ("open", 0o666), ("group", 0o664)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "deep").mkdir(mode=0o755)
    (tmp_path / "deep" / "box").mkdir()
    (tmp_path / "deep" / "box").chmod(0o777)
    (tmp_path / "deep" / "box" / "inner").touch()
    (tmp_path / "link").symlink_to("/etc")
    me, gid = os.geteuid(), os.stat(tmp_path).st_gid
    assert writable_paths(str(tmp_path), me, {gid}) == (["/ and below"], True)
    assert writable_paths(str(tmp_path), 54321, {54321}) == (["/open", "/deep/box and below"], True)
    assert writable_paths(str(tmp_path), 54321, {gid})[0] == ["/group", "/open", "/deep/box and below"]
    found, is_complete = writable_paths(str(tmp_path), 54321, {54321}, limit=3)
    assert not is_complete and len(found) <= 1


def test_a_supervisor_that_could_be_dumped_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_process(os.getpid())
    facts.dumpable, facts.limits = True, {"Max core file size": (0, -1)}
    monkeypatch.setattr(attest, "read_process", lambda pid, records=None: facts)
    row = {"role": "supervisor", "instance": 0, "generation": 1, "pid": 1, "state": "ready", "rights": "", "tries": []}
    (report,) = attest.attest(CONFIG, [row])
    assert report.differences == [
        "dumpable: the table says no, the kernel says yes",
        "max core file size: the table says 0, the kernel says unlimited",
    ]


def test_what_weakens_is_said() -> None:

    weak = msgspec.structs.replace(CONFIG, sandbox="best-effort", sandbox_debug="log")
    assert len(notes(weak)) == len(notes(CONFIG)) + 2


def test_a_lock_that_was_said_and_is_not_there_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_process(os.getpid())
    facts.locked_bytes = 0
    report = RoleReport(
        "receiver", 0, 1, 1, kernel=facts, says="receiver: root /, memory locked, seccomp kill", landlock="abi 7"
    )
    assert [str(found) for found in attest._compare_means(report, CONFIG)] == [
        "memory: the table says locked, the kernel says not locked"
    ]
    facts.locked_bytes = 4096
    assert not list(attest._compare_means(report, CONFIG))
    report.says = "receiver: root /, MEMORY NOT LOCKED (LimitMEMLOCK is 8192 KiB), seccomp kill"
    assert not list(attest._compare_means(report, CONFIG))
    monkeypatch.setattr(attest, "why_never_swapped", lambda pid: "")
    (note,) = attest.swap_notes([report])
    assert "receiver/0" in note and "MAY BE SWAPPED" in note
    monkeypatch.setattr(attest, "why_never_swapped", lambda pid: "this machine has no swap now")
    assert attest.swap_notes([report])[0].endswith("is not locked; this machine has no swap now")
