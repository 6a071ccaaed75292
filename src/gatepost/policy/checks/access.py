"""The checks that sendmail's access table asks for: of the client at CONNECT, the reverse-path at MAIL, the recipient at RCPT.

What sendmail's check_relay, check_mail and check_rcpt say, in their order and with their replies. RELAY gives no right here:
what it may mean has become rows of the relay algebra when the configuration was loaded; this check only ever takes away.
With `Spam:` lines the client and the reverse-path are judged at RCPT, as sendmail's delay_checks does, since a recipient may
want all mail. `TLS_Clt:` lines are judged at MAIL, before everything else, and hold for the null reverse-path and for clients with
a right too; with `Spam:` lines at RCPT, for friends too. Where lines are by name, the names of the client are looked up; they may refuse it or
demand more of it, and a name exempts nobody from what is demanded of its address. DISCARD takes the message and drops it, QUARANTINE takes it and holds it until the operator releases it. Pure: a
table answers from memory, the DNS through `Answers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gatepost.config.nexthop import DISCARD, HOLD
from gatepost.config.schema import Config
from gatepost.config.tables import rights_of
from gatepost.config.tlsdemands import Demand, unmet
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.policy.clientnames import names_of_client
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answers, NotAsked
from gatepost.routing.route import Route
from gatepost.routing.table import TableUnavailable
from gatepost.routing.tables.lookups import Lookups
from gatepost.routing.tables.sendmail_keys import Answer

if TYPE_CHECKING:
    from gatepost.policy.engine import Facts

NAME = "access"
CLIENT_REFUSED = Verdict(
    554, "7.1", "Access denied; ask the postmaster of this site if you think that is wrong", check=NAME
)
SENDER_REFUSED = Verdict(
    550, "7.1", "Access denied for this sender; ask the postmaster of this site if you think that is wrong", check=NAME
)
RECIPIENT_REFUSED = Verdict(550, "2.1", "Mailbox disabled for this recipient", check=NAME)
DOMAIN_EXCLUDED = Verdict(
    550, "7.1", "We do not relay to that domain; use the mail server of your own organisation", check=NAME
)
_TLS_ADVICE = "this site demands more of TLS from your address; ask its postmaster"
DISCARDED = Verdict(route=Route(DISCARD, "", True), check=NAME)


class AccessCheck:
    """The access tables of one configuration, the first that knows something counts."""

    __slots__ = (
        "_answers", "_asks_names", "_demanding", "_excluded", "_has_friends", "_has_haters", "_has_names_of_tls", "_is_delayed",
        "_needs_names", "_ours", "_tables",
    )  # fmt: skip

    def __init__(self, config: Config, answers: Answers | None = None) -> None:
        self._answers = NotAsked() if answers is None else answers
        self._tables: tuple[Any, ...] = Lookups(config, self._answers).named("access", config.access)
        self._ours = set(config.domains)
        data = getattr(config, "tables", {})
        found = [rights_of(data[key]) for key in data if key.startswith("access ")]
        self._excluded = {name for rights in found for name in rights.excluded}
        self._has_friends = any(getattr(table, "has_friends", False) for table in self._tables)
        self._has_haters = any(getattr(table, "has_haters", False) for table in self._tables)
        self._demanding = tuple(each for each in self._tables if getattr(each, "has_demands", {}).get("tls_clt"))
        self._is_delayed = self._has_friends or self._has_haters
        self._asks_names = any(getattr(table, "asks_names", False) for table in self._tables)
        self._needs_names = any(getattr(table, "needs_names", False) for table in self._tables)
        self._has_names_of_tls = any(getattr(table, "has_names_of_tls", False) for table in self._demanding)

    def __bool__(self) -> bool:
        return bool(self._tables)

    def connect(self, facts: Facts) -> Verdict | None:
        """The verdict on a new connection."""
        if self._is_delayed:
            if self._asks_names:
                self._names_of(facts)  # GreetPause knows them, and the client waits anyway
            return None
        return self._refusal_of_client(facts)

    def mail(self, facts: Facts) -> Verdict | None:
        """The verdict on a reverse-path."""
        if self._is_delayed:
            return None
        return (self._refusal_of_tls(facts) if self._demanding else None) or self._refusal_of_sender(facts)

    def rcpt(self, facts: Facts) -> Verdict | None:
        """The verdict on a recipient, and whether the message is to be dropped."""
        address = facts.recipient
        if address is None:
            return None
        local, domain = address.local.lower(), _domain(address.domain)
        is_ours = domain in self._ours
        if facts.client_permit is None and self._excluded and not is_ours and self._is_excluded(domain):
            return DOMAIN_EXCLUDED
        answer = self._ask("recipient", local, domain, is_ours)
        verdict = _verdict(answer, RECIPIENT_REFUSED)
        if verdict is not None:
            return verdict
        if self._is_delayed:
            refused = self._refusal_of_tls(facts) if self._demanding else None
            if refused is not None:
                return refused
            if self._wants_all(local, domain):
                return None
            return _strongest(self._refusal_of_sender(facts), self._refusal_of_client(facts))
        return _strongest(*(_kept(answer) for answer in (self._client(facts), self._sender(facts))))

    # --- limits of a client -----------------------------------------------------------------------------------------

    def limit(self, tag: str, address: str, names: Iterable[str] = ()) -> int | None:
        """ClientRate, ClientConn or GreetPause of a client; None: the tables say nothing."""
        for table in self._tables:
            found: int | None = table.limit(tag, address, names)
            if found is not None:
                return found
        return None

    # --- what the tables say ----------------------------------------------------------------------------------------

    def _ask(self, question: str, *arguments: Any) -> Answer | None:
        for table in self._tables:
            answer: Answer | None = getattr(table, question)(*arguments)
            if answer is not None:
                return answer
        return None

    def _client(self, facts: Facts) -> Answer | None:
        if not self._asks_names:
            return self._ask("connect", facts.client_address)
        return self._ask("connect", facts.client_address, *self._names_of(facts))

    def _names_of(self, facts: Facts) -> tuple[str, ...]:
        """The names of the client; one without any is `[ADDRESS]`, as in sendmail. Raises NeedsAnswer and TableUnavailable."""
        names = facts.client_names
        if names is None:
            try:
                names = names_of_client(facts.client_address, self._answers)
            except TableUnavailable:
                if self._needs_names:
                    raise
                names = ()
            facts.client_names = names
        return names or (_literal(facts.client_address),)

    def _sender(self, facts: Facts) -> Answer | None:
        if not facts.reverse_path:  # RFC 5321 4.5.5: the null reverse-path is always taken
            return None
        local, _, domain = facts.reverse_path.rpartition("@")
        return self._ask("sender", local.lower(), _domain(domain))

    def _refusal_of_client(self, facts: Facts) -> Verdict | None:
        return _verdict(self._client(facts), CLIENT_REFUSED, drops=self._is_delayed)

    def _refusal_of_sender(self, facts: Facts) -> Verdict | None:
        return _verdict(self._sender(facts), SENDER_REFUSED, drops=self._is_delayed)

    def _refusal_of_tls(self, facts: Facts) -> Verdict | None:
        """What TLS_Clt demands of the client; one at a socket of this host has no TLS and needs none."""
        address, peer = facts.client_address, facts.tls
        if not ("." in address or ":" in address) or (peer is not None and peer.bits < 0):
            return None
        names = self._names_of(facts) if self._has_names_of_tls else facts.client_names or (_literal(address),)
        for demand, whose in self._demands_of(address, names):
            lacks = [unmet(demand, peer, name) for name in whose]
            if all(lacks):
                advice = "use STARTTLS first" if peer is None else _TLS_ADVICE
                return Verdict(demand.code, demand.detail, f"{_printable(lacks[0])}; {advice}", check=NAME)
        return None

    def _demands_of(self, address: str, names: tuple[str, ...]) -> Iterator[tuple[Demand, tuple[str, ...]]]:
        """What is demanded of each name, then of the address; each with the names that a certificate may have for it."""
        for name in names:
            found = next((one for table in self._demanding if (one := table.tls_client_named(name))), None)
            if found is not None:
                yield found, (name,)
        for table in self._demanding:
            demand = table.tls_client(address)
            if demand is not False:
                if isinstance(demand, Demand):
                    yield demand, names
                return

    def _wants_all(self, local: str, domain: str) -> bool:
        answer = self._ask("spam", local, domain)
        if self._has_haters:
            return answer is None or answer.word != "HATER"
        return answer is not None and answer.word == "FRIEND"

    def _is_excluded(self, domain: str) -> bool:
        while domain:
            if domain in self._excluded or "." + domain in self._excluded:
                return True
            if domain in self._ours or "." + domain in self._ours:
                return False
            domain = domain.partition(".")[2]
        return False


def _verdict(answer: Answer | None, rejected: Verdict, drops: bool = True) -> Verdict | None:
    if answer is None or answer.word in ("OK", "RELAY", "SKIP"):
        return None
    if answer.word in ("DISCARD", "QUARANTINE"):
        return _kept(answer) if drops else None
    if answer.word == "ERROR":
        return Verdict(answer.code, answer.detail, answer.text, check=NAME)
    return rejected


def _kept(answer: Answer | None) -> Verdict | None:
    """What becomes of a message that is taken all the same."""
    if answer is not None and answer.word == "DISCARD":
        return DISCARDED
    if answer is not None and answer.word == "QUARANTINE":
        reason = f"quarantined by the access table: {answer.text}" if answer.text else "quarantined by the access table"
        return Verdict(route=Route(HOLD, "", True, "", reason), check=NAME)
    return None


def _strongest(*verdicts: Verdict | None) -> Verdict | None:
    """A refusal before what is taken and dropped, and that before what is held."""
    found = [verdict for verdict in verdicts if verdict is not None]
    ranked = sorted(found, key=lambda verdict: (not verdict.code, verdict is not DISCARDED))
    return ranked[0] if ranked else None


def _printable(text: str) -> str:
    """As it may stand in a reply: what is in a certificate is the client's own words."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:200])


def _literal(address: str) -> str:
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _domain(text: str) -> str:
    """Lower-case A-labels where that can be; a name that is none matches nothing but itself."""
    plain = text.lower().rstrip(".")
    if plain.isascii():
        return plain
    try:
        return parse_domain(plain)
    except InvalidValue:
        return plain
