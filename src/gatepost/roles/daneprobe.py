"""Whether DANE is in effect, asked of the DNS servers at start and now and then, and told plainly: an event, `stats`, `gatepost status`.

It asks for the SOA record of `dns.probe`, a domain that is known to be signed. Nothing waits for the answer and nothing depends on it: a
delivery believes each answer for itself. RFC 7672 2.2: without a validating resolver on this host there is no DANE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Config
from gatepost.config.tlsvalues import asks_dane
from gatepost.ipc import messages as m

if TYPE_CHECKING:
    from gatepost.net.dns import StubResolver

AGAIN_S = 3600.0
SOON_S = 30.0  # after a look-up that failed: the resolver of the host may have started later than we


class DaneProbe:
    """One of the resolver role; `state` is what to tell."""

    def __init__(self, config: Config, resolver: StubResolver, loop: Any, event: Any) -> None:
        self._name = config.dns.probe
        self._is_wanted = asks_dane(config)
        self._resolver = resolver
        self._loop = loop
        self._event = event
        self._told: tuple[bool, str] | None = None
        self.state = "not asked for by any policy"

    def begin(self) -> None:
        """Ask, if there is anything to know."""
        if not self._is_wanted:
            return
        if not self._resolver.trusts_ad:
            self._tell(False, "the DNS servers are not believed, because not all are on loopback (dns.trust_ad)")
        elif not self._name:
            self.state = "not known: dns.probe is empty"
        else:
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._resolver.submit("SOA", self._name, self._answered)

    def _answered(self, done: m.LookupDone) -> None:
        if done.status == "tempfail":
            self._tell(False, f"{self._name} cannot be looked up: {done.reason}")
        elif done.secure:
            self._tell(True, "")
        else:
            self._tell(
                False,
                f"the DNS servers do not say that they have validated {self._name}; run one that does, such as unbound",
            )
        self._loop.call_later(SOON_S if done.status == "tempfail" else AGAIN_S, self._ask)

    def _tell(self, in_effect: bool, reason: str) -> None:
        self.state = "in effect" if in_effect else f"not in effect: {reason}"
        if self._told != (in_effect, reason):
            self._told = in_effect, reason
            self._event("dane", in_effect=in_effect, reason=reason, name=self._name)
