"""What /proc says of a live process, and where it differs from the table."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gatepost.privsep import kernel
from gatepost.privsep.rights import BASE, READ_WRITE, SOCKET_ACCEPT, THREADS, RoleRights, TryResult

Start = Callable[..., "subprocess.Popen[str]"]
NOBODY = 65534
RECEIVER = RoleRights(
    name="receiver",
    user="nobody",
    may_accept=True,
    nofile=4096,
    syscalls=BASE | READ_WRITE | THREADS | SOCKET_ACCEPT,
    descriptors=frozenset({"tcp-listen", "tcp"}),
)

LIVE = """
listening = socket.create_server(("127.0.0.1", 0))
{before}
sandbox.before_loop()
loop = uvloop.new_event_loop()
{lock}
answer(listening.getsockname()[1])
sys.stdin.read()
"""


def start_live(start_role: Start, started_as: str, before: str = "", lock: str = "lock(RECEIVER)") -> tuple[int, int]:
    """A live role: its process number and its port."""
    process = start_role(LIVE.format(before=before, lock=lock), started_as)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first, process.stderr and process.stderr.read()
    return process.pid, int(first)


def role_user() -> int:
    return NOBODY if os.geteuid() == 0 else os.geteuid()


def test_a_locked_in_role_is_as_the_table_says(start_role: Start, started_as: str, root_directory: Path) -> None:
    pid, port = start_live(start_role, started_as)
    facts = kernel.read_process(pid)
    as_root = started_as == "root"
    root = str(root_directory) if as_root else ""
    assert kernel.compare(facts, RECEIVER, as_root=as_root, uid=role_user(), root=root) == []
    assert facts.no_new_privs
    assert (facts.seccomp, facts.seccomp_filters, facts.umask, facts.dumpable) == ("filter", 2, "0077", False)
    assert {facts.capabilities[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    if as_root:
        assert facts.capabilities["CapBnd"] == "0" * 16
        assert facts.root == str(root_directory)
    if os.geteuid() == 0:
        assert facts.unreadable == []
        assert facts.pss_bytes
        assert [d.target for d in facts.descriptors if d.kind == "tcp-listen"] == [f"127.0.0.1:{port}"]
        assert kernel.count_kinds(facts)["eventpoll"] >= 1
    else:
        assert "descriptors" in facts.unreadable


def test_a_role_that_did_not_lock_itself_in_shows(start_role: Start, started_as: str) -> None:
    before = "file = open('/etc/passwd'); directory = os.open('/etc', os.O_RDONLY)"
    pid, _ = start_live(start_role, started_as, before, lock="")
    found = kernel.compare(kernel.read_process(pid), RECEIVER, as_root=True, uid=12345, root="/nowhere")
    what = {difference.what for difference in found}
    assert {"user", "system call filters", "CapBnd"} <= what
    if os.geteuid() == 0:
        assert "root directory" in what
        assert {d.table for d in found} >= {"no file-read", "no directory"}
    if started_as == "root":
        assert {"CapEff", "CapPrm", "group"} <= what
    assert "user: the table says 12345, the kernel says" in "\n".join(map(str, found))


def test_what_went_through_when_tried_is_a_difference(start_role: Start) -> None:
    pid, _ = start_live(start_role, "nobody")
    facts = kernel.read_process(pid)
    tries = [TryResult("fork", "filter", False, "EPERM"), TryResult("read /etc/passwd", "landlock", True, "done")]
    found = kernel.compare(facts, RECEIVER, as_root=False, uid=role_user(), tries=tries)
    assert [str(difference) for difference in found] == [
        "read /etc/passwd (tried behind landlock): the table says refused, the kernel says done"
    ]


def test_filters_of_a_container_do_not_count(start_role: Start) -> None:
    pid, _ = start_live(start_role, "nobody")
    facts = kernel.read_process(pid)
    found = kernel.compare(facts, RECEIVER, as_root=False, uid=role_user(), inherited_filters=1)
    assert [str(d) for d in found] == ["system call filters: the table says at least 3, the kernel says 2"]


def test_higher_limits_than_the_table_show(start_role: Start) -> None:
    pid, _ = start_live(start_role, "nobody")
    facts = kernel.read_process(pid)
    row = dataclasses.replace(RECEIVER, nofile=10, address_space_bytes=1 << 30)
    found = kernel.compare(facts, row, as_root=False, uid=role_user())
    assert {difference.what for difference in found} == {"max open files", "max address space"}


# --- reading this process: every kind of descriptor -------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[dict[int, str]]:
    """A descriptor of each kind that can be had anywhere, and what it should be called."""
    path = str(tmp_path / "file")
    tcp = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(tcp.getsockname())
    served, _ = tcp.accept()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(tmp_path / "socket"))
    unix.listen()
    stream, packets = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    unconnected = socket.socket()
    sockets = [tcp, client, served, udp, unix, *stream, *packets, unconnected]
    reading, writing = os.pipe()
    numbers = {
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND): "file-append",
        os.open(path, os.O_RDWR): "file-write",
        os.open(path, os.O_RDONLY): "file-read",
        os.open(tmp_path, os.O_RDONLY): "directory",
        os.open("/dev/null", os.O_RDWR): "null",
        os.open("/dev/zero", os.O_RDONLY): "device",
        os.eventfd(0): "eventfd",
        reading: "pipe",
        writing: "pipe",
    }
    kinds = dict(numbers)
    names = "tcp-listen tcp tcp udp unix-stream-listen unix-stream unix-stream unix-seqpacket unix-seqpacket socket"
    kinds |= dict(zip([end.fileno() for end in sockets], names.split(), strict=True))
    yield kinds
    for end in sockets:
        end.close()
    for number in numbers:
        os.close(number)


def test_each_kind_of_descriptor_has_its_name(opened: dict[int, str]) -> None:
    facts = kernel.read_process(os.getpid())
    found = {descriptor.number: descriptor.kind for descriptor in facts.descriptors}
    assert {number: found.get(number) for number in opened} == opened
    accesses = {descriptor.kind: descriptor.access for descriptor in facts.descriptors if descriptor.number in opened}
    assert (accesses["file-append"], accesses["file-write"], accesses["file-read"]) == ("write", "read-write", "read")


def test_a_socket_made_during_the_look_is_found_in_the_second_look_at_the_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, asked = kernel._read_sockets, []

    def late(directory: str) -> dict[int, tuple[str, str, str]]:
        asked.append(directory)
        return real(directory) if len(asked) > 1 else {}

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(kernel, "_read_sockets", late)
    with ours, theirs:
        kinds = {each.number: each.kind for each in kernel.read_process(os.getpid()).descriptors}
        assert kinds[ours.fileno()] == kinds[theirs.fileno()] == "unix-seqpacket"
    assert len(asked) == 2


def test_facts_are_json() -> None:
    facts = kernel.read_process(os.getpid())
    again = msgspec.json.decode(msgspec.json.encode(facts), type=kernel.ProcessFacts)
    assert again == facts
    assert (facts.uids[1], facts.gids[1]) == (os.geteuid(), os.getegid())


def test_records_that_are_held_open_are_as_they_are_now_and_end_with_the_process(start_role: Start) -> None:
    process = start_role("sys.stdin.readline(); become_nobody(); answer(0); sys.stdin.read()")
    assert process.stdin is not None and process.stdout is not None
    records = kernel.Records(process.pid)
    assert kernel.read_process(process.pid, records).uids[1] == os.geteuid()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline()
    facts = kernel.read_process(process.pid, records)
    assert facts.uids[1] == role_user() and facts.limits == kernel.read_process(process.pid).limits != {}
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        kernel.read_process(process.pid, records)
    records.close()


def test_a_process_that_has_given_its_memory_back_has_ended() -> None:
    """Between exit and the parent's wait it has a status, but what it had locked stands there no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "Seccomp:" in Path(f"/proc/{process.pid}/status").read_text()
        with pytest.raises(ProcessLookupError):
            kernel.read_process(process.pid)
    finally:
        process.wait()


