"""Results of TLS for reports (RFC 8460): what each connection to an MX host came to, counted, and sent on in batches.

Counted are connections, not messages: a kept connection counts once. Only MX hosts count, because only recipient domains publish where they
want to be told. Which result type a failure has is decided here, in `classify`. Nothing here decides about mail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gatepost.delivery.mx import Target
from gatepost.delivery.tlspolicy import Plan, PolicyFacts
from gatepost.model import TlsSeen
from gatepost.smtp.outgoing import Problem, Tls

MAX_COUNTED = 1000  # different results between two batches; what is beyond is not counted
FLUSH_S = 5.0
MAX_REASON = 200

# Words of OpenSSL, and ours, in the text of a failure -> result type (RFC 8460 4.3.1, 4.3.2).
_WORDS = (
    ("hostname mismatch", "certificate-host-mismatch"),
    ("ip address mismatch", "certificate-host-mismatch"),
    ("the certificate is for none of", "certificate-host-mismatch"),
    ("certificate has expired", "certificate-expired"),
    ("self-signed certificate", "certificate-not-trusted"),
    ("self signed certificate", "certificate-not-trusted"),
    ("unable to get local issuer", "certificate-not-trusted"),
    ("unable to get issuer", "certificate-not-trusted"),
    ("unable to verify the first", "certificate-not-trusted"),
    ("failed or is bogus", "dnssec-invalid"),
    ("there are no tlsa records", "dane-required"),
    ("cannot be used: the tlsa records", "tlsa-invalid"),
)


def classify(failure: Problem) -> str:
    """The result type of a connection that got no TLS, or not the TLS that the policy wants."""
    text = failure.text.lower()
    for words, result in _WORDS:
        if words in text:
            return result
    if failure.kind in ("unsecured", "reply") and "cannot be used" not in text:
        return "starttls-not-supported"
    return "validation-failure"


class TlsResults:
    """The counts of one deliverer; `send(rows)` gets them, `later(seconds, call)` is the loop's timer."""

    def __init__(
        self, send: Callable[[list[TlsSeen]], None], later: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        self._send = send
        self._later = later
        self._counts: dict[TlsSeen, int] = {}

    def secured(self, domain: str, way: Plan, target: Target, sending_ip: str, is_secured: bool) -> None:
        """A connection is ready; without TLS if it was not asked for, or not to be had."""
        if not domain or way.tls is Tls.NEVER:
            return
        facts = way.facts or PolicyFacts("no-policy-found", domain)
        trouble = way.trial.why if way.trial is not None and way.trial.why else facts.trouble
        if not is_secured:
            self._count(domain, facts, target, sending_ip, "starttls-not-supported", "it goes on in clear")
        elif trouble:
            self._count(domain, facts, target, sending_ip, *_typed(trouble))
        else:
            self._count(domain, facts, target, sending_ip, "", "")

    def failed(self, domain: str, way: Plan, target: Target, sending_ip: str, failure: Problem) -> None:
        """A connection that came to nothing because of TLS, or was not even made."""
        if domain:
            facts = way.facts or PolicyFacts("no-policy-found", domain)
            self._count(domain, facts, target, sending_ip, classify(failure), failure.text)

    def _count(
        self, domain: str, facts: PolicyFacts, target: Target, sending_ip: str, result: str, reason: str
    ) -> None:
        row = TlsSeen(
            domain, facts.kind, facts.domain, facts.strings, target.name, target.address, sending_ip, result,
            reason[:MAX_REASON],
        )  # fmt: skip
        if not self._counts:
            self._later(FLUSH_S, self.flush)
        if row in self._counts or len(self._counts) < MAX_COUNTED:
            self._counts[row] = self._counts.get(row, 0) + 1

    def flush(self) -> None:
        """Send what was counted."""
        counts, self._counts = self._counts, {}
        if counts:
            self._send([msgspec.structs.replace(row, count=count) for row, count in counts.items()])


def _typed(trouble: str) -> tuple[str, str]:
    """A trouble with its type in front, or the words of a failed verification."""
    kind, _, words = trouble.partition(": ")
    if kind.startswith("sts-") or kind == "validation-failure":
        return kind, words
    return classify(Problem("tls", "tls", trouble)), trouble
