"""Facts in, verdict out: the phases of a session, and the decision about a recipient.

Pure: facts are gathered by the roles, a check looks only at facts, nothing waits and nothing is written. Each phase has a list
of checks, in order; each check is off, in shadow (it is traced and changes nothing) or enforced. The relay decision is not a
check: it cannot be switched off, and comes before them. With `facts.trace` set to a list, every step is noted in it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from gatepost.config.authvalues import has_users
from gatepost.config.schema import Config
from gatepost.mail.srs import SrsRefused
from gatepost.model import Address, NeedsAnswer, TlsPeer
from gatepost.policy.checks.access import NAME as access_name
from gatepost.policy.checks.access import AccessCheck
from gatepost.policy.localusers import LOCAL_PREFIX, LocalUsers
from gatepost.policy.record import FactRecord
from gatepost.policy.relay import ClientPermit, Identity, LocalUser, Permits, decide, is_routed_local
from gatepost.policy.relayrules import RelayRules, number_of
from gatepost.policy.rewriting import FORWARD_PATH, RewriteFailed, Rewriting, Rewritten, build_rewriting
from gatepost.policy.verdict import ACCEPT, Verdict
from gatepost.routing.answers import Answers
from gatepost.routing.rewrite import Change
from gatepost.routing.route import Refusal, Route
from gatepost.routing.router import REWRITE_FAILED, TABLE_DOWN, Router, led_by
from gatepost.routing.table import TableUnavailable


class Phase(enum.Enum):
    """When a verdict is asked for."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


class Mode(enum.Enum):
    """How much a check may do."""

    OFF = "off"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class Step(msgspec.Struct, frozen=True):
    """One line of a trace: what a check said, and whether it counted."""

    phase: Phase
    check: str
    mode: Mode
    verdict: Verdict


class Facts(msgspec.Struct, kw_only=True):
    """What is known of a session so far. The receiver keeps one for each connection and fills it in as it goes."""

    client_address: str
    local_address: str = ""
    session_id: str = ""
    client_permit: ClientPermit | None = None  # from `Engine.facts_of` or the TLS handshake, once for each connection
    client_names: tuple[str, ...] | None = None  # by DNS, there and back; None: nobody has asked
    helo: str = ""
    reverse_path: str = ""
    recipient: Address | None = None
    recipients: int = 0  # accepted so far in this mail transaction
    size_bytes: int = 0  # as declared in MAIL, or as received
    identity: str = ""  # as which the client has authenticated
    certificate: str = ""  # the name in its client certificate, if that was verified
    tls: TlsPeer | None = None  # None: no TLS
    by_lmtp: bool = False  # a user of this host who passes on mail, which is no right
    now_s: float = 0.0  # of the mail transaction; 0: not known, and no right that ends is given
    client_number: tuple[int, int] | None = None  # from `Engine.facts_of`, if there are rules
    trace: list[Step] | None = None
    shadows: list[Verdict] | None = None  # what checks and rules in shadow would have done since the receiver looked
    rewritten_path: str = ""  # what the reverse-path has become; "srs:DOMAIN" by SRS
    refused: tuple[str, str] | None = None  # phase and reply, of what the policy refused other than a recipient
    record: FactRecord | None = None  # of the mail transaction under way
    is_recorded: bool = False  # a transaction of this session was recorded


Check = Callable[[Facts], Verdict | None]


class NamedCheck(msgspec.Struct, frozen=True):
    """A check in the list of its phase."""

    name: str
    check: Check
    mode: Mode = Mode.ENFORCE


RELAY_REFUSED = Verdict(
    550,
    "7.1",
    "We do not relay to that domain for your address; use the mail server of your own organisation",
    check="relay",
)
FACT_MISSING = Verdict(451, "3.0", "This cannot be decided at the moment; try again later")
ROUTE_REFUSED = Verdict(
    550,
    "7.1",
    "We do not relay, and this address asks for a route to another host; write the plain address of the recipient",
    check="relay",
)


BOUNCES_ONLY = Verdict(
    550, "7.1", "This address takes only notices of non-delivery; write to the person who sent the mail", check="srs"
)
BAD_BOUNCE = Verdict(550, "1.1", "No such mailbox here; this is not an address that we have made, or it is too old")


