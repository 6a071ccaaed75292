"""The client's side of SASL for AUTH (RFC 4954): SCRAM (RFC 5802, 7677), PLAIN, LOGIN, OAUTHBEARER (RFC 7628), XOAUTH2. Sans-IO.

Which mechanism: the first of the login's own list that the host offers and the connection allows. Who calls has seen to it that the
connection is secured; a password or token itself goes only to a host whose certificate was verified.

Invariants: with SCRAM the host must prove that it knows the password before its 235 counts; a salt that would cost more than a second of
work is refused; nothing of a login is in any text or repr.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection

from gatepost.smtp.sasl.prepare import NotPreparable, saslprep

SCRAM = {
    "SCRAM-SHA-256-PLUS": "sha256",
    "SCRAM-SHA-256": "sha256",
    "SCRAM-SHA-1-PLUS": "sha1",
    "SCRAM-SHA-1": "sha1",
}
PASSWORDS = (*SCRAM, "PLAIN", "LOGIN")  # strongest first
TOKENS = ("OAUTHBEARER", "XOAUTH2")
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 500_000  # RFC 7677 4; half a second of work
MAX_INITIAL_BYTES = 400  # a longer initial response waits for the host's 334 (RFC 4954 4)
NONCE_BYTES = 18

_FIRST = re.compile(rb"r=([!-+\--~]+),s=([A-Za-z0-9+/]+=*),i=([1-9][0-9]{0,8})(?:,.*)?", re.DOTALL).fullmatch
_ESCAPES = str.maketrans({"=": "=3D", ",": "=2C"})


class LoginFailed(Exception):
    """The exchange cannot go on; the text holds nothing of the login."""


class Login:
    """A name with its password or token, and the mechanisms that may be used, strongest first (empty: all that fit)."""

    __slots__ = ("_salted", "mechanisms", "password", "token", "user")

    def __init__(self, user: str, *, password: str = "", token: str = "", mechanisms: Collection[str] = ()) -> None:
        self.user = user
        self.password = password
        self.token = token
        fitting = TOKENS if token else PASSWORDS
        self.mechanisms = tuple(name for name in mechanisms if name in fitting) or fitting
        self._salted: tuple[tuple[str, bytes, int], bytes] | None = None

    def __repr__(self) -> str:
        return "Login(...)"

    def salted(self, algorithm: str, salt: bytes, iterations: int) -> bytes:
        """Hi(password, salt, i) of RFC 5802 2.2; slow on purpose, so the last one is remembered."""
        key = (algorithm, salt, iterations)
        if self._salted is None or self._salted[0] != key:
            password = saslprep(self.password).encode("utf-8")
            self._salted = (key, hashlib.pbkdf2_hmac(algorithm, password, salt, iterations))
        return self._salted[1]


def choose(login: Login, offered: Collection[str], *, is_verified: bool, has_binding: bool) -> str:
    """The mechanism to use, or "" if none of those offered may be."""
    for name in login.mechanisms:
        if name not in offered or (name.endswith("-PLUS") and not has_binding):
            continue
        if is_verified or name in SCRAM:
            return name
    return ""


class LoginAttempt:
    """One exchange. `initial` is the initial response; `is_proved` whether a 235 may be believed now."""

    __slots__ = (
        "_binding", "_first_bare", "_header", "_login", "_mechanism", "_nonce", "_signature", "_step", "initial", "is_proved",
    )  # fmt: skip

    def __init__(
        self, mechanism: str, login: Login, *, binding: bytes = b"", plus_offered: bool = False, nonce: bytes = b""
    ) -> None:
        self._mechanism = mechanism
        self._login = login
        self._binding = binding
        self._nonce = nonce or b2a_base64(os.urandom(NONCE_BYTES), newline=False)
        self._step = 0
        self._signature = b""
        self._header = b""
        self._first_bare = b""
        self.is_proved = mechanism not in SCRAM
        self.initial: bytes | None = self._initial(plus_offered)

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge, both before base64; raises LoginFailed."""
        self._step += 1
        if self._mechanism == "LOGIN":
            return self._answer_login()
        if self._mechanism in SCRAM:
            return self._answer_first(challenge) if self._step == 1 else self._answer_final(challenge)
        if self._mechanism in TOKENS:  # why the token is refused; the host says 535 behind the answer (RFC 7628 3.2.3)
            return b"\x01" if self._mechanism == "OAUTHBEARER" else b""
        raise LoginFailed("the host asks for more than PLAIN has")

    def _initial(self, plus_offered: bool) -> bytes | None:
        login = self._login
        user = login.user
        if self._mechanism == "PLAIN":
            return b"\0%b\0%b" % (user.encode("utf-8"), login.password.encode("utf-8"))
        if self._mechanism == "XOAUTH2":
            return f"user={user}\x01auth=Bearer {login.token}\x01\x01".encode()
        if self._mechanism == "OAUTHBEARER":
            return f"n,a={user.translate(_ESCAPES)},\x01auth=Bearer {login.token}\x01\x01".encode()
        if self._mechanism == "LOGIN":
            return None
        if self._mechanism.endswith("-PLUS"):
            self._header = b"p=tls-server-end-point,,"
        else:  # "y": we could bind, and the host seems not to: if it can, somebody between has hidden it (RFC 5802 6)
            self._header = b"y,," if self._binding and not plus_offered else b"n,,"
            self._binding = b""
        self._first_bare = b"n=%b,r=%b" % (saslprep(user).translate(_ESCAPES).encode("utf-8"), self._nonce)
        return self._header + self._first_bare

    def _answer_login(self) -> bytes:
        if self._step > 2:
            raise LoginFailed("the host asks for more than a name and a password")
        return (self._login.user if self._step == 1 else self._login.password).encode("utf-8")

    def _answer_first(self, challenge: bytes) -> bytes:
        match = _FIRST(challenge)
        if match is None or not match[1].startswith(self._nonce) or len(match[1]) <= len(self._nonce):
            raise LoginFailed("what the host answers is not SCRAM")
        iterations = int(match[3])
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise LoginFailed(f"the host wants {iterations} iterations of SCRAM; 4096 to {MAX_ITERATIONS} are done")
        algorithm = SCRAM[self._mechanism]
        try:
            salted = self._login.salted(algorithm, a2b_base64(match[2]), iterations)
        except (Base64Error, NotPreparable):
            raise LoginFailed("what the host answers is not SCRAM") from None
        bound = b2a_base64(self._header + self._binding, newline=False)
        without_proof = b"c=%b,r=%b" % (bound, match[1])
        message = b"%b,%b,%b" % (self._first_bare, challenge, without_proof)
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        signed = hmac.digest(hashlib.new(algorithm, client_key).digest(), message, algorithm)
        proof = (int.from_bytes(client_key, "big") ^ int.from_bytes(signed, "big")).to_bytes(len(signed), "big")
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", algorithm), message, algorithm)
        return b"%b,p=%b" % (without_proof, b2a_base64(proof, newline=False))

    def _answer_final(self, challenge: bytes) -> bytes:
        wanted = b"v=" + b2a_base64(self._signature, newline=False)
        if self._step > 2 or not hmac.compare_digest(challenge.partition(b",")[0], wanted):
            raise LoginFailed("the host does not prove that it knows the password")
        self.is_proved = True
        return b""


def encode(octets: bytes) -> bytes:
    """As a line of AUTH."""
    return b2a_base64(octets, newline=False)


def decode(text: str) -> bytes:
    """The octets of a challenge; raises LoginFailed."""
    try:
        return a2b_base64(text.strip().encode("ascii"), strict_mode=True) if text.strip() else b""
    except (Base64Error, UnicodeEncodeError):
        raise LoginFailed("what the host asks is not base64") from None
