"""gatepost-sendmail as programs of this host call it, with a whole gateway behind it: mailx, s-nail, cron, PHP's command line."""

from __future__ import annotations

import email
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.nexthop import NextHop
from integration.peers.process import WAIT_S
from peers import require, wait_until

pytestmark = pytest.mark.skipif(not is_root(), reason="the user of the tests is root here, as is listed")

SENDMAIL = Path(sys.executable).parent / "gatepost-sendmail"
MAILQ = Path(sys.executable).parent / "gatepost-mailq"
EX_OK, EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 0, 64, 65, 67, 69, 75, 77
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def inside() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, inside: NextHop) -> Iterator[Gateway]:
    gateway = Gateway(
        tmp_path_factory.mktemp("sendmail"),
        next_hop=inside.name,
        relay_next_hop=inside.name,
        recipients=["user", "other", "cron", "mailx", "snail", "bs", "bs2", "bs3", "bs4", "git"],
        top='postmaster = "user@example.test"',
    )
    gateway.extra = f'[smtp]\nmax_message_bytes = 150000\n[local]\nsocket = "{gateway.directory}/submit"\nusers = ["root", "daemon"]\n'
    with gateway:
        yield gateway
        gateway.assert_no_bugs()


def call(gateway: Gateway, *words: str, text: bytes = b"Subject: x\n\ntext\n", program: Path = SENDMAIL) -> Done:
    environment = {
        "PATH": os.environ["PATH"],
        "GATEPOST_SUBMIT": str(gateway.directory / "submit"),
        "GATEPOST_CONFIG": str(gateway.config),
    }
    return subprocess.run(
        [str(program), *words], input=text, capture_output=True, timeout=60, check=False, env=environment, cwd="/",
    )  # fmt: skip


_AS_ANOTHER = """
import os, sys
from gatepost.sendmail import main
import gatepost.cli.mailq
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
sys.argv = sys.argv[3:]
main.main()
"""  # the interpreter itself may be closed to others, so it is started first


def call_as(gateway: Gateway, user: str, *words: str) -> Done:
    entry = pwd.getpwnam(user)
    command = [sys.executable, "-I", "-c", _AS_ANOTHER, str(entry.pw_uid), str(entry.pw_gid), *words]
    environment = {"GATEPOST_SUBMIT": str(gateway.directory / "submit"), "GATEPOST_CONFIG": str(gateway.config)}
    return subprocess.run(
        command, input=b"Subject: x\n\ntext\n", capture_output=True, timeout=60, check=False, env=environment, cwd="/"
    )


def test_a_message_to_two(gateway: Gateway, inside: NextHop) -> None:
    done = call(gateway, "-i", "user@example.test", "other@example.test", text=b"Subject: two\n\n.\n..\nend\n")
    assert (done.returncode, done.stderr) == (EX_OK, b"")
    taken = inside.wait_to("user@example.test")
    assert taken.reverse_path == "root@gate.example.test"
    assert taken.recipients == ["user@example.test", "other@example.test"]
    assert taken.content.endswith(b"\r\n\r\n.\r\n..\r\nend\r\n")
    for field in (
        rb"From: .*<root@gate\.example\.test>|From: root@gate",
        rb"Date: ",
        rb"Message-ID: <[^>]+@gate\.example\.test>",
    ):
        assert re.search(rb"(?m)^(?:" + field + rb")", taken.content), field
    assert b"([local/root])" in taken.content


def test_recipients_of_the_header(gateway: Gateway, inside: NextHop) -> None:
    text = b"To: Far <far@world.test>\nBcc: hidden@world.test\nFrom: shop@example.test\nSubject: t\n\nb\n"
    assert call(gateway, "-t", "-i", "-f", "shop@example.test", text=text).returncode == EX_OK  # as PHP calls it
    taken = inside.wait_to("hidden@world.test")
    assert taken.reverse_path == "shop@example.test" and taken.recipients == ["far@world.test", "hidden@world.test"]
    assert b"hidden" not in taken.content.partition(b"\r\n\r\n")[0].partition(b"From: shop")[2]


