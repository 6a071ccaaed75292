"""The snapshot of recipients: what tables that are asked over the network found lately, which answers while a table does not.

The resolver writes down what was found for recipients, the queue role keeps it on disk (`keeping.py`), so that it holds over a restart. An
address that was found within `stale_s` is known while its table gives no answer; one that was not found never is unknown for that, it
defers. A table that denies more of what it had named than it may (`routing/shrinking.py`) is not believed before an operator confirms it.
A source with a list query gives all its recipients ahead (`listing.py`): what was listed is known like what was found, who is in the list no more is
forgotten, and a list that has lost more than a set part is held until it is confirmed, as one in a file.
Tables that are used for other things too have no snapshot, and neither has a next hop that takes every recipient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from gatepost.config.callahead import call_ahead_tables
from gatepost.config.schema import Config
from gatepost.config.sources import source_of
from gatepost.privsep.recipientlists import SAMPLE, Held, has_shrunk
from gatepost.routing.shrinking import Shrinkage

MAX_VALUE_CHARACTERS = 256
RESTORE_WAIT_S = 20.0  # for the queue, before nothing is known from before
TELL_S = 1.0  # the queue is told of changes after this
TOLD_AT_ONCE = 5000  # records of one message
FRESH_PART = 8  # a record is written anew when it has lost an eighth of its time
CONFIRMED_S = 86400.0
KEY_CHARACTERS = 512

Answered = Callable[[list[str | None], str], None]


class _Known(NamedTuple):
    value: str
    seen_s: float  # wall clock: it must mean something after a restart
    is_listed: bool = False


class _Record(msgspec.Struct, array_like=True):
    """Of what is known, as the queue keeps it."""

    seen_s: float
    value: str
    is_listed: bool = False


class _Table:
    """What is known of one table."""

    __slots__ = ("confirmed_until_s", "failure", "held", "known", "listed", "listed_s", "shrinkage", "stale_s")

    def __init__(self, stale_s: float, most: float) -> None:
        self.stale_s = stale_s
        self.shrinkage = Shrinkage(most)
        self.confirmed_until_s = 0.0
        self.failure = ""
        self.known: dict[str, _Known] = {}
        self.listed = 0  # recipients of the last list that was believed
        self.listed_s = 0.0
        self.held: Held | None = None  # of the last list, which is not believed


def snapshot_tables(config: Config) -> dict[str, tuple[float, float]]:
    """The tables with a snapshot: for how long, and what part may vanish."""
    found: dict[str, tuple[float, float]] = {}
    ahead = config.call_ahead
    for table in call_ahead_tables(config):
        found[table] = ahead.stale_s, ahead.max_vanished
    others = {*config.virtual, *config.routes, *config.aliases, *config.sender_routes, *config.access}
    others.update(name for rule in config.rewrite.rules for name in rule.tables)
    for domain in config.domains.values():
        for name in domain.recipients or ():
            source = source_of(name, config.sources) if ":" in name and name not in others else None
            if source is not None:
                found[name] = source.stale_s, source.max_vanished
    return {table: settings for table, settings in found.items() if settings[0] > 0}


class Snapshot:
    """Of one resolver. `keep` hands records to the queue, an empty one to forget; `takes_all(table, key)` are not written down."""

    def __init__(
        self,
        config: Config,
        *,
        keep: Callable[[dict[str, bytes]], None],
        call_later: Callable[[float, Callable[[], None]], Any],
        event: Callable[..., None],
        takes_all: Callable[[str, str], bool] = lambda table, key: False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._most = config.snapshot.max_entries
        self._max_shrink = config.snapshot.max_shrink
        self._tables = {table: _Table(*settings) for table, settings in snapshot_tables(config).items()}
        self._keep = keep
        self._call_later = call_later
        self._event = event
        self._takes_all = takes_all
        self._now_s = now_s
        self._changed: dict[str, bytes] = {}
        self._entries = 0
        self._is_restored = False
        self._held: list[Callable[[], None]] = []  # answers that wait for what the queue has kept
        self.counts = {"snapshot_answers": 0, "snapshot_told": 0}

    # --- what the queue has kept ------------------------------------------------------------------------------------

    def restore(self, records: dict[str, bytes], is_all: bool = True) -> None:
        """What was written down before; what was found since is newer. With the last of it what waited for it is answered."""
        for name, record in records.items():
            table_name, _, key = name.partition(" ")
            table = self._tables.get(table_name)
            try:
                kept = msgspec.msgpack.decode(record, type=_Record)
            except msgspec.MsgspecError:
                continue
            if table is None or key in table.known or self._entries >= self._most:
                continue
            if self._now_s() - table.stale_s < kept.seen_s <= self._now_s():
                table.known[key] = _Known(kept.value, kept.seen_s, kept.is_listed)
                self._entries += 1
        if is_all:
            self._be_restored()

    def _be_restored(self) -> None:
        self._is_restored = True
        held, self._held = self._held, []
        for answer in held:
            answer()

    def _hold(self, answer: Callable[[], None]) -> None:
        """The table gives no answer, or denies: who was known from before must not hear that for the moment of a start."""
        if not self._held:
            self._call_later(RESTORE_WAIT_S, self._be_restored)
        self._held.append(answer)

    def _write(self, table: str, key: str, known: _Known | None) -> None:
        if not self._changed:
            self._call_later(TELL_S, self.flush)
        record = b"" if known is None else msgspec.msgpack.encode(_Record(known.seen_s, known.value, known.is_listed))
        self._changed[f"{table} {key}"] = record

    def flush(self) -> None:
        """Tell the queue what has changed."""
        changed, self._changed = self._changed, {}
        self.counts["snapshot_told"] += len(changed)
        names = list(changed)
        for start in range(0, len(names), TOLD_AT_ONCE):
            self._keep({name: changed[name] for name in names[start : start + TOLD_AT_ONCE]})

    # --- answers ----------------------------------------------------------------------------------------------------

    def behind(self, name: str, keys: list[str], answered: Answered) -> Answered:
        """`answered` with the snapshot behind the table."""
        table = self._tables.get(name)
        if table is None or not self._most:
            return answered

        def take(values: list[str | None], failed: str) -> None:
            if not self._is_restored and (failed or None in values):
                self._hold(lambda: take(values, failed))
                return
            if failed:
                answered(*self._stand_in(name, table, keys, failed))
                return
            table.failure = ""
            answered([self._note(name, table, *pair) for pair in zip(keys, values, strict=True)], "")

        return take

    def _stand_in(self, name: str, table: _Table, keys: list[str], failed: str) -> tuple[list[str | None], str]:
        values = [self._stale(name, table, key) for key in keys]
        if all(value is None for value in values):
            return [], failed
        self.counts["snapshot_answers"] += 1
        if not table.failure:
            self._event("snapshot_answers", table=name, reason=failed, known=len(table.known))
        table.failure = failed
        return values, ""

    def _stale(self, name: str, table: _Table, key: str) -> str | None:
        known = table.known.get(key)
        if known is None:
            return None
        if known.seen_s + table.stale_s <= self._now_s():
            self._forget(name, table, key)
            return None
        return known.value

    def _note(self, name: str, table: _Table, key: str, value: str | None) -> str | None:
        """One answer of the table; what is answered to whoever asked."""
        known = self._stale(name, table, key)
        if value is not None:
            if known is not None:
                table.shrinkage.believes(True)
            if len(value) <= MAX_VALUE_CHARACTERS and not self._takes_all(name, key):
                self._remember(name, table, key, value)
            return value
        if known is None:
            return None
        was_doubted = table.shrinkage.is_doubted
        if table.confirmed_until_s > self._now_s() or table.shrinkage.believes(False):
            self._forget(name, table, key)
            return None
        if not was_doubted:
            shrinkage = table.shrinkage
            self._event("source_shrinks", table=name, vanished=shrinkage.vanished, asked=shrinkage.asked)
        return known

    def _remember(self, name: str, table: _Table, key: str, value: str, is_listed: bool = False) -> None:
        old = table.known.pop(key, None)
        now_s = self._now_s()
        if old is None:
            if len(name) + len(key) >= KEY_CHARACTERS:
                return
            if self._entries >= self._most:
                self._drop_oldest()
            self._entries += 1
        is_listed = is_listed or (old is not None and old.is_listed)
        is_fresh = (
            old is not None and old[::2] == (value, is_listed) and now_s - old.seen_s < table.stale_s / FRESH_PART
        )
        table.known[key] = known = old if is_fresh and old is not None else _Known(value, now_s, is_listed)
        if not is_fresh:
            self._write(name, key, known)

    def _drop_oldest(self) -> None:
        name, table = max(self._tables.items(), key=lambda item: len(item[1].known))
        self._forget(name, table, next(iter(table.known)))

    def _forget(self, name: str, table: _Table, key: str) -> None:
        if table.known.pop(key, None) is not None:
            self._entries -= 1
            self._write(name, key, None)

    # --- lists ------------------------------------------------------------------------------------------------------

    def judge_list(self, name: str, keys: set[str]) -> bool:
        """Whether a list of a table is believed; if not, the one of before holds, and an event says so."""
        table = self._tables[name]
        old = [key for key, known in table.known.items() if known.is_listed]
        gone = [] if table.confirmed_until_s > self._now_s() else has_shrunk(old, list(keys), self._max_shrink)
        held = Held(name, len(old), len(keys), len(gone), gone[:SAMPLE]) if gone else None
        if held is not None and held != table.held:
            self._event(
                "recipients_held", list=name, kept=held.kept, found=held.found, gone=held.gone, sample=held.sample
            )
        table.held = held
        return held is None

    def take_listed(self, name: str, keys: Iterable[str]) -> None:
        """These are in the list; what was found of one before stays its value."""
        table = self._tables[name]
        for key in keys:
            known = table.known.get(key)
            self._remember(name, table, key, known.value if known is not None else "", is_listed=True)

    def end_list(self, name: str, keys: set[str]) -> int:
        """All of them were taken: who was in the list of before and is not in this one is forgotten. Returns how many."""
        table = self._tables[name]
        gone = [key for key, known in table.known.items() if known.is_listed and key not in keys]
        for key in gone:
            self._forget(name, table, key)
        table.listed, table.listed_s = len(keys), self._now_s()
        return len(gone)

    # --- the operator -----------------------------------------------------------------------------------------------

    def note_of(self, name: str, key: str) -> str:
        """Where the answer about a key comes from, if not from its table; for who explains."""
        table = self._tables.get(name)
        known = table.known.get(key) if table is not None else None
        if table is None or known is None or not (table.failure or table.shrinkage.is_doubted):
            return ""
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(known.seen_s))
        return f"by the snapshot, where it is from {when}, since the table " + (
            f"gives no answer: {table.failure}" if table.failure else "denies more than it may"
        )

    def status(self) -> list[dict[str, Any]]:
        """A row for each table."""
        return [
            {
                "table": name, "known": len(table.known), "stale_s": table.stale_s, "failure": table.failure,
                "doubted": table.shrinkage.is_doubted, "vanished": table.shrinkage.vanished, "asked": table.shrinkage.asked,
                "confirmed": table.confirmed_until_s > self._now_s(), "listed": table.listed, "listed_s": table.listed_s,
                "held": msgspec.to_builtins(table.held) if table.held is not None else None,
            }
            for name, table in self._tables.items()
        ]  # fmt: skip

    def confirm(self, names: Iterable[str]) -> list[str]:
        """What these tables deny from now on, for a day, is believed; empty: all that are doubted. Returns which."""
        wanted = set(names)
        done = []
        for name, table in self._tables.items():
            if name in wanted or (not wanted and (table.shrinkage.is_doubted or table.held is not None)):
                table.shrinkage.reset()
                table.confirmed_until_s = self._now_s() + CONFIRMED_S
                done.append(name)
        return done

    def forget(self, names: Iterable[str]) -> int:
        """Forget whole tables, or addresses in all of them; returns how many entries."""
        wanted = set(names)
        count = 0
        for name, table in self._tables.items():
            for key in [key for key in table.known if name in wanted or key in wanted]:
                self._forget(name, table, key)
                count += 1
        return count
