"""The inside server of `gatepost demo`: just enough SMTP to take a message. Not a mail server, and of no use outside the demonstration."""

from __future__ import annotations

import socket
import socketserver
import threading
import time


class _Session(socketserver.StreamRequestHandler):
    """HELO, EHLO, MAIL, RCPT, DATA, RSET, QUIT; everything is accepted."""

    server: _Server

    def handle(self) -> None:
        self._say("220 inside.example.test")
        recipient = ""
        while line := self.rfile.readline(4096):
            verb = line[:4].upper()
            if verb == b"DATA":
                self._say("354 go ahead")
                size = 0
                text = []
                while (line := self.rfile.readline(65536)) not in (b".\r\n", b""):
                    size += len(line)
                    text.append(line)
                subject = next((t.decode().strip() for t in text if t.lower().startswith(b"subject:")), "")
                self.server.taken.append(f"{recipient}, {size} octets, {subject}")
                self._say("250 taken")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                if verb == b"RCPT":
                    recipient = line[8:].decode("utf-8", "replace").strip()
                self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], taken: list[str]) -> None:
        self.taken = taken
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Session)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self.connections.add(request)
        super().process_request(request, client_address)


class InsideServer:
    """Runs in threads of this process; `stop` and `start` keep the port."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.port = 0
        self._server: _Server | None = None
        self.start()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self.taken)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break those that are open, as a server that crashes does."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in server.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    close = stop

    def wait_for(self, count: int, limit_s: float) -> None:
        """Wait until so many messages have arrived, at most `limit_s`."""
        end = time.monotonic() + limit_s
        while len(self.taken) < count and time.monotonic() < end:
            time.sleep(0.02)

    def summary(self) -> list[str]:
        """The last message that arrived, in words."""
        return [f"-- arrived inside: {self.taken[-1]}"] if self.taken else ["-- nothing arrived inside"]
