"""The step AUTH of a client session (RFC 4954): between EHLO inside TLS and the first transaction. Sans-IO; `client.py` calls it.

Invariant: nothing of a login is ever written to a connection without TLS, and a password or token itself only to a host whose
certificate was verified. What a mechanism says is `sasl/client.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatepost.smtp.replyreader import RemoteReply
from gatepost.smtp.sasl.client import MAX_INITIAL_BYTES, Login, LoginAttempt, LoginFailed, choose, decode, encode

MAX_SHOWN = 400
IN_CLEAR = "a login is never sent in clear, and the connection has no TLS"
NOT_PROVED = "the host does not prove that it knows the password"


class LoginStep:
    """One login on one connection. `mechanism` is the one in use; `is_verified` and `binding` come from the TLS layer."""

    __slots__ = ("_attempt", "_login", "binding", "is_verified", "mechanism")

    def __init__(self, login: Login) -> None:
        self._login = login
        self._attempt: LoginAttempt | None = None
        self.binding = b""  # tls-server-end-point of the host's certificate
        self.is_verified = False  # that certificate was verified
        self.mechanism = ""

    def begin(self, extensions: Mapping[str, str], *, is_secured: bool) -> bytes:
        """The AUTH command without its CRLF; raises LoginFailed."""
        if not is_secured:
            raise LoginFailed(IN_CLEAR)
        offered = extensions.get("AUTH", "").upper().split()
        name = choose(self._login, offered, is_verified=self.is_verified, has_binding=bool(self.binding))
        if not name:
            why = "" if self.is_verified else "; its certificate is not verified, and only SCRAM is used then"
            shown = " ".join(offered)[:MAX_SHOWN] or "none"
            raise LoginFailed(f"no mechanism fits, the host offers: {shown}{why}")
        self.mechanism = name
        plus = f"{name.removesuffix('-PLUS')}-PLUS" in offered
        try:
            attempt = self._attempt = LoginAttempt(name, self._login, binding=self.binding, plus_offered=plus)
        except ValueError:
            raise LoginFailed("the name or the password holds characters that SASL does not allow") from None
        line = b"AUTH " + name.encode("ascii")
        if attempt.initial is not None and len(attempt.initial) <= MAX_INITIAL_BYTES:
            line += b" " + encode(attempt.initial)
            attempt.initial = None
        return line

    def answer(self, reply: RemoteReply) -> bytes:
        """The line that answers a 334, without its CRLF; raises LoginFailed."""
        attempt = self._attempt
        assert attempt is not None
        challenge = decode(reply.text[4:])
        if attempt.initial is not None:
            initial, attempt.initial = attempt.initial, None
            return encode(initial)
        return encode(attempt.respond(challenge))

    def end(self) -> None:
        """The host has accepted; raises LoginFailed if that cannot be believed."""
        attempt, self._attempt = self._attempt, None
        if attempt is None or not attempt.is_proved:
            raise LoginFailed(NOT_PROVED)
