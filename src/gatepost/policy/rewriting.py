"""Rewriting as a session has it: which rules hold, what its paths and its header become, reverse-paths of forwarded mail and back.

Pure, and may be asked again. A result is a valid mailbox, or RewriteFailed, which defers (451 4.3.0). Outbound is what comes from
a client with a right of its own: an address that may relay or that a relay rule names, an authenticated identity, a certificate that gives
a right. What is rewritten is decided afterwards: rewriting gives no right. The one address that stands for another by a
signature of ours (SRS) is taken for bounces alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from gatepost.config.rewritevalues import is_rewriting
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.mail.header import split_header
from gatepost.mail.headerrewrite import FieldChange, Kept, broken_signatures, hide_received, rewrite_addresses
from gatepost.mail.mailbox import InvalidMailbox, parse_mailbox
from gatepost.mail.srs import Srs, SrsError, SrsRefused, is_srs
from gatepost.model import Address, NeedsAnswer, Question
from gatepost.policy.relay import AddressSet
from gatepost.routing.answers import Answers
from gatepost.routing.rewrite import (
    FORWARD_PATH,
    HEADER_RECIPIENTS,
    HEADER_SENDERS,
    REVERSE_PATH,
    Change,
    Domains,
    RewriteFailed,
    Rewriter,
    Rule,
    own_domains,
)

if TYPE_CHECKING:
    from gatepost.policy.engine import Facts

__all__ = [
    "FORWARD_PATH", "REVERSE_PATH", "HeaderOutcome", "InvalidMailbox", "RewriteFailed", "Rewriting", "Rewritten", "SrsError",
    "SrsRefused", "build_rewriting", "parse_mailbox", "split_header",
]  # fmt: skip


MAX_QUESTIONS = 512  # of one header, asked at once; more are asked when these are answered


class Rewritten(msgspec.Struct, frozen=True, gc=False):
    """A path and what was done to it; `changes` may hold those of rules in shadow."""

    address: Address
    changes: tuple[Change, ...] = ()


class HeaderOutcome(msgspec.Struct):
    """A header section and what was done to it."""

    header: bytes
    changes: list[FieldChange] = []
    kept: list[Kept] = []
    hidden: int = 0  # Received fields
    broken: list[tuple[str, list[str]]] = []  # signing domain, signed fields that are other ones now
    shadows: list[Change] = []


class Rewriting:
    """Of one configuration; immutable, shared by all sessions of a role."""

    __slots__ = (
        "_hidden", "_identities", "_insiders", "_max_addresses", "_named_certificates", "_ours", "_rewriter", "_srs_kept", "srs",
    )  # fmt: skip

    def __init__(self, config: Config, secrets: Sequence[bytes] = (), answers: Answers | None = None) -> None:
        """`answers` is what tables that are asked over the network answer from; without it they cannot be had."""
        rewrite = config.rewrite
        rules = [rule for rule in config.relay.rules if rule.mode == "enforce"]
        self._rewriter = Rewriter(config, AddressSet, answers)
        self._insiders = AddressSet(text for rule in rules for text in rule.networks if not rule.identities)
        self._named_certificates = frozenset(name for rule in rules for name in rule.certificates)
        self._hidden = AddressSet(rewrite.hide_received) if rewrite.hide_received else None
        self._max_addresses = rewrite.max_header_addresses
        self._ours = own_domains(config)
        self._srs_kept = Domains(rewrite.srs.except_domains, self._ours)
        self.srs: Srs | None = None
        if rewrite.srs.domain:
            self.srs = Srs(
                rewrite.srs.domain,
                secrets,
                hash_length=rewrite.srs.hash_length,
                valid_days=rewrite.srs.valid_days,
                separator=rewrite.srs.separator,
            )

    # --- paths ------------------------------------------------------------------------------------------------------

    def is_outbound(self, facts: Facts) -> bool:
        """Whether the client has a right of its own."""
        return (
            facts.client_permit is not None
            or bool(facts.identity)
            or facts.client_address in self._insiders
            or (bool(facts.certificate) and facts.certificate in self._named_certificates)
        )

    def path(self, part: str, facts: Facts, address: Address) -> Rewritten:
        """What a path becomes; raises RewriteFailed, TableUnavailable and NeedsAnswer."""
        if part not in self._rewriter.parts:
            return Rewritten(address)
        return self.rewrite(part, self.is_outbound(facts), facts.client_address, address)

    def rewrite(self, part: str, outbound: bool, client: str, address: Address) -> Rewritten:
        """The same, of a session in that direction from that client."""
        rules = self._rewriter.rules_for(part, outbound, client)
        if not rules:
            return Rewritten(address)
        local, domain, changes = self._rewriter.rewrite(rules, address.local, address.domain)
        if all(change.is_shadow for change in changes):
            return Rewritten(address, tuple(changes))
        try:
            new = parse_mailbox(f"{local}@{domain}", utf8=not address.text.isascii())
        except InvalidMailbox as error:
            raise RewriteFailed(f"<{address.text}> becomes <{local}@{domain}>: {error}") from None
        return Rewritten(new, tuple(changes))

    # --- forwarded mail ---------------------------------------------------------------------------------------------

    def is_forwarded(self, reverse_path: str, domains: Iterable[str]) -> bool:
        """Whether mail to these domains is forwarded: from a domain that is not ours to one that is not ours."""
        if self.srs is None or not reverse_path:
            return False
        try:
            domain = parse_mailbox(reverse_path, utf8=True).domain
        except InvalidMailbox:
            return False
        if domain in self._ours or domain in self._srs_kept:
            return False
        return any(domain not in self._ours for domain in domains)

    def forwarded(self, reverse_path: str, domains: Iterable[str], now_s: float) -> str:
        """The reverse-path of mail to these domains: another one if it is forwarded; raises SrsError."""
        if not self.is_forwarded(reverse_path, domains):
            return reverse_path
        assert self.srs is not None
        address = parse_mailbox(reverse_path, utf8=True)
        if address.local[:1] == '"':
            raise SrsError("the reverse-path cannot stand in another one")
        return self.srs.forward(address.local, address.domain, now_s)

    def is_bounce_address(self, address: Address) -> bool:
        """Whether a forward-path has the form of what `forwarded` makes."""
        return self.srs is not None and address.domain == self.srs.domain and is_srs(address.local)

    def original(self, address: Address, now_s: float) -> Address:
        """For whom a bounce for such an address is; raises SrsRefused."""
        assert self.srs is not None
        local, domain = self.srs.reverse(address.local, now_s)
        try:
            return parse_mailbox(f"{local}@{domain}", utf8=not local.isascii())
        except InvalidMailbox:
            raise SrsRefused("what it stands for is no address") from None

    # --- header -----------------------------------------------------------------------------------------------------

    def hides(self, facts: Facts) -> bool:
        """Whether the client's own address does not leave."""
        return self._hidden is not None and facts.client_address in self._hidden and self.is_outbound(facts)

    def touches_header(self, facts: Facts) -> bool:
        """Whether anything in the header of this session's mail could change."""
        outbound = self.is_outbound(facts)
        if self._hidden is not None and outbound:
            return True
        if self._rewriter.parts.isdisjoint((HEADER_SENDERS, HEADER_RECIPIENTS)):
            return False
        client = facts.client_address
        return any(self._rewriter.rules_for(part, outbound, client) for part in (HEADER_SENDERS, HEADER_RECIPIENTS))

    def header(self, facts: Facts, header: bytes) -> HeaderOutcome:
        """What the header section of a message becomes; raises RewriteFailed, TableUnavailable and NeedsAnswer.

        What all its addresses need is asked together.
        """
        outbound, client = self.is_outbound(facts), facts.client_address
        by_part = (
            self._rewriter.rules_for(HEADER_RECIPIENTS, outbound, client),
            self._rewriter.rules_for(HEADER_SENDERS, outbound, client),
        )
        known: dict[tuple[str, str, bool], tuple[str, str] | None] = {}
        shadows: list[Change] = []
        missing: dict[Question, None] = {}

        def replace(local: str, domain: str, is_sender: bool) -> tuple[str, str] | None:
            rules = by_part[is_sender]
            if not rules:
                return None
            key = (local, domain, is_sender)
            if key not in known:
                try:
                    known[key] = self._header_address(rules, local, domain, shadows)
                except NeedsAnswer as needed:
                    missing.update(dict.fromkeys(needed.questions))
                    known[key] = None
            return known[key]

        result = rewrite_addresses(header, replace, self._max_addresses)
        if missing:
            raise NeedsAnswer(list(missing)[:MAX_QUESTIONS])
        outcome = HeaderOutcome(result.header, result.changes, result.kept, shadows=shadows)
        changed = {change.field for change in result.changes}
        if self._hidden is not None and outbound:
            outcome.header, outcome.hidden = hide_received(result.header, self._hidden.__contains__)
            if outcome.hidden:
                changed.add("received")
        if changed:
            outcome.broken = broken_signatures(header, changed)
        return outcome

    def _header_address(
        self, rules: Iterable[Rule], local: str, written: str, shadows: list[Change]
    ) -> tuple[str, str] | None:
        try:
            domain = parse_domain(written)
        except InvalidValue:
            return None
        new_local, new_domain, changes = self._rewriter.rewrite(rules, local, domain)
        shadows += (change for change in changes if change.is_shadow)
        done = [change.rule for change in changes if not change.is_shadow]
        if not done:
            return None
        try:
            parse_mailbox(f"{local}@{domain}", utf8=True)
        except InvalidMailbox:
            return None  # a text that merely looks like an address
        new = f"{new_local}@{new_domain}"
        try:
            return parse_mailbox(new, utf8=not local.isascii()).text, " + ".join(done)
        except InvalidMailbox as error:
            raise RewriteFailed(f"{local}@{domain} in the header becomes {new}: {error}") from None


def build_rewriting(config: Config, secrets: Sequence[bytes] = (), answers: Answers | None = None) -> Rewriting | None:
    """None if the configuration rewrites nothing: then nobody asks."""
    return Rewriting(config, secrets, answers) if is_rewriting(config) else None
