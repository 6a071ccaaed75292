"""A validating unbound on loopback with a signed zone of the test's own below it: the trust anchor is that of the test.

The zone is signed by ldns; `forge` changes a record behind its signature, `expire` gives records signatures that have expired. Zones of
`plain` have no trust anchor and are insecure. Nothing is asked of the internet.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
from integration.peers.packages import require
from integration.peers.process import PeerProcess, take_port

SOA = (
    "@ 60 IN SOA ns.{zone}. hostmaster.{zone}. {serial} 3600 600 86400 5\n@ 60 IN NS ns.{zone}.\nns 60 IN A 127.0.0.1\n"
)
DAY_S = 86400


class Unbound(PeerProcess):
    """`with Unbound(tmp_path, "signed.test", text) as unbound:` then `unbound.address`.

    `expired` are owners (relative) whose TLSA records get signatures of the past, `bogus` those whose TLSA records are not what was signed.
    With `validates` false it has no trust anchor: everything is insecure.
    """

    def __init__(
        self,
        directory: Path,
        zone: str,
        text: str,
        *,
        expired: Sequence[str] = (),
        bogus: Sequence[str] = (),
        plain: Mapping[str, str] | None = None,
        validates: bool = True,
    ) -> None:
        self.program = require("unbound")
        require("ldns-signzone")
        super().__init__(directory)
        self.zone, self.text = zone, text
        self.expired, self.bogus = list(expired), list(bogus)
        self.plain = dict(plain or {})
        self.validates = validates
        self.port = take_port()
        self.address = f"127.0.0.1:{self.port}"
        self._key = ""

    def configure(self) -> list[str]:
        files = {self.zone: self.sign(), ".": self.directory / "root"}  # no name but these exists
        files["."].write_text(". 60 IN SOA . . 1 3600 600 86400 5\n. 60 IN NS ns.\nns. 60 IN A 127.0.0.1\n")
        for zone, text in self.plain.items():
            files[zone] = self.directory / f"{zone}.plain"
            files[zone].write_text(f"$ORIGIN {zone}.\n" + SOA.format(zone=zone, serial=1) + text)
        anchor = f'trust-anchor-file: "{self.directory / self._key}.ds"' if self.validates else ""
        zones = "".join(
            f'auth-zone:\n name: "{zone}"\n zonefile: "{file}"\n for-downstream: no\n for-upstream: yes\n fallback-enabled: no\n'
            for zone, file in files.items()
        )
        config = self.directory / "unbound.conf"
        config.write_text(
            f'server:\n interface: 127.0.0.1@{self.port}\n username: ""\n chroot: ""\n directory: "{self.directory}"\n pidfile: ""\n'
            f' use-syslog: no\n verbosity: 1\n do-daemonize: no\n num-threads: 1\n do-ip6: no\n do-not-query-localhost: no\n'
            f' module-config: "validator iterator"\n local-zone: "test." nodefault\n val-bogus-ttl: 1\n cache-max-ttl: 1\n'
            f' cache-max-negative-ttl: 1\n infra-host-ttl: 1\n val-log-level: 1\n {anchor}\n'
            f'remote-control:\n control-enable: no\n{zones}'
        )  # fmt: skip
        return [self.program, "-d", "-c", str(config)]

    def is_ready(self) -> bool:
        """It answers, and validates if it should."""
        query = dns.message.make_query(self.zone, "SOA", use_edns=0)
        query.flags |= dns.flags.AD
        with contextlib.suppress(OSError, dns.exception.DNSException):
            answer = dns.query.udp(query, "127.0.0.1", timeout=5, port=self.port)
            return bool(answer.answer) and bool(answer.flags & dns.flags.AD) is self.validates
        return False

    def sign(self) -> Path:
        """The signed zone, with what `expired` and `bogus` say."""
        if not self._key:
            self._key = self._run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", self.zone).strip()
        good = self._signed("good", 1, 30)
        lines = good.read_text().splitlines()
        if self.expired:
            old = self._signed("old", -30, -5).read_text().splitlines()
            signatures = {self._owner(line): line for line in old if self._is_signature(line)}
            lines = [
                signatures[self._owner(line)]
                if self._is_signature(line) and self._owner(line) in self.expired
                else line
                for line in lines
            ]
        lines = [
            re.sub(r"(\tTLSA\t\S+ \S+ \S+ )(.)", lambda found: found[1] + ("0" if found[2] != "0" else "1"), line)
            if "\tTLSA\t" in line and self._owner(line) in self.bogus and not self._is_signature(line)
            else line
            for line in lines
        ]
        good.write_text("\n".join(lines) + "\n")
        return good

    def _signed(self, name: str, begin_days: int, end_days: int) -> Path:
        source, target = self.directory / f"{name}.zone", self.directory / f"{name}.signed"
        source.write_text(f"$ORIGIN {self.zone}.\n" + SOA.format(zone=self.zone, serial=1) + self.text)
        begin, end = (
            time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + days * DAY_S))
            for days in (begin_days - 10, end_days)
        )
        self._run("ldns-signzone", "-i", begin, "-e", end, "-o", self.zone, "-f", str(target), str(source), self._key)
        return target

    def _owner(self, line: str) -> str:
        return line.split("\t")[0].removesuffix(f".{self.zone}.")

    def _is_signature(self, line: str) -> bool:
        return "\tRRSIG\tTLSA " in line

    def _run(self, *command: str) -> str:
        path = require(command[0])
        done = subprocess.run(
            [path, *command[1:]], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
