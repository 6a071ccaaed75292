"""A next hop with STARTTLS in threads: takes mail, and notes by which TLS each message came. For tests of what is verified."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from pathlib import Path
from typing import NamedTuple, Self


class TakenByTls(NamedTuple):
    """A message; `tls` is empty if it came in clear."""

    recipients: list[str]
    tls: str


class _Session(socketserver.StreamRequestHandler):
    server: TlsHop

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.say(b"220 hop.test")
            self.converse()
        with contextlib.suppress(OSError):
            self.request.close()  # that of TLS is another one than the server closes

    def say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")
        self.wfile.flush()

    def converse(self) -> None:
        recipients: list[str] = []
        tls = ""
        while line := self.rfile.readline():
            verb = line[:4].upper()
            self.server.verbs.append(verb)
            if verb == b"EHLO":
                offers = self.server.context is not None and not tls
                self.say(b"250-hop.test\r\n250-PIPELINING\r\n250 STARTTLS" if offers else b"250 hop.test")
            elif verb == b"STAR":
                self.say(b"220 go")
                assert self.server.context is not None
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                self.rfile.close()
                self.wfile.close()
                self.setup()
                tls = self.request.version() or ""
            elif verb == b"RCPT":
                recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
                self.say(b"250 ok")
            elif verb == b"DATA":
                self.say(b"354 go")
                while self.rfile.readline() != b".\r\n":
                    pass
                self.server.taken.append(TakenByTls(recipients, tls))
                recipients = []
                self.say(b"250 taken")
            elif verb == b"QUIT":
                self.say(b"221 bye")
                return
            else:
                self.say(b"250 ok")


class TlsHop(socketserver.ThreadingTCPServer):
    """`with TlsHop(address, port, certificate, key) as hop:`; without a certificate it offers no TLS."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, port: int, certificate: Path | None = None, key: Path | None = None) -> None:
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        self.taken: list[TakenByTls] = []
        self.verbs: list[bytes] = []
        super().__init__((address, port), _Session)

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that the client gave up is no error here."""

    def find(self, recipient: str) -> TakenByTls | None:
        return next((one for one in list(self.taken) if recipient in one.recipients), None)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(60)
