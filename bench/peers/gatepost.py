"""Gatepost as shipped: what `gatepost init` writes, locked in, durable, its events in a file.

The one deviation is a list of recipients, so that the recipient check is that of the other servers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from certificate import make_certificate

from peers.peer import DOMAIN, RECIPIENT, Peer, PeerError, first_line

PROGRAM = Path(sys.executable).parent / "gatepost"


class Gatepost(Peer):
    """The gateway of this repository, in the virtual environment that runs the bench."""

    name = "gatepost"
    speaks_tls = True

    @classmethod
    def prepare(cls, cache: Path) -> str | None:
        if not PROGRAM.exists():
            return f"{PROGRAM} is missing: run `make bench`"
        done = subprocess.run([PROGRAM, "init", "--help"], capture_output=True, check=False)
        return None if done.returncode == 0 else f"{PROGRAM} does not run"

    @classmethod
    def version(cls) -> str:
        return first_line([str(PROGRAM), "version"])

    def configure(self) -> list[str]:
        config = self.directory / "gatepost.toml"
        recipients = self.directory / "recipients"
        recipients.write_text(f"{RECIPIENT}\n")
        answers = ["--output", config, "--hostname", f"gatepost.{DOMAIN}", "--domain", DOMAIN]
        answers += ["--next-hop", f"smtp://127.0.0.1:{self.sink_port}", "--network", "127.0.0.0/8"]
        answers += ["--listen", f"127.0.0.1:{self.port}", "--spool", self.directory / "spool"]
        answers += ["--recipients", recipients]
        done = subprocess.run([PROGRAM, "init", "--yes", *answers], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PeerError(f"gatepost init ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        if self.tls:
            certificate, key = make_certificate(self.directory, f"gatepost.{DOMAIN}")
            with open(config, "a", encoding="utf-8") as file:
                file.write(f'\n[[tls.certificates]]\ncertificate_file = "{certificate}"\nkey_file = "{key}"\n')
        return [str(PROGRAM), "run", "--config", str(config)]


class GatepostWithoutFacts(Gatepost):
    """Records nothing of its decisions: what `gatepost why` and `gatepost replay` cost."""

    name = "gatepost-without-facts"

    def configure(self) -> list[str]:
        command = super().configure()
        with open(self.directory / "gatepost.toml", "a", encoding="utf-8") as file:
            file.write("\n[facts]\nkeep_bytes = 0\n")
        return command
