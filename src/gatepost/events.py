"""The events: one JSON line for each thing that happens, from one table of names and fields.

`EVENTS` is that table; an event or a field that is not in it is a bug (an error in tests, noted in production). A line is
self-contained: time, event, role, instance, then the fields. No text of a peer can forge a line or drive a terminal:
controls are escaped. Writing never holds up mail: what cannot be written is kept up to a limit, then counted as lost.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from gatepost.safeopen import open_regular

MAX_LINE_BYTES = 4096  # PIPE_BUF: what several processes write to one pipe is not mixed up to this
CUT_TO = (2400, 1200, 400)  # characters that the long texts of a longer line share: the most with which it fits
LONG_TEXT = 80  # characters; shorter texts are not cut
MAX_KEPT_BYTES = 1024 * 1024  # of lines that could not be written yet

_PROCESS = {
    "name": "role and instance",
    "number": "instance",
    "generation": "generation",
    "pid": "process",
}
_SESSION = {"session": "id of the SMTP session"}
_MESSAGE = {"id": "message id of ours"}
_ANSWER = {
    "stage": "where in the dialogue it ended",
    "code": "SMTP reply code, 0 without a reply",
    "status": "enhanced status code",
    "text": "the reply verbatim, or our own words",
}
_OUTCOME = _MESSAGE | _ANSWER | {
    "session": "id of the SMTP session it came in by",
    "recipient": "forward-path",
    "reverse_path": "reverse-path, empty for null",
    "next_hop": "next hop by name",
    "host": "the host that answered",
    "attempts": "attempts so far",
    "delay_s": "seconds since it was accepted",
}  # fmt: skip

EVENTS: dict[str, dict[str, str]] = {
    # --- a session, told by a receiver
    "connect": _SESSION | {"address": "client", "port": "port of the client", "listener": "our address and port"},
    "disconnect": _SESSION | {
        "address": "client",
        "cause": "quit, lost, timeout, errors, violation, shed, drain ...",
        "seconds": "how long it lasted",
        "commands": "commands received",
        "messages": "messages accepted",
        "bytes_in": "octets received",
        "bytes_out": "octets sent",
    },
    "tls": _SESSION | {
        "address": "client",
        "version": "TLSv1.2 or TLSv1.3",
        "cipher": "OpenSSL's name",
        "peer": "name in the client's certificate, if that was verified",
        "fingerprint": "SHA-256 of the client's certificate",
        "server_name": "that the client asked for (SNI)",
        "resumed": "whether a session was resumed",
    },
    "tls_failed": _SESSION | {"address": "client", "reason": "what went wrong in the handshake"},
    "connection_refused": {"address": "client", "cause": "which limit", "code": "reply code", "status": "enhanced code", "text": "reply"},
    "reply_refused": _SESSION | {
        "id": "message id of ours, if there is one already",
        "address": "client",
        "helo": "name the client gave",
        "verb": "command, or the end of data",
        "argument": "what stood behind the verb, cut",
        "reverse_path": "reverse-path, empty for null",
        "recipient": "forward-path refused",
        "code": "reply code",
        "status": "enhanced status code",
        "text": "reply sent",
        "cause": "what the reply does not tell",
    },
    "violation": _SESSION | {
        "address": "client",
        "kind": "bare_lf, bare_cr, nul, smuggling, pipelining ...",
        "verb": "during which command",
        "detail": "what was seen",
        "code": "reply code",
        "status": "enhanced status code",
    },
    "proxied": _SESSION | {
        "address": "client, as the proxy says",
        "proxy": "the proxy's own address",
        "version": "of the PROXY protocol",
        "local": "whether the proxy opened the connection for itself",
    },
    "introduced": _SESSION | {
        "address": "client, as the proxy says by XCLIENT",
        "proxy": "the proxy's own address",
        "name": "the client's name, as the proxy says",
        "helo": "the client's HELO, as the proxy says",
        "user": "as whom the client has authenticated, if the proxy is believed",
    },
    "forwarded": _SESSION | {
        "address": "client of a filter, as it says by XFORWARD",
        "proxy": "the filter's own address",
        "name": "name of that client",
        "helo": "its HELO",
        "ident": "its message id there",
        "source": "LOCAL or REMOTE",
    },
    "auth_ok": _SESSION | {"address": "client", "user": "who it is", "mechanism": "of SASL"},
    "auth_failed": _SESSION | {
        "address": "client",
        "user": "who the client says it is",
        "mechanism": "of SASL",
        "cause": "what the reply does not tell",
    },
    "auth_away": {"reason": "why Dovecot, or the authorization server, cannot say whether a login is right"},
    "token_refused": {"reason": "why a token that the authorization server calls active is not good here"},
    "shadow": _SESSION | {
        "address": "client",
        "check": "check in shadow that would have refused",
        "rule": "relay rule in shadow that would have held",
        "reverse_path": "reverse-path, empty for null",
        "recipient": "forward-path",
        "code": "reply code it would have given, 0: it would have accepted",
        "status": "enhanced status code",
        "text": "reply it would have given",
        "next_hop": "where the mail would have gone",
    },
    "recipients_guessed": _SESSION | {"address": "client", "unknown": "recipients that do not exist, asked for within an hour"},
    "trust_suspended": _SESSION | {
        "address": "client whose right to relay is suspended",
        "mode": "enforce, or shadow: nothing is changed",
        "kind": "what the address is known to be",
        "names": "HELO names seen in an hour",
        "senders": "domains of outside senders to outside recipients",
        "until": "until when, seconds since the epoch",
        "advice": "what to do",
    },
    "accepted": _SESSION | _MESSAGE | {
        "address": "client",
        "helo": "name the client gave",
        "reverse_path": "reverse-path, empty for null",
        "recipients": "how many",
        "recipient": "the first forward-path",
        "bytes": "octets of the message",
        "permit": "the right under which it was accepted",
        "tls": "version of TLS, if there was any",
        "cipher": "of TLS",
        "peer": "name or fingerprint of the client's certificate",
        "protocol": "SMTP, ESMTP, UTF8SMTP ...",
        "body_type": "7BIT, 8BITMIME or BINARYMIME",
        "smtputf8": "whether it asked for SMTPUTF8",
        "seconds": "from MAIL to the reply",
    },
    "path_rewritten": _SESSION | {"part": "which path", "before": "as given", "after": "as it goes on", "rules": "which, in order"},
    "header_rewritten": _SESSION | _MESSAGE | {
        "fields": "their names", "addresses": "how many became others", "rules": "which", "hidden": "Received fields of inside hosts",
    },
    "rewrite_kept": _SESSION | _MESSAGE | {"field": "what stays as it is", "reason": "why"},
    "rewrite_breaks_signature": _SESSION | _MESSAGE | {"domain": "that has signed", "fields": "signed fields that are others now"},
    "rewrite_shadow": _SESSION | {"rule": "in shadow", "before": "the address", "after": "what it would have become"},
    "shed": _SESSION | {"address": "client", "reason": "why no mail is taken now", "code": "reply code", "status": "enhanced code"},
    # --- a message, told by the queue
    "attempt": _MESSAGE | {
        "next_hop": "next hop by name",
        "recipients": "how many",
        "trouble": "none, busy or down",
        "reused": "whether over a kept connection",
        "seconds": "how long it took",
        "host": "the host that answered",
    },
    "delivered": _OUTCOME,
    "deferred": _OUTCOME | {"retry_at": "when it is due again"},
    "bounced": _OUTCOME | {"dsn": "message id of the DSN"},
    "expired": _OUTCOME | {"dsn": "message id of the DSN"},
    "expanded": _SESSION | {
        "recipient": "forward-path that stands for others",
        "count": "how many",
        "chain": "each alias and what it stands for",
        "skipped": "addresses that do not exist, left out",
    },
    "pool_member": {"pool": "name of the pool", "member": "next hop", "state": "up or down", "reason": "why it is down"},
    "held": _MESSAGE | _SESSION | {"reverse_path": "reverse-path, empty for null", "reason": "why it waits for the operator"},
    "discarded": _MESSAGE | {"recipient": "forward-path", "rule": "the rule that says so"},
    "removed": _MESSAGE | {"recipient": "forward-path", "recipients": "how many", "by": "who removed it"},
    "dsn_created": _MESSAGE | {
        "about": "message id of the message it is about",
        "kind": "failed, delayed ...",
        "recipient": "to whom it goes",
        "recipients": "how many recipients it reports",
        "bytes": "octets of the DSN",
    },
    "dsn_suppressed": _MESSAGE | {
        "kind": "failed, delayed ...",
        "recipient": "forward-path",
        "cause": "null reverse-path, NOTIFY ...",
        "text": "what it would have told",
    },
    "delay_notice": _MESSAGE | {"recipients": "how many are late", "dsn": "message id of the notice", "delay_s": "seconds since accepted"},
    "connect_out": {
        "host": "name, address and port",
        "next_hop": "next hop by name",
        "policy": "what holds for the host: none, opportunistic, encrypt, verify, dane, sts",
        "tls": "version of TLS; empty: in clear",
        "cipher": "of TLS",
        "peer": "name or fingerprint of the host's certificate",
        "verified": "whether the certificate was verified",
        "login": "mechanism by which we are logged in; empty: not at all",
    },
    "dane": {"in_effect": "whether TLSA records can be believed", "reason": "why not", "name": "domain that was asked for"},
    "tls_downgrade": {
        "domain": "recipient domain",
        "host": "its host",
        "remembered": "by what it was verified, and when; now it is not, and mail goes by TLS only",
    },
    "tls_forgotten": {"domain": "that the operator lets go in clear again"},
    "tls_out_failed": {
        "host": "name, address and port", "next_hop": "by name", "policy": "TLS policy", "reason": "what went wrong", "clear": "whether it goes on so",
    },
    "sts_policy": {"domain": "whose MTA-STS policy is new", "policy_id": "of its TXT record", "mode": "enforce, testing, none", "max_age_s": "how long it holds"},
    "sts_failed": {"domain": "whose MTA-STS policy could not be fetched", "policy_id": "of its TXT record", "reason": "result type of RFC 8460, and words", "left_s": "how long the one that is kept holds, 0: none is"},
    "tls_report_sent": {"domain": "it is about", "to": "where the domain wants it", "report": "its id", "sessions": "connections in it"},
    "tls_report_failed": {"domain": "it is about", "reason": "what went wrong", "tries": "so far", "given_up": "not tried again"},
    "sts_off": {"reason": "why no MTA-STS policies can be fetched, and what to do"},
    "auth_out_failed": {
        "host": "name, address and port",
        "next_hop": "next hop by name",
        "mechanism": "of SASL; empty: none fits",
        "reason": "the host's reply, or our own words",
        "advice": "what to do",
    },
    "disconnect_out": {"host": "name, address and port", "next_hop": "next hop by name", "messages": "sent over it"},
    "next_hop_down": {"next_hop": "by name", "text": "what went wrong", "retry_at": "when it is tried again", "waiting": "items"},
    "next_hop_up": {"next_hop": "by name", "waiting": "items"},
    # --- the spool
    "queue_health": {
        "accepting": "whether mail is accepted",
        "reason": "why, or why not",
        "free_bytes": "of the file system",
        "free_inodes": "of the file system",
        "messages": "in the queue",
    },
    "recovered": {
        "messages": "found in the spool",
        "recipients": "of them still to be delivered",
        "segments": "read",
        "deferred": "messages with a file of their own",
        "damaged": "records that could not be read",
        "seconds": "how long it took",
    },
    "damaged": {
        "file": "which file of the spool",
        "segment": "number",
        "offset": "where the damage begins",
        "bytes": "how many octets",
        "kept_as": "where the damaged octets are",
        "reason": "what is wrong with them",
        "id": "message id, if known",
    },
    "ledger": {
        "accepted": "recipients", "delivered": "recipients", "bounced": "recipients", "expired": "recipients",
        "discarded": "recipients", "removed": "recipients", "queued": "recipients",
    },
    # --- the roles
    "started": {"version": "of Gatepost", "pid": "of the supervisor", "config": "file", "listen": "addresses"},
    "ready": {"listen": "addresses", "roles": "how many processes", "seconds": "since the start"},
    "stopping": {"status": "exit status to be"},
    "stopped": {"seconds": "how long it took to drain", "clean": "whether all roles drained in time"},
    "role_started": _PROCESS,
    "role_ready": _PROCESS | {"rights": "its rights in one line"},
    "role_died": _PROCESS | {"why": "exit status, signal, or what it did wrong", "restart_in_s": "until it is started again"},
    "role_hung": _PROCESS | {"why": "how long it has not answered; it is killed and started again"},
    "role_ended": _PROCESS,
    "role_fatal": _PROCESS | {"why": "why it cannot go on", "advice": "what the operator should do"},
    "privs_differ": _PROCESS | {"differences": "from the table of roles, those that are new"},
    "weakened": {"why": "what in the configuration, or in how it was started, makes it less safe"},
    "reloaded": {"generation": "the new one, which has taken over"},
    "reload_refused": {"errors": "what is wrong with the new configuration; the old one goes on"},
    "generation_drained": {"generation": "the old one, which has ended"},
    "config_error": {"file": "configuration", "line": "line", "key": "key", "reason": "what is wrong", "advice": "what to write"},
    "source_down": {"source": "of the configuration", "server": "that failed", "reason": "what went wrong"},
    "source_up": {"source": "of the configuration", "server": "that answers again"},
    "source_shrinks": {
        "table": "that denies what it had named, and is not believed: look, then gatepost recipients confirm",
        "vanished": "keys that are gone", "asked": "keys that had been found and were asked for again",
    },
    "recipients_held": {
        "list": "domain, or table, whose file has lost many recipients: the last good list holds until gatepost recipients confirm",
        "kept": "recipients of that list", "found": "recipients in the file", "gone": "how many are gone", "sample": "some of them",
    },
    "snapshot_answers": {"table": "that gives no answer", "reason": "why", "known": "recipients of it in the snapshot"},
    "call_ahead_down": {"reason": "why a next hop that is asked for recipients gives no answer"},
    "call_ahead_takes_all": {"next_hop": "that takes recipients that cannot exist", "domain": "of ours", "advice": "what to do"},
    "source_failed": {"source": "of the configuration", "server": "that answered so", "reason": "why it gives no answer"},
    "table_trouble": {"table": "that is asked over the network", "reason": "why its value cannot be used"},
    "resolver_trouble": {"server": "DNS server", "name": "asked for", "kind": "type of record", "reason": "what went wrong"},
    "error": {"session": "id", "id": "message id", "where": "which part", "reason": "the exception", "trace": "where it was raised"},
    "internal_error": {"what": "which part", "next_hop": "next hop by name", "error": "the exception"},
    "bug": {"why": "the exception and where it was raised"},
    # --- this file
    "events_lost": {"count": "lines that could not be written"},
    "event_unknown": {"name": "event that is not in the table", "fields": "fields that are not in the table"},
}  # fmt: skip

_FIELDS = {name: frozenset(fields) for name, fields in EVENTS.items()}


class UnknownEvent(Exception):
    """An event or a field that the table does not have (only of a strict log)."""


class EventLog:
    """The event lines of one process: `event` for each, `flush` once per turn of its loop.

    `fd` is a file open for appending, a pipe, a terminal or a socket, blocking or not. `lost` counts lines dropped.
    """

    __slots__ = (
        "_bytes",
        "_clock",
        "_encode",
        "_fd",
        "_lines",
        "_middles",
        "_poll",
        "_reported",
        "_role",
        "_second",
        "_stamp",
        "_strict",
        "lost",
    )  # fmt: skip

    def __init__(
        self, fd: int, role: str, instance: int = 0, *, strict: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._role = f'"role":{msgspec.json.encode(role).decode()},"instance":{int(instance)}'.encode()
        self._strict = strict
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._middles = {name: b'","event":"' + name.encode() + b'",' + self._role for name in EVENTS}
        self._lines: list[bytes] = []
        self._bytes = 0
        self._stamp = b""  # of this turn; empty: ask the clock
        self._second = (-1, b"")
        self.lost = 0
        self._reported = 0
        self._fd = -1
        self._poll: select.poll | None = None
        self.replace(fd)

    def replace(self, fd: int) -> int:
        """Write to `fd` from now on; returns the old one, for the caller to close."""
        old, self._fd = self._fd, fd
        self._poll = None
        if fd >= 0 and not stat.S_ISREG(os.fstat(fd).st_mode):
            self._poll = (
                select.poll()
            )  # not epoll: a descriptor of its own, and one of ours may be open for writing only
            self._poll.register(fd, select.POLLOUT)
        return old

    def event(self, name: str, /, **fields: Any) -> None:
        """Note an event; the line is written by the next `flush`."""
        known = _FIELDS.get(name)
        if known is None or not known.issuperset(fields):
            self._unknown(name, fields)
            if known is None:
                return
        if self._bytes > MAX_KEPT_BYTES:
            self.lost += 1
            return
        line = self._line(name, fields)
        self._lines.append(line)
        self._bytes += len(line)

    def flush(self) -> None:
        """Write what is there, whole lines, as far as that does not block."""
        self._stamp = b""
        if not self._lines:
            return
        if self.lost != self._reported and self._bytes < MAX_KEPT_BYTES:
            count, self._reported = self.lost - self._reported, self.lost
            line = self._line("events_lost", {"count": count})
            self._lines.append(line)
            self._bytes += len(line)
        if self._poll is None:
            self._write(b"".join(self._lines), len(self._lines))
        else:
            self._write_in_pieces()

    def close(self) -> None:
        """Write what is there; the descriptor stays open, it is the caller's."""
        self.flush()
        self.lost += len(self._lines)
        self._lines.clear()
        self._bytes = 0

    # --- inside -----------------------------------------------------------------------------------------------------

    def _line(self, name: str, fields: dict[str, Any]) -> bytes:
        body = self._body(fields)
        line = b'{"time":"' + (self._stamp or self._new_stamp()) + self._middles[name] + body
        if len(line) > MAX_LINE_BYTES:
            begin = b'{"time":"' + self._stamp + self._middles[name]
            for most in CUT_TO:
                line = begin + self._body(_cut(fields, most))
                if len(line) <= MAX_LINE_BYTES:
                    return line
            line = begin + b',"cut":true}\n'
        return line

    def _body(self, fields: dict[str, Any]) -> bytes:
        if not fields:
            return b"}\n"
        try:
            body = self._encode(fields)
        except (TypeError, ValueError, RecursionError):  # a lone surrogate, or a type that has no JSON
            body = self._encode({key: _plain(value) for key, value in fields.items()})
        if not body.isascii() or b"\x7f" in body:
            body = _escape(body)
        return b"," + body[1:] + b"\n"

    def _new_stamp(self) -> bytes:
        now_s = self._clock()
        second, stamp = self._second
        if second != int(now_s):
            second = int(now_s)
            stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()
            self._second = (second, stamp)
        self._stamp = stamp + b"%03dZ" % int((now_s - second) * 1000)
        return self._stamp

    def _unknown(self, name: str, fields: dict[str, Any]) -> None:
        strange = sorted(set(fields) - _FIELDS.get(name, frozenset()))
        if self._strict:
            raise UnknownEvent(f"event {name!r}, fields {strange}: not in gatepost.events.EVENTS")
        line = self._line("event_unknown", {"name": name, "fields": strange})
        self._lines.append(line)
        self._bytes += len(line)

    def _write_in_pieces(self) -> None:
        """To a pipe, terminal or socket: pieces of at most MAX_LINE_BYTES, each only if there is place for it."""
        assert self._poll is not None
        while self._lines:
            size = count = 0
            for line in self._lines:
                if count and size + len(line) > MAX_LINE_BYTES:
                    break
                size += len(line)
                count += 1
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT or not self._write(b"".join(self._lines[:count]), count):
                return

    def _write(self, data: bytes, count: int) -> bool:
        """Write the first `count` lines with one call; whether all of it went out."""
        try:
            written = os.write(self._fd, data)
        except OSError:  # would block, disk full, nobody reads: kept until the limit
            return False
        if written == len(data):
            del self._lines[:count]
            self._bytes -= written
            return True
        rest = data[written:]
        self._lines[:count] = [rest]
        self._bytes -= written
        return False


