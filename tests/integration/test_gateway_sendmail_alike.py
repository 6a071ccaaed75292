"""gatepost-sendmail beside the commands of real Postfix and real sendmail: the same calls, and what reaches the next hop.

Compared are the reverse-path, the recipients and the body. Where the two differ from each other or from us, a case names who agrees.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.nexthop import NextHop, Taken
from integration.peers.postfix import PostfixServer
from integration.peers.process import wait_until
from migrate import differential
from migrate.sendmail_peer import MC_HEAD, SendmailServer

pytestmark = pytest.mark.skipif(not is_root(), reason="both servers need root, and so does a private root")

SENDMAIL = Path(sys.executable).parent / "gatepost-sendmail"
MC = (
    MC_HEAD
    + """\
define(`confDOMAIN_NAME', `gate.example.test')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {sink}')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`MAIL_HUB', `relay:[127.0.0.1]')dnl
define(`ALIAS_FILE', `')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""
)
PLAIN = b"Subject: x\n\nb\n"
BOTH, POSTFIX, REAL = frozenset(("postfix", "sendmail")), frozenset(("postfix",)), frozenset(("sendmail",))
CASES = [
    (["-i", "Foo Bar <a@world.test>"], PLAIN, BOTH),
    (["-i", "a@world.test (Foo)"], PLAIN, BOTH),
    (["-i", "a@world.test, b@world.test"], PLAIN, BOTH),
    (["-i", "a@world.test b@world.test"], PLAIN, BOTH),
    (["-i", "team: a@world.test, b@world.test;"], PLAIN, BOTH),
    (["-i", "<@r1.test,@r2.test:a@world.test>"], PLAIN, BOTH),
    (['"a b"@world.test'], PLAIN, BOTH),
    (["-f", "Foo <foo@example.test>", "a@world.test"], PLAIN, BOTH),
    (["-ffoo@example.test (Foo)", "a@world.test"], PLAIN, BOTH),
    (["-oi", "-oem", "-odi", "-om", "-G", "-f", "foo@example.test", "--", "a@world.test"], PLAIN, BOTH),
    (["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "a@world.test"], "Subject: x\n\nFüße\n".encode(), BOTH),
    (["-t"], b"To: team: a@world.test, B <b@world.test>;, c@world.test\nBcc: d@world.test\n\nb\n", BOTH),
    (["-t"], b'To: (hi) a@world.test (there), "Q, R" <b@world.test>, =?utf-8?Q?a=2Cb?= <c@world.test>\n\nb\n', BOTH),
    (["-t"], b"To: a@world.test b@world.test\n\nb\n", BOTH),
    (["-t"], b"To: a@world.test; b@world.test\n\nb\n", POSTFIX),
    (["-t", "b@world.test"], b"To: a@world.test\n\nb\n", BOTH),
    (["-t"], b"To: undisclosed-recipients:;\nBcc: a@world.test\n\nb\n", POSTFIX),
    (["-t"], b"Resent-To: a@world.test\nTo: z@world.test\n\nb\n", BOTH),
    (["a@world.test"], b"Subject: x", BOTH),
    (["a@world.test"], b"", BOTH),
    (["a@world.test"], b"Subject: x\n\nno line end", BOTH),
    (["a@world.test"], b"Subject: x\r\nX-A: y\n\r\none\r\ntwo\n", BOTH),
    (["a@world.test"], b"Subject: x\n\none\n.\ntwo\n", BOTH),
    (["a@world.test"], b"Subject: x\r\n\r\none\r\n.\r\ntwo\r\n", BOTH),
    (["-i", "a@world.test"], b"Subject: x\n\none\n.\n..\n", BOTH),
    (["a@world.test"], b"no field\nSubject: x\n\nb\n", BOTH),
    (["a@world.test"], b"From me Fri\nSubject: x\n\nb\n", BOTH),
]


class Commands:
    """Three commands, each with a next hop of its own."""

    def __init__(self, hops: dict[str, NextHop], commands: dict[str, list[str]], environment: dict[str, str]) -> None:
        self._hops = hops
        self._commands = commands
        self._environment = environment

    def call(self, who: str, words: list[str], text: bytes) -> tuple[str, list[str], bytes, bytes]:
        """Reverse-path, recipients, body, and the header."""
        hop = self._hops[who]
        before = len(hop.taken)
        done = subprocess.run(
            [*self._commands[who], *words],
            input=text,
            capture_output=True,
            timeout=60,
            check=False,
            env=self._environment,
        )
        assert done.returncode == 0, (who, done)
        taken: Taken = wait_until(lambda: hop.taken[before:], f"a message through {who}")[0]  # type: ignore[index]
        header, _, body = taken.content.partition(b"\r\n\r\n")
        return taken.reverse_path, sorted(taken.recipients), body, header


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with tempfile.TemporaryDirectory(prefix="gatepost-alike-") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        for name in ("ours", "postfix", "sendmail"):
            (root / name).mkdir()
        with NextHop() as first, NextHop() as second, NextHop() as third:
            gateway = Gateway(root / "ours", next_hop=first.name, relay_next_hop=first.name)
            gateway.extra = f'[local]\nsocket = "{gateway.directory}/submit"\nusers = ["root"]\n'
            settings = {"myhostname": "gate.example.test", "alias_database": ""}
            relay = second.name.removeprefix("smtp://")
            mc = MC.replace("{sink}", str(third.port))
            differential.write_files(root / "mail", {"sendmail.mc": mc, "local-host-names": "gate.example.test\n"})
            with (
                gateway,
                PostfixServer(root / "postfix", relay_host=relay, settings=settings) as postfix,
                SendmailServer(root / "sendmail", root / "mail") as sendmail,
            ):
                inside = ["/usr/libexec/sendmail/sendmail", "-Am", "-C", "/etc/mail/sendmail.cf", "-odi"]
                yield Commands(
                    {"ours": first, "postfix": second, "sendmail": third},
                    {
                        "ours": [str(SENDMAIL)],
                        "postfix": ["/usr/sbin/sendmail", "-C", str(postfix.home)],
                        "sendmail": sendmail._inside(inside),
                    },
                    {"PATH": os.environ["PATH"], "GATEPOST_SUBMIT": str(gateway.directory / "submit")},
                )


@pytest.mark.peer("postfix")
@pytest.mark.parametrize(("words", "text", "who"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_a_call_means_the_same(commands: Commands, words: list[str], text: bytes, who: frozenset[str]) -> None:
    *ours, header = commands.call("ours", words, text)
    assert b"d@world.test" not in header
    for name in sorted(who):
        *theirs, _ = commands.call(name, words, text)
        assert ours == theirs, name
