"""The self-test of submission listeners (587, 465): nobody sends there without a login, and no password travels in clear.

One connection for each question, from the address and by the name that mark the self-test. Nothing is ever authenticated, so that no lockout can
come of it, and no message is ever given. RFC 4954 4, RFC 6409 4.3, RFC 8314 3.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from gatepost.config.schema import Config
from gatepost.selftest.forms import FOREIGN
from gatepost.selftest.result import FAILED, OK, SKIPPED, Result
from gatepost.selftest.talk import Endpoint, Reply, Talk

PLAIN = b"AUTH PLAIN AHNlbGZ0ZXN0AHNlbGZ0ZXN0"  # refused before anybody looks whether there is such a user
REPORT = "report this, and stop the gateway"


class Submission:
    """Asks one submission listener; `is_implicit` with TLS from the first octet."""

    def __init__(self, config: Config, endpoint: Endpoint, *, is_implicit: bool) -> None:
        self._config = config
        self._endpoint = endpoint
        self._is_implicit = is_implicit
        self._foreign = next(name for name in FOREIGN if name not in config.domains)
        self._group = f"submission ({endpoint[0]} port {endpoint[1]})"

    def run(self) -> Iterator[Result]:
        """All results; a connection that fails is one."""
        try:
            if self._is_implicit:
                yield self._clear_text_on_the_tls_port()
            else:
                yield from self._in_clear()
            yield from self._behind_tls()
        except ssl.SSLError as error:
            yield Result(self._group, "TLS", FAILED, str(error), "is there a certificate? see gatepost check")
        except OSError as error:
            yield Result(self._group, "connection", FAILED, f"it broke: {error}", "is the gateway running?")

    def _result(self, name: str, is_good: bool, told: object, advice: str = REPORT) -> Result:
        return Result(
            self._group, name, OK if is_good else FAILED, "" if is_good else str(told), "" if is_good else advice
        )

    def _in_clear(self) -> Iterator[Result]:
        with Talk(self._endpoint, self._config.hostname) as talk:
            offers = talk.begin().text.upper().split("\n")
            named = [line for line in offers if line.startswith("AUTH")]
            yield self._result("AUTH is not offered in clear", not named, named)
            yield self._result("STARTTLS is offered", "STARTTLS" in offers, "it is not", "configure a certificate")
            yield self._refused("AUTH in clear", talk.ask(PLAIN))
        yield from self._relaying("in clear", is_tls=False)

    def _clear_text_on_the_tls_port(self) -> Result:
        """Whoever forgets TLS must not be heard, least of all with a password."""
        with Talk(self._endpoint, self._config.hostname, first=b"EHLO selftest\r\n" + PLAIN + b"\r\n") as talk:
            return self._result("clear text on the TLS port", talk.greeting.code == 0, talk.greeting)

    def _behind_tls(self) -> Iterator[Result]:
        with self._secured() as talk:
            offers = talk.begin().text.upper().split("\n")
            has_users = self._config.auth.users_file is not None or self._config.auth.jwks_file is not None
            is_offered = any(line.startswith("AUTH ") for line in offers)
            if has_users:
                yield self._result(
                    "AUTH is offered inside TLS", is_offered, "it is not", "see [auth] in docs/config.md"
                )
            else:
                yield Result(self._group, "AUTH is offered inside TLS", SKIPPED, "there are no users")
        yield from self._relaying("inside TLS", is_tls=True)

    def _relaying(self, where: str, *, is_tls: bool) -> Iterator[Result]:
        """Without a login nobody sends from here, to whomever and as whomever."""
        ours = next(name for name in self._config.domains if not name.startswith("."))
        for name, sender in (
            ("a stranger", f"x@{self._foreign}"),
            ("one of ours", f"postmaster@{ours}"),
            ("nobody", ""),
        ):
            with self._secured() if is_tls else Talk(self._endpoint, self._config.hostname) as talk:
                talk.begin()
                replies = [talk.ask(b"MAIL FROM:<" + sender.encode() + b">")]
                if replies[0].code == 250:
                    replies.append(talk.ask(f"RCPT TO:<victim@{self._foreign}>".encode()))
                talk.send(b"RSET\r\nQUIT\r\n")
            yield self._refused(f"mail of {name} without a login, {where}", replies[-1])

    def _refused(self, name: str, reply: Reply) -> Result:
        return self._result(name, reply.code >= 500 or reply.code == 0, f"it was answered {reply}")

    def _secured(self) -> Talk:
        """A conversation inside TLS; who the gateway is, is asked elsewhere (starttls.py)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return Talk(self._endpoint, self._config.hostname, context=context, is_implicit=self._is_implicit)
