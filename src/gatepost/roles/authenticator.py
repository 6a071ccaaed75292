"""The receiver's side of AUTH: who exists, whether a password is right, how often one may try, what a login gives.

Users come from the supervisor (`config/usersfile.py`). Checking a password is slow on purpose, so it is done in a few threads, with a
bounded queue before them; whoever would have to wait behind that hears 454. A user that does not exist is checked like one that does,
against a verifier that nothing fits and that is the same each time. Passwords are in no event, and users' names only escaped.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Auth
from gatepost.config.usersfile import User, Users
from gatepost.model import ScramVerifier
from gatepost.policy.identity import Bound
from gatepost.policy.localusers import LOCAL_PREFIX
from gatepost.policy.throttle import Throttle
from gatepost.roles.dovecot import Dovecot
from gatepost.roles.tokenquestions import TokenQuestions
from gatepost.roles.tokens import Tokens
from gatepost.smtp.auth import AWAY
from gatepost.smtp.events import AuthEnd, AuthQuestion
from gatepost.smtp.sasl.mechanism import CertificateOf, PasswordOf, TokenOf, VerifierOf
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name
from gatepost.smtp.sasl.scram import is_password

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

MAX_SHOWN_NAME = 200
MAX_BOUND = 10_000  # users whose addresses are kept ready
NEW_ITERATIONS = 100_000  # of verifiers that `gatepost user` makes, and of users that do not exist


class Authenticator:
    """One for each receiver. `event` logs; `granted` is told of a login before its reply."""

    def __init__(
        self,
        auth: Auth,
        users: Users,
        tokens: Tokens | None,
        loop: Any,
        *,
        event: Callable[..., None],
        granted: Callable[[SmtpIn, str], None],
        dovecot: Dovecot | None = None,
        questions: TokenQuestions | None = None,
        domain: str = "",
    ) -> None:
        """`domain` is that of Dovecot's users whose name has none."""
        self._auth = auth
        self._users = users.users
        self._secret = users.secret
        self._bound: dict[str, Bound] = {}
        self._tokens = tokens
        self._dovecot = dovecot
        self._questions = questions
        self._domain = domain
        self._loop = loop
        self._event = event
        self._granted = granted
        self._throttle = Throttle(
            max_failures=auth.max_failures,
            lockout_s=auth.lockout_s,
            delay_s=auth.delay_s,
            max_delay_s=auth.max_delay_s,
            max_entries=auth.max_tracked,
            clock=loop.time,
        )
        self._pool = ThreadPoolExecutor(auth.concurrent_checks, "password")
        self._checking = 0
        self._names = sorted(self._users)
        self._verify_argon2: Callable[[str, str], bool] | None = None
        if any(user.argon2id for user in self._users.values()):
            self._verify_argon2 = importlib.import_module("gatepost.config.argon2id").is_password

    def bound(self, name: str) -> Bound:
        """The addresses that a user may use."""
        bound = self._bound.get(name)
        if bound is None:
            if len(self._bound) >= MAX_BOUND:
                self._bound.clear()
            user = self._users.get(name)
            if self._dovecot is not None:
                bound = Bound(name, (name if "@" in name else f"{name}@{self._domain}",))
            else:
                bound = Bound(name if user is not None else "", user.addresses if user is not None else ())
            self._bound[name] = bound
        return bound

    def knows(self, name: str) -> bool:
        """Whether there is such a user in the users file."""
        return name in self._users

    # --- an exchange ------------------------------------------------------------------------------------------------

    def answer(self, connection: SmtpIn, event: AuthQuestion) -> None:
        """Answer what a mechanism asks, now or when a thread has found out."""
        question = event.question
        session = connection.session
        if not self._throttle.begin(connection.address, question.user):
            self._tell_failure(connection, event.mechanism, question.user, "locked out")
            session.answer(AWAY)
            return
        match question:
            case VerifierOf(user, algorithm):
                session.answer_auth(self._verifier(user, algorithm))
            case PasswordOf(user, password) if self._dovecot is not None:
                self._ask_dovecot(connection, user, password)
            case PasswordOf(user, password):
                self._check_password(connection, user, password)
            case TokenOf(user, token) if self._questions is not None:
                self._ask_about(self._questions, connection, user, token)
            case TokenOf(user, token):
                found = self._tokens.user_of(token, user) if self._tokens is not None else ""
                session.answer_auth(found if found in self._users else "")
            case CertificateOf(user):
                session.answer_auth(user in self._users)

    def end(self, connection: SmtpIn, event: AuthEnd) -> None:
        """Answer the end of an exchange: a login at once, a failure late."""
        session = connection.session
        if event.granted:
            self._throttle.succeeded(connection.address, event.user)
            self._event(
                "auth_ok",
                session=connection.session_id,
                address=connection.address,
                user=event.user[:MAX_SHOWN_NAME],
                mechanism=event.mechanism,
            )
            self._granted(connection, event.user)
            session.answer()
            return
        self._tell_failure(connection, event.mechanism, event.user, event.cause)
        delay_s = self._throttle.delay_s(connection.address, event.user)
        self._loop.call_later(delay_s, self._refuse, connection)

    def _refuse(self, connection: SmtpIn) -> None:
        if not connection.transport.is_closing():
            connection.session.answer()
            connection.advance()

    def _tell_failure(self, connection: SmtpIn, mechanism: str, user: str, cause: str) -> None:
        self._event(
            "auth_failed",
            session=connection.session_id,
            address=connection.address,
            user=user[:MAX_SHOWN_NAME],
            mechanism=mechanism,
            cause=cause,
        )

    def _ask_about(self, questions: TokenQuestions, connection: SmtpIn, claimed: str, token: str) -> None:
        """Whether the authorization server calls this token good, and for whom."""

        def told(user: str | None) -> None:
            if connection.transport.is_closing():
                return
            if user is None:
                self._throttle.withdraw(connection.address, claimed)
                connection.session.answer(AWAY)
            else:
                is_his = user in self._users and claimed in ("", user)
                connection.session.answer_auth(user if is_his else "")
            connection.advance()

        questions.ask(token, told)

    # --- passwords --------------------------------------------------------------------------------------------------

    def _check_password(self, connection: SmtpIn, name: str, password: str) -> None:
        auth = self._auth
        if self._checking >= auth.concurrent_checks + auth.max_waiting_checks:
            self._throttle.withdraw(connection.address, name)
            self._tell_failure(connection, "", name, "too many passwords wait to be checked")
            connection.session.answer(AWAY)
            return
        self._checking += 1
        future = self._pool.submit(self._is_password, name, password)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._checked, connection, name, done))

    def _ask_dovecot(self, connection: SmtpIn, name: str, password: str) -> None:
        assert self._dovecot is not None
        session = connection.session

        def told(user: str | None) -> None:
            if connection.transport.is_closing():
                return
            if user is None:
                self._throttle.withdraw(connection.address, name)
                session.answer(AWAY)
            else:
                session.answer_auth(_prepared(user))
            connection.advance()

        self._dovecot.check(
            name,
            password,
            lambda user: self._loop.call_soon(told, user),  # never within the event that is being answered
            remote=connection.address,
            local=connection.local_address,
            is_secured=session.settings.is_secured,
        )

    def _is_password(self, name: str, password: str) -> bool:
        """In a thread. An unknown user costs what the known one costs that stands for it."""
        user = self._users.get(name)
        stand_in = user or self._stand_in(name)
        if stand_in is not None and stand_in.argon2id and self._verify_argon2 is not None and not stand_in.scram:
            matches = self._verify_argon2(stand_in.argon2id, password)
        else:
            verifier = next(iter(stand_in.scram.values())) if stand_in is not None else self._verifier(name, "sha256")
            matches = is_password(verifier, password)
        return matches and user is not None

    def _checked(self, connection: SmtpIn, name: str, done: Future[bool]) -> None:
        self._checking -= 1
        if connection.transport.is_closing():
            return
        error = done.exception()
        if error is not None:
            self._throttle.withdraw(connection.address, name)
            self._event("error", session=connection.session_id, where="auth", reason=str(error)[:MAX_SHOWN_NAME])
            connection.session.answer(AWAY)
        else:
            connection.session.answer_auth(done.result())
        connection.advance()

    def _stand_in(self, name: str) -> User | None:
        """A known user, always the same for an unknown name, whose kind of verifier and cost it is given."""
        if not self._names:
            return None
        digest = hmac.digest(self._secret, b"like " + name.encode("utf-8", "replace"), "sha256")
        return self._users[self._names[int.from_bytes(digest[:8], "big") % len(self._names)]]

    def _verifier(self, name: str, algorithm: str) -> ScramVerifier:
        """The verifier of a user, or one that nothing fits: with a salt of its own, the same each time."""
        user = self._users.get(name)
        found = user.scram.get(algorithm) if user is not None else None
        if found is not None:
            return found
        stand_in = self._stand_in(name)
        like = stand_in.scram.get(algorithm) if stand_in is not None else None
        iterations = like.iterations if like is not None else NEW_ITERATIONS
        size = hashlib.new(algorithm).digest_size
        keys = [
            hmac.digest(
                self._secret, b"%b %b %b" % (use, algorithm.encode(), name.encode("utf-8", "replace")), "sha512"
            )
            for use in (b"salt", b"stored", b"server")
        ]
        return ScramVerifier(
            algorithm, iterations, keys[0][: len(like.salt) if like else 16], keys[1][:size], keys[2][:size]
        )


def _prepared(user: str) -> str:
    """A name as Dovecot says it, as it is compared here; empty if it cannot be, or stands for others here."""
    try:
        name = prepare_name(user) if user else ""
    except NotPreparable:
        return ""
    return "" if name.startswith(LOCAL_PREFIX) or "*" in name else name  # a user of this host; every local part
