"""A private HAProxy in front of a server on loopback: one door for each version of the PROXY protocol."""

from __future__ import annotations

from pathlib import Path

from integration.peers.packages import require
from integration.peers.process import PeerProcess, is_greeting, take_port

_CONFIG = """\
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen one
    bind 127.0.0.1:{one}
    server gateway 127.0.0.1:{server} source {source} send-proxy check inter 1s
listen two
    bind 127.0.0.1:{two}
    server gateway 127.0.0.1:{server} source {source} send-proxy-v2 check inter 1s
listen none
    bind 127.0.0.1:{none}
    server gateway 127.0.0.1:{server} source {source}
"""


class HaProxy(PeerProcess):
    """`ports[1]` and `ports[2]` speak version 1 and 2 to the server, `ports[0]` no PROXY protocol; it connects from `source`."""

    def __init__(self, directory: Path, server: int, source: str = "127.0.0.2") -> None:
        super().__init__(directory)
        self.program = require("haproxy")
        self.ports = [take_port() for _ in range(3)]
        self.server = server
        self.source = source

    def configure(self) -> list[str]:
        none, one, two = self.ports
        file = self.directory / "haproxy.cfg"
        file.write_text(_CONFIG.format(one=one, two=two, none=none, server=self.server, source=self.source))
        return [self.program, "-db", "-f", str(file)]

    def is_ready(self) -> bool:
        return all(is_greeting(port) for port in self.ports[1:])
