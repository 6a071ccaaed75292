"""The proof: every message answered 250 arrived, whole, and what arrived twice was under way when something was broken. Pure.

A recipient of a message is the unit. Lost: acknowledged and not arrived. Explained duplicate: between its two arrivals lies a
disturbance (a kill, a fault, a power cut) that began before the earlier delivery was noted in the queue's log, or so shortly
after it that the note need not be durable yet; and the earlier attempt was under way then, or was begun by a deliverer that
had it already and could not know yet that its queue was dead. Every other duplicate is unexplained, and a failure.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from bench.crash.books import Arrival, Sent

CLOCK_S = 0.005  # the log has milliseconds, from the start of a turn of the loop
NOTICE_S = 0.2  # a deliverer on a busy machine sees within this that its queue has gone
MAX_NAMED = 5
MAY_DUPLICATE = frozenset(("queue", "deliverer", "maildir", "resolver", "supervisor", "all", "power"))


@dataclasses.dataclass(frozen=True, slots=True)
class Disturbance:
    """What was broken, and from when to when."""

    what: str  # a role, "supervisor", "all" or "power"
    begin_s: float
    end_s: float


@dataclasses.dataclass(slots=True)
class Proof:
    """What the books say. Counts are recipients, except where they say messages."""

    messages: int = 0  # transactions that clients began
    acknowledged_messages: int = 0
    acknowledged: int = 0
    unanswered: int = 0  # the text was sent, the connection went
    refused: int = 0  # the text was sent and refused with 4xx
    refused_arrived: int = 0  # and it arrived all the same: its client sends it again
    arrived: int = 0  # acknowledged or not
    lost: list[str] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)  # arrived with another body
    strangers: int = 0  # arrived, and no client sent it
    duplicates: int = 0
    unexplained: list[str] = dataclasses.field(default_factory=list)
    replies: dict[str, int] = dataclasses.field(default_factory=dict)  # "stage code" -> how often
    refused_for_good: list[str] = dataclasses.field(default_factory=list)
    hangs: int = 0

    def problems(self) -> list[str]:
        """What a run must not show; empty if all is well."""
        found = [
            _name(f"{len(self.lost)} acknowledged recipients never got their message", self.lost),
            _name(f"{len(self.broken)} messages arrived with another body", self.broken),
            _name(f"{len(self.unexplained)} duplicates without a disturbance at their delivery", self.unexplained),
            _name(f"{len(self.refused_for_good)} messages were refused with 5xx", self.refused_for_good),
            f"{self.strangers} arrivals that nobody sent" if self.strangers else "",
            f"{self.hangs} clients waited in vain for an answer" if self.hangs else "",
            "" if self.acknowledged else "nothing was acknowledged: the run shows nothing",
        ]
        return [text for text in found if text]


def _name(text: str, which: Sequence[str]) -> str:
    return f"{text}: {', '.join(which[:MAX_NAMED])}" if which else ""


def prove(
    sent: Iterable[Sent],
    arrivals: Iterable[Arrival],
    disturbances: Sequence[Disturbance],
    delivered: Mapping[tuple[str, str], Sequence[float]],
    grace_s: float = 0.0,
) -> Proof:
    """Compare the books; `grace_s` is for how long a noted delivery may be forgotten by a disturbance."""
    proof = Proof()
    known: set[str] = set()
    wanted: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    for row in sent:
        known.add(row.id)
        _count(proof, row)
        if row.code == 250:
            wanted += [(row.id, recipient) for recipient in row.recipients]
        elif row.code and row.stage == "end":
            refused += [(row.id, recipient) for recipient in row.recipients]
    found: dict[tuple[str, str], list[Arrival]] = {}
    for arrival in arrivals:
        if arrival.id not in known:
            proof.strangers += 1
        if not arrival.is_whole:
            proof.broken.append(arrival.id or "without an id")
        for recipient in arrival.recipients:
            found.setdefault((arrival.id, recipient), []).append(arrival)
    proof.arrived = len(found)
    proof.acknowledged = len(wanted)
    proof.refused = len(refused)
    proof.refused_arrived = sum(key in found for key in refused)
    proof.lost = [f"{key[0]} to {key[1]}" for key in wanted if key not in found]
    for (message_id, recipient), several in found.items():
        several.sort(key=lambda arrival: arrival.begun_s)  # one that is answered late may end behind the next
        for earlier, later in itertools.pairwise(several):
            proof.duplicates += 1
            noted = delivered.get((earlier.gateway_id, recipient), ())
            if not is_explained(earlier, later, disturbances, noted, grace_s):
                proof.unexplained.append(f"{message_id} to {recipient}")
    return proof


def _count(proof: Proof, row: Sent) -> None:
    proof.messages += 1
    answer = f"{row.stage} {row.code or 'lost'}"
    proof.replies[answer] = proof.replies.get(answer, 0) + 1
    if row.code == 250:
        proof.acknowledged_messages += 1
    elif row.code >= 500:
        proof.refused_for_good.append(f"{row.id} ({row.code} {row.text})")
    elif row.text.startswith("hangs"):
        proof.hangs += 1
    if row.code == 0 and row.stage == "end":
        proof.unanswered += len(row.recipients)


def is_explained(
    earlier: Arrival, later: Arrival, disturbances: Sequence[Disturbance], noted: Sequence[float], grace_s: float
) -> bool:
    """Whether a disturbance between two arrivals of one message came before the first was surely settled."""
    settled_s = min((at_s for at_s in noted if at_s >= earlier.begun_s - CLOCK_S), default=float("inf"))
    return any(
        disturbance.what in MAY_DUPLICATE
        and disturbance.end_s + NOTICE_S >= earlier.begun_s
        and disturbance.begin_s <= later.ended_s
        and settled_s >= disturbance.begin_s - grace_s - CLOCK_S
        for disturbance in disturbances
    )
