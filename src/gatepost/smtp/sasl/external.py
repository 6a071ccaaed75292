"""EXTERNAL (RFC 4422 A): the client is who its certificate says. The TLS layer has verified the certificate; this compares."""

from __future__ import annotations

from gatepost.smtp.sasl.mechanism import CertificateOf, Challenge, Done, Exchange, Security, parse_name
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name


def external(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """The message is the authorization name, or empty for the one in the certificate."""
    message = initial if initial is not None else (yield Challenge(b""))
    wanted = parse_name(message)
    try:
        user = prepare_name(security.certificate_user) if security.certificate_user else ""
        if wanted and prepare_name(wanted) != user:
            return Done(False, user or wanted, "it wants to act as another user")
    except NotPreparable:
        return Done(False, wanted, "the name cannot be prepared")
    if not user:
        return Done(False, wanted, "no verified client certificate")
    exists = yield CertificateOf(user)
    return Done(bool(exists), user, "" if exists else "no such user")
