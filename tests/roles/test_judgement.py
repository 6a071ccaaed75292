"""What a receiver adds to the engine's verdict, and what it records of a session."""

from __future__ import annotations

from typing import Any

from gatepost.config.schema import Config, Domain, FactsKept, Policy, Relay, RelayRule
from gatepost.model import Address, TlsPeer
from gatepost.policy.engine import Engine, Facts
from gatepost.policy.record import FactRecord, decode_records, hash_address
from gatepost.roles.judgement import Judgement

RULES = [
    RelayRule(name="few", networks=["192.0.2.0/24"], max_per_hour=2),
    RelayRule(name="office", networks=["203.0.113.0/24"], owner="Anna", expect_many=True),
    RelayRule(name="trial", networks=["198.51.100.0/24"], mode="shadow"),
]
_POLICY = Policy()
_FACTS = FactsKept()


class Bed:
    """A Judgement with its surroundings."""

    def __init__(self, policy: Policy = _POLICY, facts: FactsKept = _FACTS, key: bytes = b"") -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.records: list[FactRecord] = []
        config = Config(
            hostname="mx.example.net",
            listen=["192.0.2.5:25"],
            spool="/var/spool/gatepost",
            domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna"])},
            relay=Relay(networks=["10.0.0.0/8"], rules=RULES),
            policy=policy,
            facts=facts,
        )
        self.engine = Engine(config)
        self.judgement = Judgement(
            config,
            self.engine,
            event=lambda name, **fields: self.events.append((name, fields)),
            send=lambda data: self.records.extend(decode_records(data)),
            now_s=lambda: 1000.0,
            key=key,
        )

    def session(self, client: str, sender: str, *recipients: str, helo: str = "pc") -> tuple[Facts, list[int]]:
        facts = self.engine.facts_of(client, "192.0.2.5", "S1")
        facts.helo = helo
        return facts, self.mail(facts, sender, *recipients)

    def mail(self, facts: Facts, sender: str, *recipients: str) -> list[int]:
        self.judgement.begin_mail(facts, sender)
        codes = []
        for text in recipients:
            local, _, domain = text.rpartition("@")
            codes.append(self.judgement.decide_rcpt(facts, Address(text, local, domain)).code)
        return codes

    def kept(self) -> list[FactRecord]:
        self.judgement.flush()
        return self.records


def test_rates_and_expected_crowds() -> None:
    bed = Bed()
    assert bed.session("192.0.2.1", "a@x.example", "a@b.example", "b@b.example", "c@b.example")[1] == [0, 0, 450]
    for number in range(30):
        assert bed.session("203.0.113.1", f"a@s{number}.example", "a@b.example", helo=f"h{number}")[1] == [0]
    assert not [name for name, _ in bed.events if name == "trust_suspended"]


def test_the_guard_suspends_relaying_and_nothing_else() -> None:
    bed = Bed()
    codes = [bed.session("10.0.0.1", f"a@s{n}.example", "a@b.example", helo=f"h{n}")[1][0] for n in range(12)]
    assert codes == [0] * 9 + [450] * 3
    ((_, told),) = [event for event in bed.events if event[0] == "trust_suspended"]
    assert told["address"] == "10.0.0.1" and "expect_many" in told["advice"]
    assert bed.session("10.0.0.1", "a@s1.example", "anna@example.net")[1] == [0]
    assert bed.session("10.0.0.2", "a@s1.example", "a@b.example")[1] == [0]


def test_shadow_tells_and_changes_nothing() -> None:
    bed = Bed(Policy(checks={"masquerade": "shadow", "relay-rate": "off"}))
    codes = [bed.session("10.0.0.1", f"a@s{n}.example", "a@b.example", helo=f"h{n}")[1][0] for n in range(12)]
    assert codes == [0] * 12
    assert [fields["check"] for name, fields in bed.events if name == "shadow"] == ["masquerade"] * 3
    assert bed.session("192.0.2.1", "", "a@b.example", "b@b.example", "c@b.example")[1] == [0, 0, 0]
    bed.events.clear()
    assert bed.session("198.51.100.1", "", "a@b.example")[1] == [550]
    assert [fields["rule"] for name, fields in bed.events if name == "shadow"] == ["trial"]


def test_records() -> None:
    bed = Bed()
    facts, _ = bed.session("10.0.0.1", "me@example.net", "a@b.example", "bob@example.net")
    bed.judgement.end_mail(facts, "M1", 4096)
    bed.mail(facts, "", "anna@example.net")  # given up by the client
    bed.mail(facts, "x@y.example")
    bed.judgement.end_session(facts)
    silent = bed.engine.facts_of("198.51.100.9", "192.0.2.5", "S2")
    bed.judgement.note_fault(silent, "500 5.5.1 Unknown command")
    bed.judgement.end_session(silent)
    first, second, third, fourth = bed.kept()
    assert (first.session, first.id, first.client, first.helo, first.size_bytes) == ("S1", "M1", "10.0.0.1", "pc", 4096)
    assert [(one.address, one.code, one.next_hop, one.check) for one in first.recipients] == [
        ("a@b.example", 0, "mx:b.example", ""),
        ("bob@example.net", 550, "", "recipient"),
    ]
    assert (second.reverse_path, second.id, second.has_mail) == ("", "", True)
    assert (third.reverse_path, third.recipients) == ("x@y.example", [])
    assert (fourth.session, fourth.fault, fourth.has_mail) == ("S2", "500 5.5.1 Unknown command", False)


def test_hashed_addresses() -> None:
    key = b"k" * 32
    bed = Bed(facts=FactsKept(hash_addresses=True), key=key)
    facts, _ = bed.session(
        "10.0.0.1", "me@example.net", "Anna@example.net", "a%b@example.net", "postmaster@example.net"
    )
    bed.judgement.end_mail(facts, "M1", 1)
    (record,) = bed.kept()
    assert record.reverse_path == hash_address("me@example.net", key) != "me@example.net"
    texts = [one.address for one in record.recipients]
    assert texts[0] == hash_address("anna@example.net", key) and texts[0].endswith("@example.net")
    assert texts[1].startswith("h%") and texts[2] == "postmaster@example.net"


def test_nothing_is_recorded_without_room() -> None:
    bed = Bed(facts=FactsKept(keep_bytes=0))
    facts, _ = bed.session("10.0.0.1", "me@example.net", "a@b.example")
    bed.judgement.end_mail(facts, "M1", 4096)
    bed.judgement.end_session(facts)
    assert bed.kept() == [] and facts.record is None


def test_tls_is_recorded_and_no_address_of_a_certificate_where_addresses_are_hashed() -> None:
    peer = TlsPeer(256, True, True, "anna@example.net", "/CN=anna@example.net", "/CN=ca")
    for bed, kept in (
        (Bed(), peer),
        (Bed(facts=FactsKept(hash_addresses=True), key=b"k" * 16), TlsPeer(256, True, True, "", "", "/CN=ca")),
    ):
        facts = bed.engine.facts_of("198.51.100.9", "192.0.2.5", "S1")
        facts.tls = peer
        bed.mail(facts, "a@else.example", "anna@example.net")
        bed.judgement.end_mail(facts)
        assert [record.tls for record in bed.kept()] == [kept]