class Engine:
    """The policy of one configuration; immutable, shared by all sessions of a role."""

    __slots__ = (
        "_checks", "_local_users", "_permits", "_rcpt_checks", "_router", "_rules", "_shadow_rules", "_users_relay", "access",
        "answers", "rewriting",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        router: Router | None = None,
        checks: Mapping[Phase, Sequence[NamedCheck]] | None = None,
        *,
        literal_rules: bool = False,
        answers: Answers | None = None,
    ) -> None:
        """`literal_rules`: rules mean what is written even if that opens the relay; for the proof only.

        `answers`: where decisions find facts from elsewhere; with it, `decide` and `decide_rcpt` raise NeedsAnswer.
        """
        self._router = router or Router(config, answers=answers)
        self.access = AccessCheck(config, answers)
        self.answers = answers
        # Without secrets, until somebody puts in another.
        self.rewriting: Rewriting | None = build_rewriting(config, answers=answers)
        self._permits = Permits(config.relay.networks)
        self._local_users = LocalUsers(config)
        self._users_relay = has_users(config.auth)
        rules = config.relay.rules
        self._rules = RelayRules((rule for rule in rules if rule.mode == "enforce"), literal=literal_rules)
        self._shadow_rules = RelayRules(rule for rule in rules if rule.mode == "shadow")
        if checks is None:
            checks = _configured_checks(self.access)
        modes = {name: Mode(mode) for name, mode in config.policy.checks.items()}
        named = {
            phase: [
                NamedCheck(one.name, one.check, modes.get(one.name, one.mode)) for one in (checks or {}).get(phase, ())
            ]
            for phase in Phase
        }
        self._checks = {phase: tuple(check for check in named[phase] if check.mode is not Mode.OFF) for phase in Phase}
        self._rcpt_checks = self._checks[Phase.RCPT]

    def facts_of(self, client_address: str, local_address: str = "", session_id: str = "") -> Facts:
        """The facts of a new connection, with the right that its address gives."""
        permit = self._permits.of_client(client_address)
        return Facts(
            client_address=client_address,
            local_address=local_address,
            session_id=session_id,
            client_permit=permit,
            client_number=number_of(client_address) if self._rules or self._shadow_rules else None,
        )

    def authenticate(self, facts: Facts, user: str) -> None:
        """The client has proved to be this user of ours, which is a right of its own."""
        facts.identity = user
        if self._users_relay:
            facts.client_permit = Identity(user)

    def attest(self, facts: Facts, user: str, groups: Collection[str], *, relays: bool = True) -> None:
        """The kernel says that the client is this user of this host; if listed, that is an identity, and a right of its own."""
        facts.by_lmtp = not relays
        if self._local_users.is_allowed(user, groups):
            facts.identity = LOCAL_PREFIX + user
            if relays:
                facts.client_permit = LocalUser(user)

    def recall(
        self,
        facts: Facts,
        identity: str,
        groups_of: Callable[[str], Collection[str]] = lambda user: (),
        *,
        relays: bool = True,
    ) -> None:
        """The identity that a session of the past had, or one of `gatepost explain`: never of a session that is going on."""
        user = identity.removeprefix(LOCAL_PREFIX)
        if user != identity:
            self.attest(facts, user, groups_of(user), relays=relays)
        else:
            self.authenticate(facts, identity)

    @property
    def rules(self) -> RelayRules:
        """The rules in force."""
        return self._rules

    def has_checks(self, phase: Phase) -> bool:
        """Whether a phase has any check; the receiver asks once."""
        return bool(self._checks[phase])

    def decide(self, phase: Phase, facts: Facts) -> Verdict:
        """The verdict of a phase other than RCPT: the first enforced check that refuses, else ACCEPT."""
        for named in self._checks[phase]:
            try:
                verdict = named.check(facts)
            except TableUnavailable:
                verdict = msgspec.structs.replace(FACT_MISSING, check=named.name)
            if verdict is None:
                verdict = ACCEPT
            if facts.trace is not None:
                facts.trace.append(Step(phase, named.name, named.mode, verdict))
            if verdict.code or verdict.route is not None:
                if named.mode is Mode.ENFORCE:
                    return verdict
                _note_shadow(facts, verdict)
        return ACCEPT

    def decide_rcpt(self, facts: Facts, address: Address) -> Verdict:
        """Whether this client may send to this address, and where it goes.

        Accepting verdicts have `route` and `permit`; a `route.address` that is not empty replaces the forward-path.
        """
        if self.rewriting is None:
            verdict = self._decide_rcpt(facts, address)
        else:
            verdict = self._decide_rewritten(facts, address, self.rewriting)
        if facts.trace is not None:
            facts.trace.append(Step(Phase.RCPT, verdict.check or "relay", Mode.ENFORCE, verdict))
        if verdict.code or not self._rcpt_checks:
            return verdict
        facts.recipient = address
        checked = self.decide(Phase.RCPT, facts)
        if checked.route is not None and verdict.route is not None:  # taken, and dropped
            to, now = checked.route, verdict.route
            if to.hold:
                route = msgspec.structs.replace(now, hold=to.hold)
            else:
                route = Route(to.next_hop, now.domain, now.ours, now.address, now.hold)
            return Verdict(0, "", "", route, verdict.permit, checked.check, False, verdict.rule)
        return checked if checked.code else verdict

    def _decide_rewritten(self, facts: Facts, address: Address, rewriting: Rewriting) -> Verdict:
        """The verdict on what the forward-path becomes: rewriting gives no right."""
        client_permit = facts.client_permit
        if client_permit is None and is_routed_local(address.local):
            return ROUTE_REFUSED
        if rewriting.is_bounce_address(address):
            return self._decide_bounce(facts, address, rewriting)
        try:
            found = rewriting.path(FORWARD_PATH, facts, address)
        except (RewriteFailed, TableUnavailable) as error:
            return Verdict(
                REWRITE_FAILED.code,
                REWRITE_FAILED.detail,
                REWRITE_FAILED.text,
                check="rewrite",
                cause=str(error.args[0]),
            )
        verdict = self._decide_rcpt(facts, found.address)
        return _with_address(verdict, found, address) if found.changes else verdict

    def _decide_bounce(self, facts: Facts, address: Address, rewriting: Rewriting) -> Verdict:
        """An address of ours that stands for another by our signature: a right for the null reverse-path, and only to there."""
        if facts.reverse_path:
            return BOUNCES_ONLY
        try:
            original = rewriting.original(address, facts.now_s)
        except SrsRefused as error:
            return Verdict(BAD_BOUNCE.code, BAD_BOUNCE.detail, BAD_BOUNCE.text, check="srs", cause=str(error.args[0]))
        if is_routed_local(original.local):
            return ROUTE_REFUSED
        route = self._router.resolve(original, facts.local_address)
        if isinstance(route, Refusal):
            return Verdict(route.code, route.detail, route.text, None, "", "recipient", cause=route.cause)
        text = route.address or original.text
        route = msgspec.structs.replace(route, address=text)
        change = Change("srs", address.text, text)
        return Verdict(0, "", "", route, f"srs {address.domain}", "", False, "", (change,))

    def _decide_rcpt(self, facts: Facts, address: Address) -> Verdict:
        client_permit = facts.client_permit
        if client_permit is None and is_routed_local(address.local):
            return ROUTE_REFUSED
        try:
            route = self._router.resolve(address, facts.local_address)
        except NeedsAnswer:
            if self._is_of_strangers(client_permit, address):
                return RELAY_REFUSED
            raise
        if isinstance(route, Refusal):
            if route is TABLE_DOWN and self._is_of_strangers(client_permit, address):
                return RELAY_REFUSED
            return Verdict(route.code, route.detail, route.text, None, "", "recipient", cause=route.cause)
        if self._router.has_sender_routes and (client_permit is not None or self._rules or self._shadow_rules):
            found = self._router.route_by_sender(route, facts.reverse_path)
            if isinstance(found, Refusal):
                if decide(client_permit, route.ours) is not None:
                    return Verdict(found.code, found.detail, found.text, None, "", "route")
            else:
                route = found
        verdict = self._by_rule(self._rules, facts, route) if self._rules else None
        if verdict is None:
            permit = decide(client_permit, route.ours)
            verdict = RELAY_REFUSED if permit is None else Verdict(0, "", "", route, permit.text)
        if self._shadow_rules:
            shadow = self._by_rule(self._shadow_rules, facts, route)
            if shadow is not None and (verdict.code or shadow.route != verdict.route):
                _note_shadow(facts, shadow)
        return verdict

    def _is_of_strangers(self, client_permit: ClientPermit | None, address: Address) -> bool:
        """Whether nothing that a table could say of the route matters: no right, and none of our domains.

        So strangers cannot have servers asked, and hear the same while one is down.
        """
        return client_permit is None and not (self._rules or self._shadow_rules) and self._router.is_foreign(address)

    @staticmethod
    def _by_rule(rules: RelayRules, facts: Facts, route: Route) -> Verdict | None:
        """What the first rule that holds gives: a right, and perhaps another route."""
        found = rules.find(
            facts.client_number,
            facts.identity,
            facts.certificate,
            facts.reverse_path,
            route.domain,
            route.ours,
            facts.now_s,
        )
        if found is None:
            return None
        rule = found.rule
        if rule.next_hop:
            led = led_by(rule.next_hop, route)
            if isinstance(led, Refusal):
                return Verdict(led.code, led.detail, led.text, None, "", "route", False, rule.name)
            route = led
        return Verdict(0, "", "", route, found.permit, "", False, rule.name)


def _with_address(verdict: Verdict, found: Rewritten, given: Address) -> Verdict:
    """A verdict on a rewritten forward-path, as one on the given."""
    route = verdict.route
    if route is not None and not route.address and found.address.text != given.text:
        route = msgspec.structs.replace(route, address=found.address.text)
    return msgspec.structs.replace(verdict, route=route, rewritten=found.changes)


def _configured_checks(access: AccessCheck) -> dict[Phase, list[NamedCheck]]:
    """The checks that a configuration asks for; a new one gets its lines here."""
    checks: dict[Phase, list[NamedCheck]] = {}
    if access:
        for phase, check in ((Phase.CONNECT, access.connect), (Phase.MAIL, access.mail), (Phase.RCPT, access.rcpt)):
            checks.setdefault(phase, []).append(NamedCheck(access_name, check))
    return checks


def _note_shadow(facts: Facts, verdict: Verdict) -> None:
    if facts.shadows is None:
        facts.shadows = [verdict]
    elif verdict not in facts.shadows:  # a decision may be run again when its facts are there
        facts.shadows.append(verdict)
