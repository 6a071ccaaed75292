"""What a sender asked of SMTP extensions, and how it goes along to a host that is given the message (RFC 2852 4, 3461 5.2, 6710 4,
8689 4.2).

Pure: from what was asked and what the host offers follow the parameters of MAIL and RCPT, or why the host may not have the message.
What is lost on a host that knows nothing of it is told by others (`queue/bounce.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gatepost.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS

_NOT_VERIFIED = "the message requires TLS (REQUIRETLS), and the host could not be verified"
_NOT_PROMISED = "the message requires TLS (REQUIRETLS), and the host does not promise it for the rest of the way"
_NO_RETURN = "the message is to be returned if it is late (DELIVERBY), and the host does not know how"
_TOO_LATE = "the message is to be delivered by a time (DELIVERBY) that the host cannot keep"
_NAMES = ((NOTIFY_NEVER, "NEVER"), (NOTIFY_SUCCESS, "SUCCESS"), (NOTIFY_FAILURE, "FAILURE"), (NOTIFY_DELAY, "DELAY"))


class Host(NamedTuple):
    """What counts of the host at the other end of a session: keywords of its EHLO in upper case, with their arguments."""

    extensions: Mapping[str, str]
    is_last: bool = False  # final delivery, by LMTP
    is_verified: bool = False  # inside TLS, with a name that was verified in a way that nobody between can forge


class Lack(NamedTuple):
    """Why a message may not go to a host."""

    status: str
    text: str
    kind: str = "unfit"  # "unsafe": another host may do


class Asked:
    """Of one transaction. `notify` and `originals` are those of its recipients, in order.

    `dsn_passed` is set with the parameters of DSN: the host, not we, tells the sender of success.
    """

    __slots__ = (
        "clock", "deliver_by", "deliver_by_s", "dsn_passed", "envelope_id", "notify", "originals", "priority",
        "requiretls", "ret",
    )  # fmt: skip

    def __init__(
        self,
        ret: str = "",
        envelope_id: str = "",
        notify: list[int] | None = None,
        originals: list[str] | None = None,
        *,
        requiretls: bool = False,
        priority: int = 0,
        deliver_by: str = "",
        deliver_by_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.priority = priority
        self.deliver_by = deliver_by  # "R" or "N", and "T"
        self.deliver_by_s = deliver_by_s  # by `clock`
        self.clock = clock
        self.requiretls = requiretls
        self.ret = ret
        self.envelope_id = envelope_id
        self.notify = notify or []
        self.originals = originals or []
        self.dsn_passed = False

    def build_parameters(self, host: Host) -> tuple[str, list[str]] | Lack:
        """Parameters of MAIL, and of each RCPT, each with a space in front."""
        mail = ""
        if self.requiretls:
            if not host.is_verified or "REQUIRETLS" not in host.extensions:
                return Lack("5.7.30", _NOT_VERIFIED if not host.is_verified else _NOT_PROMISED, "unsafe")
            mail = " REQUIRETLS"
        if self.priority and "MT-PRIORITY" in host.extensions:
            mail += f" MT-PRIORITY={self.priority}"
        if self.deliver_by:
            found = self._build_by(host)
            if isinstance(found, Lack):
                return found
            mail += found
        rcpts = [""] * len(self.notify)
        self.dsn_passed = "DSN" in host.extensions
        if self.dsn_passed:
            if self.ret:
                mail += f" RET={self.ret}"
            if self.envelope_id:
                mail += f" ENVID={self.envelope_id}"
            rcpts = [
                _build_rcpt(notify, original) for notify, original in zip(self.notify, self.originals, strict=True)
            ]
        return mail, rcpts

    def _build_by(self, host: Host) -> str | Lack:
        """RFC 2852 4.1.4: what is left of the time; a message that must be returned goes to nobody who would not."""
        must_return = self.deliver_by.startswith("R")
        if "DELIVERBY" not in host.extensions:
            return Lack("5.3.3", _NO_RETURN) if must_return and not host.is_last else ""
        left_s = math.ceil(self.deliver_by_s - self.clock())
        least = host.extensions["DELIVERBY"].partition(" ")[0]
        if must_return and left_s < (int(least) if least.isascii() and least.isdigit() and len(least) < 10 else 1):
            return Lack("5.4.7", _TOO_LATE)
        return f" BY={max(left_s, -999_999_999)};{self.deliver_by}"


def _build_rcpt(notify: int, original: str) -> str:
    text = f" NOTIFY={','.join(name for bit, name in _NAMES if notify & bit)}" if notify else ""
    return f"{text} ORCPT={original}" if original else text
