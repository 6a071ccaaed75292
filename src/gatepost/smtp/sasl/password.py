"""PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login): the password itself comes, so they exist only inside TLS.

Nothing is checked here. An authorization name may be given only if it is the user's own: nobody acts for another.
"""

from __future__ import annotations

from gatepost.smtp.sasl.mechanism import Challenge, Done, Exchange, Malformed, PasswordOf, Security, parse_name
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name, saslprep

MAX_PASSWORD_BYTES = 1024


def plain(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """[authorization name] NUL name NUL password."""
    message = initial if initial is not None else (yield Challenge(b""))
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1]:
        raise Malformed("not a message of PLAIN")
    return (yield from _check(parts[1], parts[2], parts[0]))


def login(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """Asks for the name, then for the password, in the words that clients expect."""
    name = initial if initial is not None else (yield Challenge(b"Username:"))
    password = yield Challenge(b"Password:")
    return (yield from _check(name, password, b""))


def _check(name: bytes, password: bytes, acting_as: bytes) -> Exchange:
    user = parse_name(name)
    wanted = parse_name(acting_as)
    if len(password) > MAX_PASSWORD_BYTES:
        raise Malformed("the password is too long")
    cause = ""
    try:
        text = saslprep(password.decode("utf-8"))
        user = prepare_name(user)
        if wanted and prepare_name(wanted) != user:
            cause = "it wants to act as another user"
    except (UnicodeDecodeError, NotPreparable):
        text, cause = "", "name or password cannot be prepared"
    matches = yield PasswordOf(user, text)  # asked in any case: a refusal takes as long
    if cause:
        return Done(False, user, cause)
    if matches and isinstance(matches, str):
        user = matches
    return Done(bool(matches), user, "" if matches else "wrong name or password")
