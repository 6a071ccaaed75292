"""Past decisions under another configuration."""

from __future__ import annotations

import msgspec
import pytest

from gatepost.config.schema import Config, Domain, Relay, RelayCertificate, RelayRule
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.record import FactRecord, RecordedRecipient, hash_address
from gatepost.policy.replay import Replay

KEY = b"k" * 32
OLD = Config(
    hostname="mx.example.net",
    listen=["192.0.2.5:25"],
    spool="/var/spool/gatepost",
    domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna", "bob"])},
    relay=Relay(networks=["10.0.0.0/8"]),
)


def recorded(client: str, sender: str, *recipients: str, key: bytes = b"") -> FactRecord:
    """What a receiver under OLD would have recorded."""
    engine = Engine(OLD)
    facts = engine.facts_of(client, "192.0.2.5", "S")
    facts.reverse_path = sender
    found = []
    for text in recipients:
        local, _, domain = text.rpartition("@")
        verdict = engine.decide_rcpt(facts, Address(text, local, domain))
        hop = verdict.route.next_hop if verdict.route is not None else ""
        kept = hash_address(text, key) if key else text
        found.append(
            RecordedRecipient(kept, verdict.code, verdict.detail, verdict.text, verdict.check, hop, verdict.permit)
        )
    return FactRecord("S", "", 1000.0, client, "192.0.2.5", "h", reverse_path=sender, recipients=found, has_mail=True)


TRAFFIC = [
    recorded("10.0.0.1", "x@example.net", "a@else.example", "b@other.example"),
    recorded("8.8.8.8", "x@else.example", "anna@example.net", "eve@example.net", "x@else.example", "a%b@example.net"),
]


def changes(config: Config, records: list[FactRecord], key: bytes = b"") -> list[tuple[str, int]]:
    return [(change.kind, change.count) for change in Replay(config, key).compare(records).changes]


def test_the_same_configuration_changes_nothing() -> None:
    difference = Replay(OLD).compare(TRAFFIC)
    assert (difference.transactions, difference.recipients, difference.changes) == (2, 6, [])
    assert difference.lines()[-1] == "nothing would change"


def test_new_rules() -> None:
    narrow = msgspec.structs.replace(
        OLD, relay=Relay(rules=[RelayRule(name="r", networks=["10.0.0.0/8"], domains=["else.example"])])
    )
    assert changes(narrow, TRAFFIC) == [("newly refused", 1)]
    routed = msgspec.structs.replace(OLD, relay=Relay(networks=["10.0.0.0/8"], next_hop=["smtp://10.0.0.9:25"]))
    assert changes(routed, TRAFFIC) == [("re-routed", 1), ("re-routed", 1)]
    wider = msgspec.structs.replace(
        OLD, domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna", "bob", "eve"])}
    )
    difference = Replay(wider).compare(TRAFFIC)
    assert [(change.kind, change.count) for change in difference.changes] == [("newly accepted", 1)]
    assert difference.changes[0].examples == ["S 8.8.8.8 <x@else.example> -> <eve@example.net>"]
    assert "would be: accepted (recipient-domain)" in "\n".join(difference.lines())


def test_hashed_addresses_decide_alike() -> None:
    record = recorded(
        "8.8.8.8",
        "x@else.example",
        "Anna@example.net",
        "eve@example.net",
        "a%b@example.net",
        "postmaster@example.net",
        key=KEY,
    )
    assert all("anna" not in one.address.lower() for one in record.recipients)
    assert changes(OLD, [record], KEY) == []
    without = msgspec.structs.replace(
        OLD, domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["bob"])}
    )
    assert changes(without, [record], KEY) == [("newly refused", 1)]


def test_what_was_put_off_is_not_compared() -> None:
    record = recorded("10.0.0.1", "", "a@else.example")
    record.recipients[0].code = 451
    difference = Replay(OLD).compare([record])
    assert (difference.undecided, difference.changes) == (1, [])


CERTIFIED = msgspec.structs.replace(
    OLD,
    relay=Relay(certificates=[RelayCertificate(ca_file="/ca.pem", names=["mx.partner.example", "*.branch.example"])]),
)


@pytest.mark.parametrize(
    ("shown", "permit"),
    [
        ("mx.partner.example", ""),
        ("a.branch.example", ""),
        ("its common name", "certificate mx.partner.example"),
    ],
)
def test_the_right_of_a_certificate_is_had_again(shown: str, permit: str) -> None:
    accepted = RecordedRecipient("x@else.example", next_hop="mx:else.example", permit=permit or f"certificate {shown}")
    record = FactRecord("S", "", 1000.0, "8.8.8.8", certificate=shown, recipients=[accepted], has_mail=True)
    assert changes(CERTIFIED, [record]) == []
    assert changes(OLD, [record]) == [("newly refused", 1)]


def test_the_right_of_a_listed_fingerprint_is_had_again() -> None:
    listed = Relay(certificates=[RelayCertificate(ca_file="/ca.pem", fingerprints=["ab" * 32])])
    accepted = RecordedRecipient("x@else.example", next_hop="mx:else.example", permit=f"certificate sha256:{'ab' * 32}")
    record = FactRecord("S", "", 1000.0, "8.8.8.8", certificate="x", recipients=[accepted], has_mail=True)
    assert changes(msgspec.structs.replace(OLD, relay=listed), [record]) == []
    assert changes(CERTIFIED, [record]) == [("newly refused", 1)]


def test_another_certificate_has_no_right() -> None:
    refused = RecordedRecipient("x@else.example", 550, "7.1", "no")
    record = FactRecord("S", "", 1000.0, "8.8.8.8", certificate="mx.evil.example", recipients=[refused], has_mail=True)
    assert changes(CERTIFIED, [record]) == []


@pytest.mark.parametrize("by_lmtp", [True, False])
def test_a_user_of_the_host_who_came_by_lmtp_had_no_right(by_lmtp: bool) -> None:
    refused = RecordedRecipient("x@else.example", 550, "7.1", "no")
    record = FactRecord(
        "S", "", 1000.0, "local/root", identity="uid:root", recipients=[refused], has_mail=True, by_lmtp=by_lmtp
    )
    assert changes(OLD, [record]) == ([] if by_lmtp else [("newly accepted", 1)])