def test_a_process_that_is_there_and_cannot_be_seen_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def hide(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(kernel, "_read", hide)
    with pytest.raises(PermissionError, match="/proc hides process"):
        kernel.read_process(os.getppid())


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        kernel.read_process(2**22 + 1)  # over the largest pid_max


def test_the_reader_loads_no_parser_and_no_loop() -> None:
    program = "import sys, json; from gatepost.privsep import kernel, rights; print(json.dumps(list(sys.modules)))"
    modules = set(json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout))
    assert not modules & {"asyncio", "ssl", "uvloop", "gatepost.smtp", "gatepost.mail"}


# --- parsing --------------------------------------------------------------------------------------------------------------


def test_limits() -> None:
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max cpu time              unlimited            unlimited            seconds   \n"
        "Max open files            1024                 4096                 files     \n"
        "Max nice priority         0                    0                    \n"
    )
    expected = {"Max cpu time": (-1, -1), "Max open files": (1024, 4096), "Max nice priority": (0, 0)}
    assert kernel.parse_limits(text) == expected


def test_internet_sockets() -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: {} {} {} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0\n"
    text = (
        head
        + row.format("0100007F:0019", "00000000:0000", "0A", 7)
        + row.format("0100007F:0019", "0200000A:C350", "01", 8)
    )
    assert kernel.parse_internet_sockets("tcp", text) == {
        7: ("tcp-listen", "127.0.0.1:25", "listen"),
        8: ("tcp", "127.0.0.1:25 -> 10.0.0.2:50000", "established"),
    }
    six = head + row.format("B80D0120000000000000000001000000:0019", "0" * 32 + ":0000", "07", 9)
    assert kernel.parse_internet_sockets("udp", six) == {
        9: ("udp", "[2001:db8:0:0:0:0:0:1]:25 -> [0:0:0:0:0:0:0:0]:0", "")
    }


def test_unix_sockets() -> None:
    text = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 7 /run/a socket\n"
        "0000000000000000: 00000003 00000000 00000000 0005 03 8\n"
    )
    assert kernel.parse_unix_sockets(text) == {
        7: ("unix-stream-listen", "/run/a socket", ""),
        8: ("unix-seqpacket", "", ""),
    }
