"""What the spool has on disk outlives a version: fields of envelopes, recipients and outcomes are only ever appended."""

from __future__ import annotations

import msgspec
import pytest

from gatepost.model import Envelope, Outcome, Recipient, Result

FIRST = {
    Envelope: ["id", "session_id", "reverse_path", "recipients", "received_s", "peer_address", "helo", "permit"],
    Recipient: ["address", "domain", "next_hop", "notify", "original"],
    Outcome: ["recipient", "result", "stage", "code", "status", "text", "host"],
}
# As 1.0 writes an envelope; a field that is moved or removed shows here
ENVELOPE = [
    *FIRST[Envelope], "body_type", "smtputf8", "has_8bit", "needs_stuffing", "envelope_id", "ret", "requiretls", "tls_optional",
]  # fmt: skip


@pytest.mark.parametrize("kind", FIRST, ids=lambda kind: kind.__name__)
def test_the_first_fields_stay(kind):
    assert list(kind.__struct_fields__)[: len(FIRST[kind])] == FIRST[kind]


def test_the_order_of_an_envelope_stays():
    fields = list(Envelope.__struct_fields__)
    assert [name for name in fields if name in ENVELOPE] == ENVELOPE


def test_what_an_older_version_wrote_is_read():
    recipients = [["a@example.test", "example.test", "mx"]]
    old = ["M1", "S1", "s@example.org", recipients, 1.5, "192.0.2.1", "client", "recipient-domain"]
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Envelope)
    assert found.recipients == [Recipient("a@example.test", "example.test", "mx")]
    assert not found.requiretls
    assert (found.priority, found.release_s, found.deliver_by) == (0, 0.0, "")
    outcome = msgspec.msgpack.decode(msgspec.msgpack.encode([0, 1, "body", 250, "2.0.0", "ok", "h"]), type=Outcome)
    assert (outcome.result, outcome.dsn_passed) == (Result.DELIVERED, False)
