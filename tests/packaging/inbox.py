"""What tests run inside a box: an SMTP server that keeps what comes, and a client. Only what Debian's own Python has."""

from __future__ import annotations

from pathlib import Path

from boxes import Box

SINK = r"""
import os, socketserver, sys, threading
class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text + b"\r\n"); self.wfile.flush()
    def handle(self):
        self.say(b"220 inside.example.test ESMTP")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO": self.say(b"250-inside.example.test\r\n250-8BITMIME\r\n250 PIPELINING")
            elif verb == b"QUIT": return self.say(b"221 bye")
            elif verb == b"DATA":
                self.say(b"354 go on")
                text = b""
                while (line := self.rfile.readline()) not in (b".\r\n", b""): text += line
                with open("/var/tmp/arrived", "ab") as file: file.write(text + b"--end--\n")
                self.say(b"250 kept")
            else: self.say(b"250 ok")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
with Server(("127.0.0.1", int(sys.argv[1])), Session) as server:
    print(os.getpid(), flush=True)
    server.serve_forever()
"""
SEND = r"""
import smtplib, sys
host, port, subject = sys.argv[1:]
with smtplib.SMTP(host, int(port), timeout=60) as client:
    client.sendmail("me@example.net", ["you@example.test"], f"Subject: {subject}\r\n\r\nhello\r\n")
print("accepted")
"""
WAIT = r"""
import sys, time
subject, end = f"Subject: {sys.argv[1]}\r\n".encode(), time.monotonic() + 40
while time.monotonic() < end:
    try:
        if open("/var/tmp/arrived", "rb").read().count(subject) == 1: sys.exit(0)
    except FileNotFoundError: pass
    time.sleep(0.02)
sys.exit("did not arrive")
"""
DEFERRED = r"""
import json, subprocess, sys, time
end = time.monotonic() + 40
while time.monotonic() < end:
    text = subprocess.run(["gatepost", "queue", "list", "--json"], stdout=subprocess.PIPE).stdout
    found = json.loads(text or b"{}").get("messages")
    if found and all(message["attempts"] for message in found): sys.exit(0)
    time.sleep(0.02)
sys.exit(f"not deferred: {text}")
"""
SINK_PORT = "2526"


def start_sink(box: Box) -> str:
    """An inside server on SINK_PORT; what it takes is in /var/tmp/arrived. Its process number in the box."""
    process = box.start("python3", "-c", SINK, SINK_PORT)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop_sink(box: Box, number: str) -> None:
    box.run("sh", "-c", f"kill {number}")


def send(box: Box, subject: str, port: int = 25, host: str = "127.0.0.1") -> None:
    """One message into the gateway of the box."""
    assert box.run("python3", "-c", SEND, host, str(port), subject) == "accepted"


def wait_arrived(box: Box, subject: str) -> None:
    """Until exactly one message with that subject is at the sink."""
    box.run("python3", "-c", WAIT, subject)


def wait_until_deferred(box: Box) -> None:
    """Until each message in the queue has been tried."""
    box.run("python3", "-c", DEFERRED)


def init(box: Box, *more: str) -> str:
    """`gatepost init` as an administrator's script would call it."""
    answers = [
        "--hostname",
        "gate.example.test",
        "--domain",
        "example.test",
        "--next-hop",
        f"smtp://127.0.0.1:{SINK_PORT}",
    ]
    return box.run("gatepost", "init", "--yes", *answers, "--network", "10.0.0.0/8", *more)


def give(box: Box, package: Path) -> str:
    """Copy a package into the box; its path there."""
    place = f"/var/tmp/{package.name}"
    box.path(place).write_bytes(package.read_bytes())
    return place
