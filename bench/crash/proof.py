"""The proof: every message answered 250 arrived, whole, and what arrived twice was under way when something was broken. Pure.

A recipient of a message is the unit. Lost: acknowledged and not arrived. Explained duplicate: between its two arrivals lies a
disturbance (a kill, a fault, a power cut) that began before the earlier delivery was noted in the queue's log, or so shortly
after it that the note need not be durable yet, and neither the disk nor a notice of success shows that it was; and the earlier
attempt was under way then, or was begun by a deliverer that had it already and could not know yet that its queue was dead. Every
other duplicate is unexplained, and a failure.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from bench.crash.books import Arrival, Sent, Sync
from bench.crash.kinds import BOX_DOMAIN, is_gone

CLOCK_S = 0.005  # the log has milliseconds, from the start of a turn of the loop
# Until the notice of a success is durable behind what disk and machine are busy with, and with it what it tells of. A notice that has
# set out was; what else was excused for how long at most is a figure of the run.
AWAITED_S = 10.0
EARLY_S = 0.05  # a Maildir has the time of its file system, by another clock
NOTICE_S = 0.2  # a deliverer on a busy machine sees within this that its queue has gone
BUSY_S = 1.0  # on a machine that is shared with anything a process may get no turn for this long, or
BUSY_PAUSES = 2  # times the longest pause that was seen
MAX_NAMED = 5
MAY_DUPLICATE = frozenset(("queue", "deliverer", "maildir", "supervisor", "all", "power"))


@dataclasses.dataclass(frozen=True, slots=True)
class Disturbance:
    """What was broken, and from when to when."""

    what: str  # a role, "supervisor", "all" or "power"
    begin_s: float
    end_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Messages that the operator held, by the gateway's ids; from and to when none of them may have set out."""

    ids: frozenset[str]
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
    bounced: int = 0  # of those acknowledged, refused for good by their next hop
    own_notices: int = 0  # messages of the gateway's own that came
    notices: dict[str, int] = dataclasses.field(default_factory=dict)  # recipients told of, by action
    notices_twice: int = 0
    unasked: list[str] = dataclasses.field(default_factory=list)  # told of, though nobody wanted that
    untold: list[str] = dataclasses.field(default_factory=list)  # delivered, and the sender wanted to hear of it
    early: list[str] = dataclasses.field(default_factory=list)  # before the time that the sender had set
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)  # acknowledged messages
    lost: list[str] = dataclasses.field(default_factory=list)
    escaped: list[str] = dataclasses.field(default_factory=list)  # set out although they were held
    broken: list[str] = dataclasses.field(default_factory=list)  # arrived with another body
    strangers: int = 0  # arrived, and no client sent it
    duplicates: int = 0
    unexplained: list[str] = dataclasses.field(default_factory=list)
    longest_excuse_s: float = 0.0  # for which a delivery had been noted that came again
    replies: dict[str, int] = dataclasses.field(default_factory=dict)  # "stage code" -> how often
    refused_for_good: list[str] = dataclasses.field(default_factory=list)
    hangs: int = 0

    def problems(self) -> list[str]:
        """What a run must not show; empty if all is well."""
        found = [
            _name(f"{len(self.lost)} acknowledged recipients never got their message", self.lost),
            _name(f"{len(self.untold)} recipients whose sender was not told", self.untold),
            _name(f"{len(self.unasked)} notices that nobody asked for", self.unasked),
            _name(f"{len(self.early)} recipients got their message before its time", self.early),
            _name(f"{len(self.escaped)} messages set out although the operator held them", self.escaped),
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
    *,
    syncs: Sequence[Sync] = (),
    holds: Sequence[Hold] = (),
    is_busy: bool = False,
    pause_s: float = 0.0,
) -> Proof:
    """Compare the books.

    `grace_s` is for how long a noted delivery may be forgotten by a disturbance; `syncs` of a disk that says what it has kept.
    What is lost or arrives twice is the same on a machine that `is_busy` with other things; only times are taken less strictly, by
    what such a machine may be late, or by more where a longer pause was seen.
    """
    late_s = max(BUSY_S, BUSY_PAUSES * pause_s) if is_busy else 0.0
    proof = Proof()
    arrivals = list(arrivals)
    for hold in holds:
        proof.escaped += [
            arrival.gateway_id
            for arrival in arrivals
            if arrival.gateway_id in hold.ids and hold.begin_s + late_s <= arrival.begun_s <= hold.end_s
        ]
    begun = [sync.begun_s for sync in syncs]
    sent = list(sent)
    known: set[str] = set()
    wanted: list[tuple[str, str]] = []
    awaited = {row.id for row in sent if "SUCCESS" in row.notify}
    refused: list[tuple[str, str]] = []
    for row in sent:
        known.add(row.id)
        _count(proof, row)
        if row.code == 250:
            wanted += [(row.id, recipient) for recipient in row.recipients]
        elif row.code and row.stage == "end":
            refused += [(row.id, recipient) for recipient in row.recipients]
    found: dict[tuple[str, str], list[Arrival]] = {}
    told = _prove_notices(proof, sent, [arrival for arrival in arrivals if arrival.notice], disturbances)
    for arrival in arrivals:
        if arrival.notice:
            continue
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
    proof.lost = [f"{key[0]} to {key[1]}" for key in wanted if key not in found and not is_gone(key[1])]
    _prove_wishes(proof, sent, found, told)
    for (message_id, recipient), several in found.items():
        several.sort(key=lambda arrival: arrival.begun_s)  # one that is answered late may end behind the next
        for earlier, later in itertools.pairwise(several):
            proof.duplicates += 1
            noted = _first(delivered.get((earlier.gateway_id, recipient), ()), earlier.begun_s - CLOCK_S)
            most_s = max(grace_s, AWAITED_S) if message_id in awaited else grace_s
            if is_busy and syncs:
                most_s = float("inf")  # the disk says what it kept, however late
            durable_s = _durable_s(noted, syncs, begun)
            if earlier is several[0]:  # a notice sets out when it is durable, and with it what it tells of
                notices = [arrival.begun_s for arrival in told.get((message_id, recipient), ())]
                durable_s = min(durable_s, _first(notices, earlier.begun_s))
            excuse_s = excuse_of(earlier, later, disturbances, noted, most_s, durable_s, late_s)
            proof.longest_excuse_s = max(proof.longest_excuse_s, excuse_s or 0.0)
            if excuse_s is None:
                proof.unexplained.append(f"{message_id} to {recipient}")
    return proof


