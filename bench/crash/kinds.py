"""What the load asks for beside delivery, and what has to come of it: each message is of one kind, drawn by its share.

`Kind` is what a client says; the proof knows what it means by the fields of `books.Sent`. Addresses that the gateway and the sink treat in a way of
their own are here, too, so that load, sink, configuration and proof agree.
"""

from __future__ import annotations

import random
from typing import NamedTuple

SENDER = "sender@senders.test"
INSIDE_FROM = "load@inside.test"  # rewritten to OUTSIDE_FROM
OUTSIDE_FROM = "load@senders.test"
GONE = "gone"  # a local part that the sink refuses for good
TEAM = "team@fixed.test"  # an alias
TEAM_MEMBERS = ("member1@fixed.test", "member2@mx1.test", "member3@pool.test")
HELD_DOMAIN = "held.test"  # waits until it is released
BOX_DOMAIN = "box.test"


class Kind(NamedTuple):
    """How a client sends a message."""

    name: str
    share: float
    mail: str = ""  # parameters of MAIL; {id}: of the message
    rcpt: str = ""  # of each RCPT
    sender: str = SENDER
    is_submitted: bool = False  # to the listener for submission
    is_binary: bool = False
    hold_s: float = 0.0
    notify: str = ""
    recipients: tuple[str, ...] = ()  # in place of one of the drawn ones
    stands_for: tuple[str, ...] = ()  # who gets it in place of those


KINDS = (
    Kind("plain", 0.44),
    Kind("success", 0.10, " RET=HDRS ENVID={id}", " NOTIFY=SUCCESS,FAILURE", notify="SUCCESS,FAILURE"),
    Kind("never", 0.03, " RET=FULL ENVID={id}", " NOTIFY=NEVER", notify="NEVER"),
    Kind("gone", 0.05, " RET=FULL ENVID={id}", recipients=(f"{GONE}@fixed.test",)),
    Kind("gone, never", 0.02, " ENVID={id}", " NOTIFY=NEVER", notify="NEVER", recipients=(f"{GONE}@fixed.test",)),
    Kind("later", 0.05, " HOLDFOR=2", is_submitted=True, hold_s=2.0),
    Kind("urgent", 0.06, " MT-PRIORITY=6", is_submitted=True),
    Kind("not urgent", 0.04, " MT-PRIORITY=-4"),
    Kind("by a time", 0.03, " BY=3600;N"),
    Kind("binary", 0.06, " BODY=BINARYMIME", is_binary=True),
    Kind("rewritten", 0.08, sender=INSIDE_FROM),
    Kind("alias", 0.04, recipients=(TEAM,), stands_for=TEAM_MEMBERS),
)


def choose_kind(rng: random.Random) -> Kind:
    """One of them, by their shares."""
    return rng.choices(KINDS, [kind.share for kind in KINDS])[0]


def is_gone(recipient: str) -> bool:
    """Whether the sink refuses it for good, so that a bounce is what its sender gets."""
    return recipient.startswith(GONE + "@")