def test_cron(gateway: Gateway, inside: NextHop) -> None:
    text = b"From: root (Cron Daemon)\nTo: cron@example.test\nSubject: Cron <root@host> job\nX-Cron-Env: <SHELL=/bin/sh>\n\nout\n"
    assert call(gateway, "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "cron@example.test", text=text).returncode == EX_OK
    assert b"From: Cron Daemon <root@gate.example.test>\r\n" in inside.wait_to("cron@example.test").content


def test_the_null_reverse_path_and_postmaster(gateway: Gateway, inside: NextHop) -> None:
    before = len(inside.taken)
    assert call(gateway, "-f", "<>", "postmaster").returncode == EX_OK
    assert inside.wait_for(before + 1)[-1].reverse_path == ""


def test_mailx(gateway: Gateway, inside: NextHop, tmp_path: Path) -> None:
    (tmp_path / "mailrc").write_text(f"set sendmail={SENDMAIL}\n")
    environment = {"PATH": os.environ["PATH"], "MAILRC": str(tmp_path / "mailrc"), "HOME": str(tmp_path)}
    environment["GATEPOST_SUBMIT"] = str(gateway.directory / "submit")
    command = [require("bsd-mailx"), "-n", "-s", "from mailx", "mailx@example.test"]
    done = subprocess.run(
        command, input=b"a line\n.\nanother\n", capture_output=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    content = inside.wait_to("mailx@example.test").content
    assert b"Subject: from mailx\r\n" in content and b"\r\n\r\na line\r\n" in content


def test_s_nail(gateway: Gateway, inside: NextHop, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GATEPOST_SUBMIT": str(gateway.directory / "submit"),
    }
    command = [require("s-nail"), "-:/", "-S", "v15-compat", "-S", f"mta=file://{SENDMAIL}", "-S", "sendwait"]
    command += ["-r", "user@example.test", "-s", "from s-nail", "snail@example.test"]
    done = subprocess.run(command, input=b"a line\n", capture_output=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    taken = inside.wait_to("snail@example.test")
    assert taken.reverse_path == "user@example.test" and b"Subject: from s-nail\r\n" in taken.content


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["nobody-here@example.test"], EX_NOUSER, b"5.1.1"),
        (["user@example.test", "nobody-here@example.test"], EX_NOUSER, b"nothing was sent"),
        (["-f", "a@elsewhere.test", "user@example.test"], EX_NOPERM, b"5.7.1"),
        ([], EX_USAGE, b"-t"),
        (["--", "-oQ/tmp"], EX_USAGE, b"refused"),
        (["-bd"], EX_USAGE, b"gatepost run"),
    ],
)
def test_exit_statuses(gateway: Gateway, words: list[str], status: int, says: bytes) -> None:
    done = call(gateway, *words)
    assert done.returncode == status, done.stderr
    assert says in done.stderr


