"""The operator's verbs on the queue, as control passes them on: ledger, list, show, retry, remove, hold, release.

What changes the queue is done at once, and answered when it is durable: a power cut behind the answer undoes nothing.
Answers are JSON-able; text of messages and peers is escaped where it is printed (`cli/output.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gatepost.mail.header import split_header
from gatepost.model import Envelope
from gatepost.roles.settling import timestamp
from gatepost.spool.entry import IN_SEGMENT, REFUSED, Entry, State
from gatepost.spool.errors import SpoolError
from gatepost.spool.own import OWNER

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

MAX_LISTED = 10_000
HEADER_SHOWN_BYTES = 16 * 1024


def answer_operator(queue: Queue, what: str, arguments: dict[str, Any]) -> Any:
    """The answer to one verb, or a coroutine that gives it; `{"error": ...}` for an unknown one."""
    verb = _VERBS.get(what)
    if verb is None:
        return {"error": f"the queue does not know {what!r}"}
    return verb(queue, arguments)


def _ledger(queue: Queue, arguments: dict[str, Any]) -> Any:
    return queue.spool.ledger() | {"notices_waiting": queue.notices.waiting}


def _stats(queue: Queue, arguments: dict[str, Any]) -> Any:
    accepting, reason = queue.health
    return queue.counts | {
        "entries": len(queue.spool.entries), "active": queue.scheduler.active, "accepting": accepting, "health": reason,
    }  # fmt: skip


def _next_hops(queue: Queue, arguments: dict[str, Any]) -> Any:
    return queue.scheduler.next_hops()


def _list(queue: Queue, arguments: dict[str, Any]) -> Any:
    limit = min(int(arguments.get("limit") or 1000), MAX_LISTED)
    rows: list[dict[str, Any]] = []
    for entry in queue.spool.entries.values():
        if len(rows) == limit:
            break
        if not _matches(entry, arguments):
            continue
        rows.append(_summary(queue, entry))
    return {"messages": rows, "total": len(queue.spool.entries), "next_hops": queue.scheduler.next_hops()}


def _matches(entry: Entry, arguments: dict[str, Any]) -> bool:
    envelope = entry.envelope
    if (next_hop := arguments.get("next_hop")) and all(r.next_hop != next_hop for r in envelope.recipients):
        return False
    if (sender := arguments.get("reverse_path")) is not None and envelope.reverse_path != sender:
        return False
    recipient = arguments.get("recipient")
    return not recipient or any(recipient in (r.address, r.domain) for r in envelope.recipients)


def _summary(queue: Queue, entry: Entry) -> dict[str, Any]:
    envelope = entry.envelope
    hops = {envelope.recipients[i].next_hop for i in entry.waiting()}
    dues = [due for hop in hops if (due := queue.scheduler.due_at(entry.id, hop)) is not None]
    due_s = min(dues, default=None)
    last = entry.last[0] if entry.last else None
    return {
        "id": entry.id,
        "received": timestamp(entry.received_s),
        "bytes": entry.content_bytes,
        "reverse_path": envelope.reverse_path,
        "recipients": [envelope.recipients[i].address for i in entry.waiting()][:20],
        "waiting": entry.pending,
        "next_hops": sorted(hops),
        "attempts": entry.attempts,
        "due": None if due_s is None else "now" if due_s <= time.time() else timestamp(due_s),
        "held": entry.held,
        "reason": REFUSED
        if entry.refused
        else envelope.hold
        if entry.held and envelope.hold
        else last.text
        if last
        else next((r for hop in hops if (r := queue.scheduler.reason(hop))), ""),
    }


def _show(queue: Queue, arguments: dict[str, Any]) -> Any:
    entry = queue.spool.entries.get(str(arguments.get("id", "")))
    if entry is None:
        return {"error": "no such message in the queue"}
    envelope = entry.envelope
    recipients = []
    for index, recipient in enumerate(envelope.recipients):
        last = entry.last_of(index)
        recipients.append(
            {
                "address": recipient.address,
                "next_hop": recipient.next_hop,
                "state": State(entry.states[index]).name.lower(),
                "code": last.code if last else 0,
                "status": last.status if last else "",
                "text": last.text if last else "",
                "host": last.host if last else "",
            }
        )
    try:
        source = queue.spool.source(entry)
        content = os.pread(source.fd, min(HEADER_SHOWN_BYTES, source.content_bytes), source.content_offset)
        header = split_header(content)[0].decode("utf-8", "replace")
    except (SpoolError, OSError) as error:
        header = f"cannot be read: {error}"
    return _summary(queue, entry) | {
        "session": envelope.session_id,
        "client": envelope.peer_address,
        "helo": envelope.helo,
        "permit": envelope.permit,
        "body_type": envelope.body_type,
        "smtputf8": envelope.smtputf8,
        "asked": _asked(envelope),
        "recipients": recipients,
        "header": header,
    }


def _asked(envelope: Envelope) -> str:
    """What the sender asked of extensions, as in SMTP but for times."""
    until, by = envelope.release_s, envelope.deliver_by
    words = (
        f"RET={envelope.ret}" if envelope.ret else "",
        f"ENVID={envelope.envelope_id}" if envelope.envelope_id else "",
        "REQUIRETLS" if envelope.requiretls else "",
        "TLS-Required: No" if envelope.tls_optional else "",
        f"MT-PRIORITY={envelope.priority}" if envelope.priority else "",
        f"HOLDUNTIL={timestamp(until)}" if until else "",
        f"BY={timestamp(envelope.deliver_by_s)};{by}" if by else "",
    )
    return " ".join(word for word in words if word)


def _chosen(queue: Queue, arguments: dict[str, Any]) -> list[Entry]:
    if arguments.get("all"):
        return list(queue.spool.entries.values())
    ids = arguments.get("ids") or []
    return [entry for key in ids if (entry := queue.spool.entries.get(key)) is not None]


def _when_durable(queue: Queue, count: int, done: str) -> Coroutine[Any, Any, dict[str, Any]]:
    """The answer behind the sync. Where the disk refuses, what was done holds in memory, and that is said."""

    async def answer() -> dict[str, Any]:
        if not (trouble := await queue.commits.durable()):
            return {"count": count}
        messages = f"{count} {'message' if count == 1 else 'messages'}"
        return {
            "error": f"{messages} {done}, but the disk refuses to keep that ({trouble}): a power cut would undo it. "
            "It is tried until the disk takes it; ask again then"
        }

    return answer()


def _retry(queue: Queue, arguments: dict[str, Any]) -> Any:
    next_hop = arguments.get("next_hop") or None
    if next_hop or arguments.get("all"):
        waiting = queue.scheduler.waiting(next_hop)
        queue.scheduler.retry(next_hop=next_hop)
        entries = [entry for key in waiting if (entry := queue.spool.entries.get(key)) is not None]
    else:
        entries = [entry for entry in _chosen(queue, arguments) if queue.scheduler.retry(key=entry.id)]
    now_s = time.time()
    for entry in entries:
        queue.spool.retry(entry, now_s)
    queue.dispatch_soon()
    return _when_durable(queue, len(entries), "due now")


def _remove(queue: Queue, arguments: dict[str, Any]) -> Any:
    count = 0
    for entry in _chosen(queue, arguments):
        queue.unschedule(entry)
        pending = entry.pending
        queue.spool.remove(entry)
        queue.event("removed", id=entry.id, recipients=pending, by="operator")
        queue.finish(entry)
        count += 1
    return _when_durable(queue, count, "removed")


def _hold(queue: Queue, arguments: dict[str, Any]) -> Any:
    entries = [entry for entry in _chosen(queue, arguments) if not entry.held]
    for entry in entries:
        for next_hop in {recipient.next_hop for recipient in entry.envelope.recipients}:
            # else a release in between would begin a second attempt
            if not queue.scheduler.is_active(entry.id, next_hop):
                queue.scheduler.remove(entry.id, next_hop)
        queue.deadlines.remove(entry.id)  # what is held does not age
        queue.spool.hold(entry)
    return _when_durable(queue, len(entries), "held")


def _is_own(queue: Queue, entry: Entry) -> bool:
    """Whether it lies in the segment of the queue itself, so that it may not be durable yet."""
    segment = queue.spool.segments.get(entry.segment)
    return entry.place == IN_SEGMENT and segment is not None and segment.owner == OWNER


def _release(queue: Queue, arguments: dict[str, Any]) -> Any:
    # What a receiver was not to send is let go by its ID only, by who has looked at it.
    entries = [
        entry for entry in _chosen(queue, arguments) if entry.held and not (arguments.get("all") and entry.refused)
    ]
    for entry in entries:
        queue.spool.release(entry, time.time())
        if _is_own(queue, entry):  # a notice may not set out before what it tells of is durable
            queue.notices.enter_when_durable(entry)
        else:
            queue.enter(entry)
    queue.dispatch_soon()
    return _when_durable(queue, len(entries), "released")


_VERBS: dict[str, Callable[[Queue, dict[str, Any]], Any]] = {
    "ledger": _ledger,
    "stats": _stats,
    "next_hops": _next_hops,
    "tls_forget": lambda queue, arguments: queue.remembering.forget(arguments),
    "tls_remembered": lambda queue, arguments: queue.remembering.listed(),
    "recipients_keep": lambda queue, arguments: queue.keeping.keep_now(),
    "list": _list,
    "show": _show,
    "retry": _retry,
    "remove": _remove,
    "hold": _hold,
    "release": _release,
    "tls_report": lambda queue, arguments: queue.reports.show(float(arguments.get("since_s") or 0.0)),
}
