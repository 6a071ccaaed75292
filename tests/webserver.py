"""An HTTPS server on loopback for tests: answers by host and path as it is told, and keeps what it was asked.

`server.answers[host, path]` is (status, headers, body) or a function of the request that gives it; what is not there is 404. A
certificate for each name, chosen by SNI; unknown names get the first one.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from certificates import key_of
from integration.peers.process import take_port

TEXT = {"Content-Type": "text/plain"}


class Asked(NamedTuple):
    """One request."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes


class WebServer:
    """`with WebServer({"name": certificate, ...}) as web:`; `web.port`, `web.asked`."""

    def __init__(self, certificates: Mapping[str, Path]) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.asked: list[Asked] = []
        self._open_now: set[ssl.SSLSocket] = set()
        self._contexts = {}
        for name, certificate in certificates.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key_of(certificate))
            self._contexts[name] = context
        self.port = take_port()  # not one of those that the kernel gives to connections: it is to come back to it
        self._server: Any = None
        self.open()

    def open(self) -> None:
        """Listen, again at the same port."""
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web._answer(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, client_address: Any) -> None:
                request.settimeout(60)
                context = next(iter(web._contexts.values()))
                context.sni_callback = web._choose
                with context.wrap_socket(request, server_side=True) as secured:
                    web._open_now.add(secured)
                    try:
                        if web._server is self:  # else it was closed during the handshake
                            super().finish_request(secured, client_address)
                    finally:
                        web._open_now.discard(secured)

            def handle_error(self, *_: Any) -> None:
                """Clients that do not like the certificate are what is tested."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Listen no more, and drop whoever is connected: a client may have kept its connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for secured in list(self._open_now):
                with contextlib.suppress(OSError):
                    secured.shutdown(socket.SHUT_RDWR)

    def policy(self, domain: str, text: str) -> None:
        """What `mta-sts.DOMAIN` gives from now on."""
        self.answers[f"mta-sts.{domain}", "/.well-known/mta-sts.txt"] = (200, TEXT, text.encode())

    def count(self, host: str) -> int:
        return sum(asked.host == host for asked in self.asked)

    def _choose(self, tls: Any, name: str | None, _: Any) -> None:
        if name in self._contexts:
            tls.context = self._contexts[name]

    def _answer(self, request: Any) -> None:
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        asked = Asked(request.command, host, request.path, dict(request.headers), body)
        self.asked.append(asked)
        answer = self.answers.get((host, request.path), (404, TEXT, b"no such thing"))
        status, headers, content = answer(asked) if callable(answer) else answer
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
