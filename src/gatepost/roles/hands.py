"""The queue's side of the deliverers: which of them gets an attempt, which descriptors each has, what is under way where."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from gatepost.config.maildirfiles import fixed_part, maildir_roots
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.model import Envelope, Outcome
from gatepost.queue.scheduler import Item
from gatepost.spool.entry import Entry
from gatepost.spool.spool import Source

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

_MAILDIR = "maildir:"
MAX_TEXT = 1200  # of an outcome; a deliverer cuts the reply at 1,000 characters
MAX_WORDS = 1200  # of its stage, status and host together; a host is a name with its address and port
RETRY_WITHOUT_DELIVERER_S = 0.2  # it is being started
RETRY_NO_SUCH_ROOT_S = 60.0  # no configuration, now, has that Maildir root: only a reload can bring it


class Job:
    """An attempt under way."""

    __slots__ = ("entry", "item", "recipients")

    def __init__(self, entry: Entry, item: Item, recipients: list[int]) -> None:
        self.entry = entry
        self.item = item
        self.recipients = recipients


def outcomes_of(job: Job, said: list[Outcome]) -> list[Outcome]:
    """One for each recipient of the attempt, and no longer than is kept, whatever the deliverer says."""
    if len(said) == 1 and said[0].recipient in job.recipients and _is_short(said[0]):
        return said
    found: dict[int, Outcome] = {}
    for outcome in said:
        if outcome.recipient in job.recipients and outcome.recipient not in found:
            found[outcome.recipient] = outcome if _is_short(outcome) else _cut(outcome)
    return list(found.values())


def _is_short(outcome: Outcome) -> bool:
    """As those of a deliverer in order are: they are kept in the journal and in memory."""
    words = len(outcome.stage) + len(outcome.status) + len(outcome.host)
    return len(outcome.text) <= MAX_TEXT and words <= MAX_WORDS


def _cut(outcome: Outcome) -> Outcome:
    most = MAX_WORDS // 3
    return msgspec.structs.replace(
        outcome,
        text=outcome.text[:MAX_TEXT],
        stage=outcome.stage[:most],
        status=outcome.status[:most],
        host=outcome.host[:most],
    )


class _Hand:
    """One deliverer: its link, its jobs, the sources it has a descriptor of."""

    __slots__ = ("channel", "jobs", "sources")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.jobs: dict[int, Job] = {}
        self.sources: set[int] = set()


class Hands:
    """All deliverers that are linked now."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._hands: dict[tuple[str, int, int], _Hand] = {}
        self._numbers = count(1)
        self._current: dict[str, list[_Hand]] = {"deliverer": [], "maildir": []}

    @property
    def is_idle(self) -> bool:
        return not any(hand.jobs for hand in self._hands.values())

    def joined(self, channel: Channel) -> None:
        self._hands[channel.peer] = _Hand(channel)
        self._renew()

    def left(self, peer: tuple[str, int, int]) -> None:
        """A deliverer is gone: what it had under way is due again at once. Some of it may have arrived: at least once."""
        hand = self._hands.pop(peer, None)
        self._renew()
        if hand is None:
            return
        now_s = self._queue.notices.now_s()
        for job in hand.jobs.values():
            self._queue.scheduler.finished(job.item.key, job.item.next_hop, None, now_s, now_s)

    def _renew(self) -> None:
        """Only the newest generation gets new work; older ones finish what they have."""
        for role in self._current:
            hands = [hand for peer, hand in self._hands.items() if peer[0] == role]
            newest = max((hand.channel.peer[2] for hand in hands), default=0)
            self._current[role] = sorted(
                (hand for hand in hands if hand.channel.peer[2] == newest), key=lambda hand: hand.channel.peer[1]
            )

    def choose(self, next_hop: str) -> Channel | None:
        """The deliverer for a next hop, always the same one as long as the set is, so that connections are kept."""
        if next_hop.startswith(_MAILDIR):
            root = fixed_part(next_hop[len(_MAILDIR) :])
            roots = maildir_roots(self._queue.config)
            instance = roots.index(root) if root in roots else -1
            found = [hand for hand in self._current["maildir"] if hand.channel.peer[1] == instance]
            return found[0].channel if found else None
        hands = self._current["deliverer"]
        if not hands:
            return None
        return hands[crc32(next_hop.encode()) % len(hands) if len(hands) > 1 else 0].channel

    def absent_s(self, next_hop: str) -> float:
        """How long to wait where `choose` found nobody."""
        if next_hop.startswith(_MAILDIR) and fixed_part(next_hop[len(_MAILDIR) :]) not in maildir_roots(
            self._queue.config
        ):
            return RETRY_NO_SUCH_ROOT_S
        return RETRY_WITHOUT_DELIVERER_S

    def give(self, channel: Channel, job: Job, source: Source, envelope: Envelope) -> None:
        """Post the attempt, behind the descriptor it reads from if the deliverer has not got that yet."""
        hand = self._hands[channel.peer]
        if source.number not in hand.sources:
            hand.sources.add(source.number)
            channel.post(m.SourceShared(source.number), [source.fd])
        number = next(self._numbers)
        hand.jobs[number] = job
        channel.post(
            m.Attempt(
                number, source.number, source.content_offset, source.content_bytes, job.item.next_hop, job.item.limit, envelope,
                job.recipients,
            )
        )  # fmt: skip

    def take_back(self, channel: Channel, number: int) -> Job | None:
        hand = self._hands.get(channel.peer)
        return hand.jobs.pop(number, None) if hand is not None and hand.channel is channel else None

    def is_under_way(self, entry: Entry) -> set[int]:
        """Recipients of this entry that an attempt is under way for."""
        return {
            index
            for hand in self._hands.values()
            for job in hand.jobs.values()
            if job.entry is entry
            for index in job.recipients
        }

    def forget(self, sources: list[int]) -> None:
        """The spool will not name these sources again."""
        for number in sources:
            for hand in self._hands.values():
                if number in hand.sources:
                    hand.sources.remove(number)
                    hand.channel.post(m.SourceGone(number))