def test_more_exit_statuses(gateway: Gateway, tmp_path: Path) -> None:
    assert call(gateway, "user@example.test", text=b"x" * 200_000).returncode == EX_UNAVAILABLE
    done = subprocess.run(
        [str(SENDMAIL), "user@example.test"], input=b"x", capture_output=True, timeout=60, check=False,
        env={"GATEPOST_SUBMIT": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode == EX_TEMPFAIL and b"nothing was queued" in done.stderr


def test_other_users(gateway: Gateway, inside: NextHop) -> None:
    done = call_as(gateway, "daemon", "sendmail", "far2@world.test")
    assert done.returncode == EX_OK, done.stderr
    assert inside.wait_to("far2@world.test").reverse_path == "daemon@gate.example.test"
    assert (
        call_as(gateway, "daemon", "sendmail", "-f", "root@gate.example.test", "far@world.test").returncode == EX_NOPERM
    )
    done = call_as(gateway, "nobody", "sendmail", "user@example.test")
    assert done.returncode == EX_NOPERM and b"[local] users" in done.stderr
    done = call_as(gateway, "daemon", "mailq")
    assert done.returncode == EX_NOPERM and b"not permitted" in done.stderr and not done.stdout


def test_mailq_and_newaliases(gateway: Gateway, tmp_path: Path) -> None:
    wait_until(lambda: gateway.ledger()["queued"] == 0, "a queue that stays as it is")
    done = call(gateway, program=MAILQ)
    assert done.returncode == EX_OK and b"queue" in done.stdout, done.stderr
    assert call(gateway, "-bp").stdout == done.stdout
    for name, words in (("mailq", b"queue"), ("newaliases", b"gatepost reload")):
        (tmp_path / name).symlink_to(SENDMAIL)
        done = call(gateway, program=tmp_path / name)
        assert done.returncode == EX_OK and words in done.stdout, done.stderr


def test_smtp_on_standard_input(gateway: Gateway, inside: NextHop) -> None:
    text = b"EHLO me\r\nMAIL FROM:<root@gate.example.test>\r\nRCPT TO:<bs@example.test>\r\nDATA\r\n"
    process = subprocess.Popen(
        [str(SENDMAIL), "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"GATEPOST_SUBMIT": str(gateway.directory / "submit")},
    )  # fmt: skip
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().startswith(b"220 gate.example.test")
        for line in text.splitlines(keepends=True):
            process.stdin.write(line)
            process.stdin.flush()
            while (answer := process.stdout.readline())[3:4] == b"-":
                pass
            assert answer[:1] in b"23", answer
        process.stdin.write(b"Subject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n")
        process.stdin.close()
        assert process.stdout.read().splitlines()[-1].startswith(b"221")
    assert process.returncode == EX_OK
    assert b"Subject: bs" in inside.wait_to("bs@example.test").content


PIPED = b"EHLO me\nMAIL FROM:<root@gate.example.test>\nRCPT TO:<%b@example.test>\nDATA\nSubject: piped\n\n..dot\nend\n.\nQUIT\n"


@pytest.mark.parametrize(("name", "ends"), [(b"bs2", b"\n"), (b"bs3", b"\r\n")])
def test_a_whole_smtp_session_at_once(gateway: Gateway, inside: NextHop, name: bytes, ends: bytes) -> None:
    done = call(gateway, "-bs", text=(PIPED % name).replace(b"\n", ends))
    assert (done.returncode, done.stderr) == (EX_OK, b"")
    assert [line[:4] for line in done.stdout.splitlines() if line[3:4] == b" "] == [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "]  # fmt: skip
    taken = inside.wait_to(name.decode() + "@example.test")
    assert taken.content.endswith(b"Subject: piped\r\n\r\n.dot\r\nend\r\n")


def test_a_session_that_is_cut_off_sends_nothing(gateway: Gateway, inside: NextHop) -> None:
    done = call(gateway, "-bs", text=(PIPED % b"bs4").partition(b".\nQUIT")[0])
    assert done.returncode == EX_DATAERR and b"not sent" in done.stderr
    assert call(gateway, "-bs", text=PIPED % b"bs2").returncode == EX_OK
    inside.wait_to("bs2@example.test")
    assert inside.find("bs4@example.test") is None


def test_addresses_as_people_write_them(gateway: Gateway, inside: NextHop) -> None:
    text = (
        b"To: team: Far <group1@world.test>, group2@world.test (two);\nCc: group3@world.test group4@world.test\n\nb\n"
    )
    assert call(gateway, "-t", "-i", "-f", "Shop <shop@example.test>", text=text).returncode == EX_OK
    taken = inside.wait_to("group1@world.test")
    assert taken.reverse_path == "shop@example.test"
    assert taken.recipients == [f"group{number}@world.test" for number in range(1, 5)]
    done = call(gateway, "-t", text=b"To: far@world.test, <broken@world.test\n\nb\n")
    assert done.returncode == EX_USAGE and b"is not a list of addresses" in done.stderr
    assert call(gateway, "-t", text=b"To: undisclosed-recipients:;\n\nb\n").returncode == EX_USAGE


def test_the_output_of_a_job_comes_whatever_it_is(gateway: Gateway, inside: NextHop) -> None:
    """No final line end, a NUL, carriage returns, octets that are no UTF-8, and a line of 100 kB."""
    body = b"10%\r20%\r\nnul\0nul \xfc\n" + b"x" * 90_000 + b"\nend"
    assert call(gateway, "job@world.test", text=b"Subject: F\xfc\xdfe\n\n" + body).returncode == EX_OK
    taken = inside.wait_to("job@world.test")
    assert max(map(len, taken.content.split(b"\r\n"))) <= 998
    assert b"Subject: F\xfc\xdfe\r\n" in taken.content
    found = email.message_from_bytes(taken.content).get_payload(decode=True)
    assert found == b"10%\r\n20%\r\nnulnul \xfc\r\n" + b"x" * 90_000 + b"\r\nend\r\n"


def test_git_send_email(gateway: Gateway, inside: NextHop) -> None:
    """As it calls its sendmail command: options, recipients one by one, CRLF or LF, never -t."""
    text = b"From: Me <user@example.test>\nTo: git@example.test\nCc: Far <gitcc@world.test>\nSubject: [PATCH] x\nMessage-Id: <1-a@git>\nX-Mailer: git-send-email\n\n-- \n2.39\n"
    words = ["-i", "-f", "user@example.test", "git@example.test", "gitcc@world.test"]
    assert call(gateway, *words, text=text).returncode == EX_OK
    taken = inside.wait_to("gitcc@world.test")
    assert taken.reverse_path == "user@example.test" and taken.content.endswith(b"\r\n\r\n-- \r\n2.39\r\n")
    assert taken.content.lower().count(b"\r\nmessage-id:") == 1


def test_what_programs_call_it_with(gateway: Gateway, inside: NextHop) -> None:
    """cronie, mutt, PHPMailer, Emacs: options that they really use."""
    for number, words in enumerate(
        (
            ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-froot"],
            ["-oem", "-oi", "-f", "user@example.test", "-B8BITMIME", "-N", "failure,delay", "-R", "hdrs", "--"],
            ["-oi", "-fuser@example.test", "-t"],
            ["-oi", "-f", "root", "-oem", "-odb", "-oMrcommand", "-G", "-q"],
        )
    ):
        recipient = f"caller{number}@world.test"
        named = [] if "-t" in words else [recipient]
        done = call(gateway, *words, *named, text=b"To: " + recipient.encode() + b"\nSubject: x\n\nb\n")
        assert (done.returncode, done.stderr) == (EX_OK, b""), words
        assert inside.wait_to(recipient).recipients == [recipient]


def test_verifying_and_flushing(gateway: Gateway, inside: NextHop) -> None:
    done = call(gateway, "-bv", "user@example.test", "nobody-here@example.test")
    assert done.returncode == EX_NOUSER
    assert (
        done.stdout.splitlines()[0] == b"user@example.test... deliverable"
        and b"here@example.test... 550 5.1.1" in done.stdout
    )
    assert call(gateway, "-bv", "user@example.test").returncode == EX_OK
    assert call(gateway, "-q").returncode == EX_OK
    done = call_as(gateway, "daemon", "sendmail", "-q")
    assert done.returncode == EX_NOPERM and b"not permitted" in done.stderr


def test_it_ends_at_the_dot_though_its_input_is_open(gateway: Gateway, inside: NextHop) -> None:
    process = subprocess.Popen(
        [str(SENDMAIL), "typed@world.test"],
        stdin=subprocess.PIPE,
        env={"GATEPOST_SUBMIT": str(gateway.directory / "submit")},
    )
    assert process.stdin is not None
    process.stdin.write(b"Subject: typed\n\nx\n.\n")
    process.stdin.flush()
    assert process.wait(WAIT_S) == EX_OK
    process.stdin.close()
    inside.wait_to("typed@world.test")
