"""Submission in a receiver: what an authenticated user may do, and who must authenticate.

Joins the authenticator with the session: a login gives the relay right of the identity and lets bare LF be repaired, as client libraries
still send it; from then on MAIL, From and Sender are held against the addresses of the user. On a submission listener nobody sends
without a right of his own (RFC 6409 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Config
from gatepost.config.usersfile import parse_users
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.identity import check_header, check_reverse_path
from gatepost.policy.verdict import Verdict
from gatepost.roles.authenticator import Authenticator
from gatepost.roles.dovecot import Dovecot
from gatepost.roles.material import take_material
from gatepost.roles.tokenquestions import TokenQuestions
from gatepost.roles.tokens import Tokens
from gatepost.smtp.reply import Reply, constant

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

AUTHENTICATE_FIRST = constant(530, "7.0", "Authentication required; send AUTH first")


class Submitting:
    """One for a receiver; `descriptors` are those of `authvalues.auth_files`, read before the lock-in."""

    def __init__(
        self,
        config: Config,
        descriptors: Sequence[int],
        loop: Any,
        event: Callable[..., None],
        engine: Engine,
        need_socket: Callable[[], None] = lambda: None,
    ) -> None:
        material = take_material(descriptors)
        auth = config.auth
        users = parse_users(material[0].decode("utf-8") if material else "", auth.users_file or "")
        tokens = None
        if len(material) > 1:
            tokens = Tokens(
                material[1], issuer=auth.issuer or "", audience=auth.audience or "", user_claim=auth.user_claim
            )
        self._questions: TokenQuestions | None = None
        if auth.introspection_url is not None:
            self._questions = TokenQuestions(loop, timeout_s=auth.introspection_timeout_s, event=event)
        self.dovecot: Dovecot | None = None
        if auth.dovecot is not None:
            most = auth.concurrent_checks + auth.max_waiting_checks
            self.dovecot = Dovecot(loop, need_socket=need_socket, event=event, most=most)
        self.authenticator = Authenticator(
            auth,
            users,
            tokens,
            loop,
            event=event,
            granted=self._grant,
            dovecot=self.dovecot,
            questions=self._questions,
            domain=auth.default_domain or next(iter(config.domains)).lstrip("."),
        )
        self._engine = engine

    # --- the resolver role, where it asks about tokens --------------------------------------------------------------

    def linked(self, channel: Channel) -> None:
        if self._questions is not None:
            self._questions.linked(channel)

    def unlinked(self) -> None:
        if self._questions is not None:
            self._questions.unlinked()

    def answered(self, message: m.Introspected) -> None:
        if self._questions is not None:
            self._questions.answered(message)

    # --- decisions --------------------------------------------------------------------------------------------------

    def decide_mail(self, connection: SmtpIn, reverse_path: Address | None) -> Reply | None:
        """Whether this client may send under this reverse-path at all."""
        facts = connection.facts
        if facts.identity:
            return _reply(check_reverse_path(self.authenticator.bound(facts.identity), reverse_path))
        return AUTHENTICATE_FIRST if facts.client_permit is None else None

    def decide_header(self, connection: SmtpIn, header: bytes) -> Reply | None:
        """Whether From, Sender and the resent fields are the user's."""
        return _reply(check_header(self.authenticator.bound(connection.facts.identity), header))

    def knows(self, user: str) -> bool:
        """Whether there is such a user."""
        return self.authenticator.knows(user)

    def introduce(self, connection: SmtpIn, user: str) -> None:
        """A proxy that may say so has said who the client is: the rights of a login."""
        self._engine.authenticate(connection.facts, user)

    def _grant(self, connection: SmtpIn, user: str) -> None:
        session, port = connection.session, connection.port
        self._engine.authenticate(connection.facts, user)
        session.settings = port.secured_repair if session.settings.is_secured else port.repair


def _reply(verdict: Verdict) -> Reply | None:
    return Reply(verdict.code, verdict.detail, verdict.text) if verdict.code else None