def open_output(output: str) -> int:
    """A descriptor for `events.output`: "stderr" or a file path. The caller hands it to the roles; raises OSError."""
    if output != "stderr":
        descriptor = open_regular(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        os.set_blocking(descriptor, True)
        return descriptor
    mode = os.fstat(2).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            # A file description of our own, so that O_NONBLOCK does not change that of the shell or of our parent.
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            pass
    return os.dup(2)


def _cut(fields: dict[str, Any], most: int) -> dict[str, Any]:
    """The fields with long texts cut in their middle: of a traceback, the end tells most."""
    texts = {
        key: value if isinstance(value, str) else str(value)
        for key, value in fields.items()
        if isinstance(value, (str, list, tuple, dict, set))
    }
    long = {key: text for key, text in texts.items() if len(text) > LONG_TEXT}
    half = most // (2 * len(long) or 1)
    return fields | {key: f"{text[:half]} ... {text[-half:]}" for key, text in long.items()} | {"cut": True}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, (int, float, bool, type(None))) else repr(value)


def _escape(body: bytes) -> bytes:
    """Everything that is not printable as \\uXXXX: controls of C1, DEL, bidirectional overrides, line separators."""
    text = body.decode()
    if text.isprintable():
        return body
    return "".join(
        each
        if each.isprintable()
        else each.encode("utf-16-be", "surrogatepass").hex(" ", 2).join(("\\u", "")).replace(" ", "\\u")
        for each in text
    ).encode()
