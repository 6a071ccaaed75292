"""What a SASL mechanism says and hears: challenges, questions to the owner, the end.

Values only. A question carries what the client claims; the owner answers it with the value that its docstring names, always
(for a user that does not exist with what cannot match), so that the exchange looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import msgspec

MAX_NAME_BYTES = 320  # of a user name: local part, @, domain


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What the TLS layer knows of a connection: who the client certificate names, and channel bindings (RFC 5929).

    `bindings` has by type the data of which the client must name one: of "tls-server-end-point" that of each certificate of ours
    that it may have been shown, for which of them it was, OpenSSL does not say.
    """

    bindings: Mapping[str, tuple[bytes, ...]] = {}
    certificate_user: str = ""  # from a verified client certificate; empty: none


PLAINTEXT = Security()


class Challenge(msgspec.Struct, frozen=True):
    """Octets for the client, before base64."""

    octets: bytes


class VerifierOf(msgspec.Struct, frozen=True):
    """Answer: a `ScramVerifier` of this user for this hash."""

    user: str
    algorithm: str


class PasswordOf(msgspec.Struct, frozen=True):
    """Answer: whether this is the password of this user; instead of yes, the name under which the user is known. The representation shows no password."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"PasswordOf(user={self.user!r})"


class TokenOf(msgspec.Struct, frozen=True):
    """Answer: the user that this token stands for; empty if it is not valid, or not for the user claimed (if one is)."""

    user: str
    token: str

    def __repr__(self) -> str:
        return f"TokenOf(user={self.user!r})"


class CertificateOf(msgspec.Struct, frozen=True):
    """Answer: whether the user that the client certificate names exists here."""

    user: str


Question = VerifierOf | PasswordOf | TokenOf | CertificateOf


class Done(msgspec.Struct, frozen=True):
    """The end: whether the client is this user. `cause` is for the log, never for the client."""

    granted: bool
    user: str
    cause: str = ""


class Malformed(Exception):
    """The client's message is not one of this mechanism (501 5.5.2)."""


Exchange = Generator[Challenge | Question, Any, Done]
Mechanism = Callable[[bytes | None, Security, bool], Exchange]
"""(initial response or None, what TLS knows, whether -PLUS was offered) -> the exchange."""


def parse_name(octets: bytes) -> str:
    """A user or authorization name as it stands in a message; raises Malformed."""
    if len(octets) > MAX_NAME_BYTES:
        raise Malformed("the name is too long")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the name is not UTF-8") from None
