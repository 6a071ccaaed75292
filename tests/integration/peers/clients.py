"""Real clients, each sending one message to a server on loopback.

Each returns the completed program (`returncode`, `stdout`, `stderr`): a refusal is a result, not an error. They are told to
use no TLS and no configuration of the user.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import subprocess
from collections.abc import Sequence

from integration.peers.packages import require

Completed = subprocess.CompletedProcess[str]
MESSAGE = b"From: sender@outside.test\r\nTo: user@example.test\r\nSubject: Hello\r\n\r\nA line of text.\r\n"
TIMEOUT_S = 60.0


def run_client(command: Sequence[str], message: bytes = b"") -> Completed:
    """Run it with `message` on its standard input."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LC_ALL": "C"}
    done = subprocess.run(
        list(command), input=message, capture_output=True, timeout=TIMEOUT_S, check=False, env=environment
    )
    return Completed(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def send_with_swaks(
    port: int,
    recipients: Sequence[str] = ("user@example.test",),
    reverse_path: str = "sender@outside.test",
    message: bytes | None = MESSAGE,
    options: Sequence[str] = (),
) -> Completed:
    """swaks; `stdout` is the transcript. `message` None sends its own text; `options` are added ("--pipeline")."""
    command = [require("swaks"), "--server", "127.0.0.1", "--port", str(port), "--helo", "client.outside.test"]
    command += ["--from", reverse_path, "--to", ",".join(recipients), "--suppress-data"]
    command += ["--data", "-"] if message is not None else []
    return run_client([*command, *options], message or b"")


def send_with_curl(
    port: int,
    recipients: Sequence[str] = ("user@example.test",),
    reverse_path: str = "sender@outside.test",
    message: bytes = MESSAGE,
    options: Sequence[str] = (),
) -> Completed:
    """curl; `stderr` is its transcript."""
    command = [require("curl"), "--silent", "--show-error", "--verbose", "--disable", "--crlf"]
    command += ["--url", f"smtp://127.0.0.1:{port}/client.outside.test", "--mail-from", reverse_path]
    for recipient in recipients:
        command += ["--mail-rcpt", recipient]
    return run_client([*command, "--upload-file", "-", *options], message.replace(b"\r\n", b"\n"))


def send_with_msmtp(
    port: int,
    recipients: Sequence[str] = ("user@example.test",),
    reverse_path: str = "sender@outside.test",
    message: bytes = MESSAGE,
    options: Sequence[str] = (),
) -> Completed:
    """msmtp; it reads lines that end with LF."""
    command = [require("msmtp"), "--host=127.0.0.1", f"--port={port}", "--tls=off", "--auth=off", "--file=/dev/null"]
    command = [part for part in command if part != "--file=/dev/null"]  # --host alone: no file is read
    command += ["--domain=client.outside.test", f"--from={reverse_path}", "--debug", *options, "--", *recipients]
    return run_client(command, message.replace(b"\r\n", b"\n"))


def send_with_smtplib(
    port: int,
    recipients: Sequence[str] = ("user@example.test",),
    reverse_path: str = "sender@outside.test",
    message: bytes = MESSAGE,
) -> dict[str, tuple[int, bytes]]:
    """Python's own client; the recipients refused. Raises what smtplib raises."""
    with contextlib.closing(smtplib.SMTP("127.0.0.1", port, "client.outside.test", timeout=TIMEOUT_S)) as client:
        refused = client.sendmail(reverse_path, list(recipients), message)
        client.quit()
    return refused


def send_with_smtp_source(
    port: int,
    messages: int,
    recipient: str = "user@example.test",
    *,
    sessions: int = 10,
    size_bytes: int = 1024,
    options: Sequence[str] = (),
) -> Completed:
    """smtp-source: many messages in parallel; it ends with 1 at the first refusal."""
    command = [require("smtp-source"), "-s", str(min(sessions, messages)), "-m", str(messages), "-l", str(size_bytes)]
    command += ["-f", "sender@outside.test", "-t", recipient, *options]
    return run_client([*command, f"127.0.0.1:{port}"])