Told = dict[tuple[str, str], list[Arrival]]


def _prove_notices(
    proof: Proof, sent: Sequence[Sent], arrivals: Sequence[Arrival], disturbances: Sequence[Disturbance]
) -> Told:
    """Notices by message and recipient. One may come twice for a kill, or for a message that came twice; unasked never."""
    rows = {row.id: row for row in sent}
    told: Told = {}
    proof.own_notices = len({arrival.gateway_id for arrival in arrivals})
    for arrival in arrivals:
        row = rows.get(arrival.id)
        if row is None or not arrival.is_whole:
            proof.strangers += 1
            continue
        for recipient in arrival.recipients:
            proof.notices[arrival.notice] = proof.notices.get(arrival.notice, 0) + 1
            several = told.setdefault((arrival.id, recipient), [])
            several.append(arrival)
            is_failure = arrival.notice == "failed"
            if (
                row.notify == "NEVER"
                or is_failure != is_gone(recipient)
                or (not is_failure and "SUCCESS" not in row.notify)
            ):
                proof.unasked.append(f"{arrival.id} to {recipient}: {arrival.notice}")
            if len(several) > 1:
                proof.notices_twice += 1
                if not any(
                    disturbance.what in MAY_DUPLICATE
                    and disturbance.end_s + NOTICE_S >= row.begun_s
                    and disturbance.begin_s <= arrival.ended_s
                    for disturbance in disturbances
                ):
                    proof.unexplained.append(f"notice of {arrival.id} to {recipient}")
    return told


def _prove_wishes(
    proof: Proof, sent: Sequence[Sent], found: Mapping[tuple[str, str], list[Arrival]], told: Told
) -> None:
    """What the sender of an acknowledged message asked for: to be told, and not before a time."""
    for row in sent:
        if row.code == 250:
            proof.kinds[row.kind] = proof.kinds.get(row.kind, 0) + 1
        for recipient in row.recipients:
            key = row.id, recipient
            first_s = min((arrival.begun_s for arrival in found.get(key, ())), default=float("inf"))
            early_s = EARLY_S if recipient.endswith("@" + BOX_DOMAIN) else CLOCK_S
            if row.hold_s and first_s < row.begun_s + row.hold_s - early_s:
                proof.early.append(f"{row.id} to {recipient}")
            if row.code != 250:
                continue
            proof.bounced += is_gone(recipient)
            wants = row.notify != "NEVER" if is_gone(recipient) else "SUCCESS" in row.notify
            if wants and key not in told:
                (proof.lost if is_gone(recipient) else proof.untold).append(f"{row.id} to {recipient}")


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


def _first(times: Iterable[float], since_s: float) -> float:
    """The first of some times that is not before another; infinity if there is none."""
    return min((at_s for at_s in times if at_s >= since_s), default=float("inf"))


def _durable_s(noted_s: float, syncs: Sequence[Sync], begun: Sequence[float]) -> float:
    """When a note was surely on the disk: behind the second sync that began after it.

    The first may have begun in the turn of the loop that wrote the note, before it was written; the next is asked for in a later turn.
    """
    second = bisect.bisect_left(begun, noted_s + CLOCK_S) + 1
    return syncs[second].ended_s if second < len(syncs) else float("inf")


def excuse_of(
    earlier: Arrival,
    later: Arrival,
    disturbances: Sequence[Disturbance],
    settled_s: float,
    grace_s: float,
    durable_s: float = float("inf"),
    late_s: float = 0.0,
) -> float | None:
    """For how long the first of two arrivals of one message was noted when a disturbance undid it; None: none did.

    Any of the processes concerned may have had no turn for `late_s`.
    """
    excuses = [
        max(0.0, disturbance.begin_s - settled_s)
        for disturbance in disturbances
        if disturbance.what in MAY_DUPLICATE
        and disturbance.end_s + NOTICE_S + late_s >= earlier.begun_s
        and disturbance.begin_s <= later.ended_s
        and settled_s >= disturbance.begin_s - grace_s - CLOCK_S - late_s
        and durable_s > disturbance.begin_s - CLOCK_S
    ]
    return min(excuses, default=None)
