"""The real mail programs that the integration tests talk to, and how to require them.

One import for tests: `from peers import PostfixServer, require`. The classes live in `integration/peers/`; each starts its
program on a free loopback port as a child, below a directory of the test, and ends it by process id. A program that is not
installed skips the test and says what to install; with CI=true that is a failure.
"""

from __future__ import annotations

from integration.peers.clients import (
    send_with_curl,
    send_with_msmtp,
    send_with_smtp_source,
    send_with_smtplib,
    send_with_swaks,
)
from integration.peers.dovecot_lmtp import DovecotLmtp
from integration.peers.haproxy import HaProxy
from integration.peers.packages import read_packages, require, require_root
from integration.peers.postfix import PostfixServer
from integration.peers.process import PeerProcess, PeerStartError, open_directory, take_port, wait_until
from integration.peers.sink import SmtpSink

__all__ = [
    "DovecotLmtp",
    "HaProxy",
    "PeerProcess",
    "PeerStartError",
    "PostfixServer",
    "SmtpSink",
    "open_directory",
    "read_packages",
    "require",
    "require_root",
    "send_with_curl",
    "send_with_msmtp",
    "send_with_smtp_source",
    "send_with_smtplib",
    "send_with_swaks",
    "take_port",
    "wait_until",
]
