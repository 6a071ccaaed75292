"""The self-test of TLS, where it is offered: nothing that came before TLS counts behind it, and the certificate is good.

CVE-2011-0411 and its many successors: what is pipelined behind STARTTLS in plain text must not be executed as if it had come inside. The
certificate is asked for as a client asks: its chain by the authorities of this system, its name, its last day. A listener whose clients
are people fails where other servers would shrug: their programs verify.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator

from gatepost.config.schema import Config
from gatepost.selftest.result import FAILED, OK, WARNING, Result
from gatepost.selftest.talk import Endpoint, Talk

SOON_S = 14 * 86400
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


def check_starttls(config: Config, endpoint: Endpoint) -> Iterator[Result]:
    """Injection and certificate of a port for other servers, or that TLS is not offered there."""
    group = f"STARTTLS ({endpoint[0]} port {endpoint[1]})"
    with Talk(endpoint, config.hostname) as talk:
        offered = "STARTTLS" in talk.begin().text.split("\n")
        if not offered:
            reply = talk.ask(b"STARTTLS")
            good = reply.code in (454, 500, 502, 503)
            yield Result(group, "not offered, and refused", OK if good else FAILED, "" if good else str(reply))
            yield Result(
                group, "certificate", WARNING, "mail is received without encryption", "configure a certificate"
            )
            return
    yield from _inject(config, endpoint, group)
    yield check_certificate(config, endpoint, group)


def check_submission_tls(config: Config, endpoint: Endpoint, *, is_implicit: bool) -> Iterator[Result]:
    """The same of a port for people."""
    group = f"TLS ({endpoint[0]} port {endpoint[1]})"
    if not is_implicit:
        yield from _inject(config, endpoint, group)
    yield check_certificate(config, endpoint, group, is_implicit=is_implicit, is_for_people=True)


def _inject(config: Config, endpoint: Endpoint, group: str) -> Iterator[Result]:
    for name, tail in (
        ("a command", b"MAIL FROM:<>\r\n"),
        ("half a command", b"EHLO injected.example"),
        ("an empty line", b"\r\n"),
    ):
        yield _inject_one(config, endpoint, group, f"{name} behind STARTTLS in plain text", tail)


def _inject_one(config: Config, endpoint: Endpoint, group: str, name: str, tail: bytes) -> Result:
    with Talk(endpoint, config.hostname) as talk:
        talk.begin()
        talk.send(b"STARTTLS\r\n" + tail)
        reply = talk.reply()
        if reply.code != 220:
            return Result(group, name, OK, "")  # the group as a whole was refused
        if talk.forget_input():
            return Result(group, name, FAILED, "it was answered before TLS", "report this")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            talk.secure(context)
        except (ssl.SSLError, ConnectionError, TimeoutError):
            return Result(group, name, OK, "")  # the connection was ended
        reply = talk.begin()
        good = reply.code == 0 or (reply.code == 250 and "\n" in reply.text)
        return Result(group, name, OK if good else FAILED, "" if good else f"EHLO was answered {reply}", "report this")


def check_certificate(
    config: Config, endpoint: Endpoint, group: str, *, is_implicit: bool = False, is_for_people: bool = False
) -> Result:
    """Chain, name and last day, as a client sees them."""
    name = f"certificate for {config.hostname}"
    try:
        with Talk(endpoint, config.hostname, context=ssl.create_default_context(), is_implicit=is_implicit) as talk:
            certificate = talk.sock.getpeercert() or {}  # type: ignore[attr-defined]
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return Result(group, name, FAILED, error.verify_message, "renew it")
        if is_for_people:
            return Result(
                group, name, FAILED, error.verify_message, "mail programs refuse it: use one of a known authority"
            )
        advice = "most senders take it all the same; those that verify do not"
        return Result(group, name, WARNING, error.verify_message, advice)
    except OSError as error:
        return Result(group, name, FAILED, str(error) or type(error).__name__, "see the events of the gateway")
    left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    if left_s < SOON_S:
        return Result(group, name, WARNING, f"it expires in {left_s / 86400:.1f} days", "renew it")
    return Result(group, name, OK, f"good for {left_s / 86400:.0f} days")


def presented_certificate(config: Config, endpoint: Endpoint) -> bytes:
    """The certificate (DER) that other servers get; empty if they get none. Not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with Talk(endpoint, config.hostname, context=context) as talk:
            return talk.sock.getpeercert(binary_form=True) or b""  # type: ignore[attr-defined]
    except OSError:
        return b""
