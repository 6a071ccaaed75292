"""Past sessions under another configuration: connection and MAIL, what paths become, rates and the guard."""

from __future__ import annotations

import msgspec
import pytest

from gatepost.config.schema import Config, Domain, Relay, RelayRule, Rewrite, RewriteRule, Srs
from gatepost.config.tables import LoadedConfig, TableData, table_key
from gatepost.policy.record import FORM, FactRecord, RecordedRecipient, hash_address
from gatepost.policy.replay import Difference, Replay

KEY = b"k" * 32
OLD = Config(
    hostname="mx.ours.test",
    listen=["192.0.2.5:25"],
    spool="/var/spool/gatepost",
    domains={"ours.test": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna", "bob"])},
    relay=Relay(networks=["10.0.0.0/8"]),
)
FACE = RewriteRule(name="face", domains=[".ours.test"], to_domain="ours.test", parts=["reverse-path", "forward-path"])


def with_(*rules: RewriteRule, access: str = "", srs: bool = False, **keys: object) -> LoadedConfig:
    fields = {name: getattr(OLD, name) for name in OLD.__struct_fields__} | keys
    fields["rewrite"] = Rewrite(rules=list(rules), srs=Srs(domain="ours.test", secrets_file="/s") if srs else Srs())
    tables = {}
    if access:
        fields["access"] = ["sendmail-access:a"]
        rows = dict(line.split(" ", 1) for line in access.splitlines())
        tables[table_key("access", "sendmail-access:a")] = TableData("sendmail-access", "a", rows)
    return LoadedConfig(**fields, tables=tables)


def mail(
    client: str, sender: str, *recipients: RecordedRecipient, time_s: float = 1000.0, **fields: object
) -> FactRecord:
    record = FactRecord("S", "", time_s, client, "192.0.2.5", "h", reverse_path=sender, has_mail=True, form=FORM)
    record.recipients = list(recipients)
    return msgspec.structs.replace(record, **fields)


def taken(
    address: str, next_hop: str = "mx:else.test", permit: str = "network 10.0.0.0/8", **fields: object
) -> RecordedRecipient:
    return RecordedRecipient(address, next_hop=next_hop, permit=permit, **fields)  # type: ignore[arg-type]


ANNA = RecordedRecipient("anna@ours.test", next_hop="smtp://10.0.0.5:25", permit="recipient-domain")


def compare(config: Config, *records: FactRecord, key: bytes = b"") -> Difference:
    return Replay(config, key).compare(records)


def changes(config: Config, *records: FactRecord, key: bytes = b"") -> list[tuple[str, str, str]]:
    return [(one.kind, one.before, one.after) for one in compare(config, *records, key=key).changes]


def test_paths_that_would_be_others() -> None:
    record = mail("10.0.0.1", "x@pc.ours.test", taken("y@else.test"))
    assert changes(OLD, record) == []
    assert changes(with_(FACE), record) == [
        ("re-written", "reverse-path <x@pc.ours.test>", "reverse-path <x@ours.test> (face)")
    ]
    rewritten = mail("10.0.0.1", "x@pc.ours.test", taken("y@else.test"), rewritten_path="x@ours.test")
    assert changes(with_(FACE), rewritten) == []
    assert changes(OLD, rewritten) == [("re-written", "reverse-path <x@ours.test>", "reverse-path <x@pc.ours.test>")]
    before = mail("10.0.0.1", "x@pc.ours.test", taken("y@else.test"), form=0)  # of a version that did not record it
    assert changes(with_(FACE), before) == []


def test_a_forward_path_that_would_be_another_goes_elsewhere_too() -> None:
    record = mail("10.0.0.1", "", taken("anna@pc.ours.test", "mx:pc.ours.test"))
    found = changes(with_(FACE), record)
    assert [kind for kind, _, _ in found] == ["re-routed", "re-written"]
    assert found[1][2] == "forward-path <anna@ours.test> (face)"


def test_forwarded_mail_by_srs() -> None:
    record = mail(
        "8.8.8.8", "x@a.test", taken("anna@ours.test", "mx:b.test", "recipient-domain", forward_path="x@b.test")
    )
    virtual = {"virtual": ["inline:v"]}
    config = with_(srs=True, **virtual)
    config.tables[table_key("virtual", "inline:v")] = TableData("inline", "v", {"anna@ours.test": "x@b.test"})
    assert changes(config, record) == [("re-written", "reverse-path <x@a.test>", "reverse-path <srs:ours.test> (srs)")]
    assert changes(config, msgspec.structs.replace(record, rewritten_path="srs:ours.test")) == []


def test_a_return_address_hangs_on_the_secret() -> None:
    record = mail(
        "8.8.8.8", "", taken("SRS0=AAAAAA=AA=a.test=x@ours.test", "mx:a.test", "srs ours.test", forward_path="x@a.test")
    )
    difference = compare(with_(srs=True), record)
    assert (difference.changes, difference.unknown) == ([], 1)
    assert [kind for kind, _, _ in changes(OLD, record)] == ["newly refused"]


def test_hashed_paths_are_rewritten_alike() -> None:
    sender = hash_address("x@pc.ours.test", KEY)
    record = mail(
        "10.0.0.1", sender, taken(hash_address("y@else.test", KEY)), rewritten_path=hash_address("x@ours.test", KEY)
    )
    assert changes(with_(FACE), record, key=KEY) == []
    assert [kind for kind, _, _ in changes(OLD, record, key=KEY)] == ["re-written"]


def test_connection_and_mail() -> None:
    plain = mail("8.8.8.8", "x@bad.test", ANNA)
    refuses = with_(access="connect:8.8.8 REJECT")
    assert [(kind, before) for kind, before, _ in changes(refuses, plain)] == [("newly refused", "connection accepted")]
    assert changes(with_(access="from:bad.test REJECT"), plain)[0][:2] == ("newly refused", "MAIL accepted")
    at_connect = FactRecord("S", "", 1.0, "8.8.8.8", refused="connect", fault="554 5.7.1 no")
    at_mail = mail("8.8.8.8", "x@bad.test", refused="mail", fault="550 5.7.1 no")
    assert [one[0] for one in changes(OLD, at_connect, at_mail)] == ["newly accepted", "newly accepted"]
    assert changes(refuses, at_connect) == [] and changes(with_(access="from:bad.test REJECT"), at_mail) == []
    later = FactRecord("S", "", 1.0, "8.8.8.8", refused="connect", fault="421 4.7.1 later")
    assert compare(OLD, later).undecided == 1


def test_rates_and_the_guard_are_told_and_are_no_change() -> None:
    rule = RelayRule(name="bulk", networks=["10.0.0.0/8"], max_per_hour=2)
    limited = with_(relay=Relay(rules=[rule]))
    permit = "rule bulk (network 10.0.0.0/8)"
    records = [mail("10.0.0.1", "", taken("y@else.test", permit=permit), time_s=1000.0 + n) for n in range(5)]
    difference = compare(limited, *records)
    assert difference.changes == []
    assert (
        difference.notes[0]
        == "not counted as a change: relay-rate would put off about 3 of these recipients (rule bulk)"
    )
    crowd = [mail("10.0.0.2", f"x@s{n}.test", taken("y@else.test"), time_s=1000.0 + n, helo=f"h{n}") for n in range(12)]
    notes = compare(OLD, *crowd).notes
    assert notes[0].startswith("not counted as a change: masquerade would put off about 3") and "10.0.0.2" in notes[0]
    assert compare(with_(policy=msgspec.structs.replace(OLD.policy, checks={"masquerade": "off"})), *crowd).notes == []
    put_off = mail("10.0.0.1", "", RecordedRecipient("y@else.test", 450, "7.1", "many", "relay-rate"))
    assert compare(OLD, put_off).notes[0] == "not compared: relay-rate put off 1 recipients then"


@pytest.mark.parametrize("table", ["virtual", "routes"])
def test_a_table_that_is_not_there_is_no_refusal(table: str) -> None:
    difference = compare(with_(**{table: ["inline:absent"]}), mail("8.8.8.8", "", ANNA))
    assert (difference.changes, difference.unknown) == ([], 1)
    assert "need tables that could not be asked" in difference.lines()[0]


def test_a_rewrite_that_fails_would_refuse() -> None:
    rule = RewriteRule(name="bad", tables=["inline:t"], parts=["reverse-path"])
    config = with_(rule)
    config.tables[table_key("rewrite", "inline:t")] = TableData("inline", "t", {"x@ours.test": "a@@b"})
    found = changes(config, mail("10.0.0.1", "x@ours.test", taken("y@else.test")))
    assert found[0][0] == "newly refused" and "a@@b" in found[0][2]
