"""Rewriting in a receiver: asks `policy/rewriting.py` at MAIL, before the text and when the header is whole, and tells what it did.

Only there if the configuration rewrites anything. What cannot be rewritten is put off with 451 4.3.0 and told with its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gatepost.config.rewritevalues import is_rewriting, parse_secrets
from gatepost.config.schema import Config
from gatepost.mail.header import split_header
from gatepost.mail.srs import SrsError
from gatepost.model import Address, NeedsAnswer
from gatepost.net.headerhold import HeaderHold
from gatepost.policy.engine import Engine
from gatepost.policy.rewriting import REVERSE_PATH, RewriteFailed, Rewriting
from gatepost.roles.material import take_material
from gatepost.routing.rewrite import Change
from gatepost.routing.table import TableUnavailable
from gatepost.smtp.reply import Reply, constant

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn
    from gatepost.net.transaction_in import Transaction

LATER = constant(451, "3.0", "The message cannot be rewritten at the moment; try again later")
HIDDEN_HELO = "inside"
HIDDEN_ADDRESS = "inside"


class SessionRewriting:
    """One for a receiver."""

    def __init__(self, rewriting: Rewriting, event: Callable[..., None], refuse: Callable[..., None]) -> None:
        self._rewriting = rewriting
        self._event = event
        self._refuse = refuse

    def begin_mail(self, connection: SmtpIn, path: Address | None) -> Reply | None:
        """The reverse-path of a new transaction; a reply gives the transaction up, and so does NeedsAnswer: MAIL is decided again."""
        if path is None:
            return None
        try:
            found = self._rewriting.path(REVERSE_PATH, connection.facts, path)
        except NeedsAnswer:
            connection.transaction = None
            raise
        except (RewriteFailed, TableUnavailable) as error:
            self._refuse(connection, LATER, "MAIL", argument=path.text, cause=f"rewrite: {error.args[0]}")
            connection.transaction = None
            return LATER
        if found.changes:
            self.tell_path(connection, REVERSE_PATH, path.text, found.address.text, found.changes)
        if found.address is not path:
            connection.transaction.reverse_path = connection.facts.rewritten_path = found.address.text  # type: ignore[union-attr]
        return None

    def begin_text(self, connection: SmtpIn, transaction: Transaction) -> tuple[str, str]:
        """Before the trace field is built, of which this gives the name and the address of the client."""
        rewriting, facts = self._rewriting, connection.facts
        if rewriting.srs is not None:
            self._forward(connection, transaction)
        if rewriting.touches_header(facts):
            transaction.header_hold = HeaderHold(lambda content: self._header(connection, transaction, content))
        if rewriting.hides(facts):
            return HIDDEN_HELO, HIDDEN_ADDRESS
        return connection.helo, connection.address

    def _forward(self, connection: SmtpIn, transaction: Transaction) -> None:
        rewriting, before = self._rewriting, transaction.reverse_path
        domains = (recipient.domain for recipient in transaction.recipients)
        try:
            after = rewriting.forwarded(before, domains, connection.facts.now_s)
        except SrsError as error:
            self._event(
                "rewrite_kept",
                session=connection.session_id,
                id=transaction.id,
                field=REVERSE_PATH,
                reason=error.args[0],
            )
            return
        if after != before:
            transaction.reverse_path, transaction.bounce_to = after, before
            assert rewriting.srs is not None
            connection.facts.rewritten_path = f"srs:{rewriting.srs.domain}"
            self.tell_path(connection, REVERSE_PATH, before, after, (Change("srs", before, after),))

    def _header(self, connection: SmtpIn, transaction: Transaction, content: bytes) -> bytes:
        """The content with its header rewritten; as it is, and the message refused, where that cannot be done.

        Raises NeedsAnswer, and is called again: until then nothing is told.
        """
        header, _ = split_header(content)
        try:
            done = self._rewriting.header(connection.facts, header)
        except (RewriteFailed, TableUnavailable) as error:
            self._refuse(connection, LATER, "DATA", id=transaction.id, cause=f"rewrite: {error.args[0]}")
            transaction.failure = transaction.failure or LATER
            return content
        session, id = connection.session_id, transaction.id
        for kept in done.kept:
            self._event("rewrite_kept", session=session, id=id, field=kept.field, reason=kept.reason)
        for domain, fields in done.broken:
            self._event("rewrite_breaks_signature", session=session, id=id, domain=domain, fields=fields)
        self._tell_shadows(session, done.shadows)
        if not done.changes and not done.hidden:
            return content
        self._event(
            "header_rewritten",
            session=session,
            id=id,
            fields=sorted({change.field for change in done.changes}),
            addresses=len(done.changes),
            rules=sorted({change.rule for change in done.changes}),
            hidden=done.hidden,
        )
        return done.header + content[len(header) :]

    def tell_path(self, connection: SmtpIn, part: str, before: str, after: str, changes: Sequence[Change]) -> None:
        """What rules did to a path."""
        rules = [change.rule for change in changes if not change.is_shadow]
        if rules:
            self._event(
                "path_rewritten", session=connection.session_id, part=part, before=before, after=after, rules=rules
            )
        self._tell_shadows(connection.session_id, changes)

    def _tell_shadows(self, session: str, changes: Iterable[Change]) -> None:
        for change in {(one.rule, one.before): one for one in changes if one.is_shadow}.values():
            self._event("rewrite_shadow", session=session, rule=change.rule, before=change.before, after=change.after)


def take_rewriting(
    config: Config, engine: Engine, descriptors: Sequence[int], event: Callable[..., None], refuse: Any
) -> SessionRewriting | None:
    """With the secrets in the descriptors of `rewrite_files`, read before the lock-in; None: nothing is rewritten."""
    material = take_material(descriptors)
    if not is_rewriting(config):
        return None
    rewriting = Rewriting(config, parse_secrets(material[0]) if material else (), engine.answers)
    engine.rewriting = rewriting
    return SessionRewriting(rewriting, event, refuse)
