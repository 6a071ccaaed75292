"""What a policy decides: go on, or a reply that says no.

A value without behaviour. The enhanced status code is kept without its class digit, which is that of the reply code, so that
the two cannot disagree (RFC 3463 2). Texts are for the peer: what to do, never our internals.
"""

from __future__ import annotations

import msgspec

from gatepost.routing.rewrite import Change
from gatepost.routing.route import Route


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`code` 0 accepts; otherwise it is the reply code, 4xx or 5xx.

    At RCPT an accepting verdict has the `route` and the `permit` under which the recipient is taken. `check` names the check
    that decided, for events and `gatepost explain`. `close` ends the session after the reply.
    """

    code: int = 0
    detail: str = ""  # "7.1"; with 550 the enhanced status code is 5.7.1
    text: str = ""
    route: Route | None = None
    permit: str = ""
    check: str = ""
    close: bool = False
    rule: str = ""  # the relay rule that gave the right or the route
    rewritten: tuple[Change, ...] = ()  # what the forward-path went through
    cause: str = ""  # of a temporary refusal, for the log

    @property
    def accepted(self) -> bool:
        """Whether the session goes on as the client wished."""
        return self.code == 0

    @property
    def status(self) -> str:
        """The whole enhanced status code, "5.7.1"; empty for an accepting verdict."""
        return f"{self.code // 100}.{self.detail}" if self.code else ""


ACCEPT = Verdict()
