"""The self-test of STARTTLS, where it is offered: nothing that came before TLS counts behind it, and the certificate is good.

CVE-2011-0411 and its many successors: what is pipelined behind STARTTLS in plain text must not be executed as if it had come inside.
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
    """Injection and certificate, or that TLS is not offered."""
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
    yield _inject(config, endpoint, group)
    yield _certificate(config, endpoint, group)


def _inject(config: Config, endpoint: Endpoint, group: str) -> Result:
    name = "commands behind STARTTLS in plain text"
    with Talk(endpoint, config.hostname) as talk:
        talk.begin()
        talk.send(b"STARTTLS\r\nMAIL FROM:<>\r\n")
        reply = talk.reply()
        if reply.code != 220:
            return Result(group, name, OK, "")  # the group as a whole was refused
        if talk.forget_input():
            return Result(group, name, FAILED, "it was answered before TLS", "report this")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            talk.sock = context.wrap_socket(talk.sock, server_hostname=config.hostname)
        except (ssl.SSLError, ConnectionError, TimeoutError):
            return Result(group, name, OK, "")  # the connection was ended
        reply = talk.begin()
        good = reply.code == 0 or (reply.code == 250 and "\n" in reply.text)
        return Result(group, name, OK if good else FAILED, "" if good else f"EHLO was answered {reply}", "report this")


def _certificate(config: Config, endpoint: Endpoint, group: str) -> Result:
    name = f"certificate for {config.hostname}"
    with Talk(endpoint, config.hostname) as talk:
        talk.begin()
        if (reply := talk.ask(b"STARTTLS")).code != 220:
            return Result(group, name, FAILED, str(reply))
        context = ssl.create_default_context()
        try:
            talk.sock = context.wrap_socket(talk.sock, server_hostname=config.hostname)
        except ssl.SSLCertVerificationError as error:
            verdict = FAILED if error.verify_code == _EXPIRED else WARNING
            advice = "renew it" if verdict == FAILED else "most senders take it all the same; those that verify do not"
            return Result(group, name, verdict, error.verify_message, advice)
        except (OSError, ssl.SSLError) as error:
            return Result(group, name, FAILED, str(error))
        certificate = talk.sock.getpeercert() or {}  # type: ignore[attr-defined]
        left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
        if left_s < SOON_S:
            return Result(group, name, WARNING, f"it expires in {left_s / 86400:.1f} days", "renew it")
        return Result(group, name, OK, f"good for {left_s / 86400:.0f} days")
