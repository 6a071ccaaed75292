"""Rewriting and rights: what is rewritten is decided afterwards, and a signed return address is for bounces alone."""

from __future__ import annotations

import msgspec
import pytest

from gatepost.config.schema import Config, Domain, Relay, RelayRule, Rewrite, RewriteRule, Srs
from gatepost.config.tables import LoadedConfig, TableData, table_key
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts
from gatepost.policy.proof import prove
from gatepost.policy.rewriting import REVERSE_PATH, RewriteFailed, Rewriting
from gatepost.policy.verdict import Verdict

NOW_S = 1_800_000_000.0
STRANGER, OWN = "198.51.100.1", "10.1.2.3"
SECRET = b"a secret of sixteen octets or more"
PLAIN = Config(
    hostname="mx.ours.test",
    listen=["192.0.2.5:25"],
    spool="/var/spool/gatepost",
    domains={
        "ours.test": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna"]),
        "srs.test": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=[]),
    },
    relay=Relay(
        networks=["10.0.0.0/8"],
        rules=[RelayRule(name="partner", networks=["192.0.2.0/24"], domains=["partner.test"])],
    ),
)


def with_rules(
    *rules: RewriteRule, tables: dict[str, dict[str, str]] | None = None, srs: bool = False, **keys
) -> Config:
    data = {
        table_key("rewrite", f"inline:{name}"): TableData("inline", name, entries)
        for name, entries in (tables or {}).items()
    }
    rewrite = Rewrite(rules=list(rules), srs=Srs(domain="srs.test", secrets_file="/s") if srs else Srs(), **keys)
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__}
    return LoadedConfig(**(fields | {"rewrite": rewrite}), tables=data)


def address_of(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(text, local, domain)


def ask(engine: Engine, text: str, client: str = STRANGER, reverse_path: str = "x@elsewhere.test") -> Verdict:
    facts = engine.facts_of(client, "192.0.2.5")
    facts.reverse_path, facts.now_s = reverse_path, NOW_S
    return engine.decide_rcpt(facts, address_of(text))


def facts_for(client: str, **changes: object) -> Facts:
    return msgspec.structs.replace(Engine(PLAIN).facts_of(client), **changes)


INBOUND = RewriteRule(name="in", directions=["inbound", "outbound"], parts=["forward-path"], tables=["inline:t"])
TABLE = {
    "old@ours.test": "anna@ours.test",
    "@former.test": "@ours.test",
    "away@ours.test": "someone@elsewhere.test",
    "broken@ours.test": "two@@ats@ours.test",
}


def test_the_rewritten_address_is_what_is_decided() -> None:
    engine = Engine(with_rules(INBOUND, tables={"t": TABLE}))
    taken = ask(engine, "old@ours.test")
    assert taken.accepted and taken.route is not None and taken.route.address == "anna@ours.test"
    assert [change.rule for change in taken.rewritten] == ["in"]
    moved = ask(engine, "Anna@former.test")
    assert moved.accepted and moved.route is not None and moved.route.address == "Anna@ours.test"
    assert ask(engine, "gone@former.test").status == "5.1.1"
    assert ask(engine, "anna@ours.test").rewritten == ()
    assert ask(engine, "away@ours.test").status == "5.7.1"  # rewriting is no right to relay
    assert ask(engine, "away@ours.test", OWN).permit == "network 10.0.0.0/8"
    assert ask(engine, "old%x@ours.test").status == "5.7.1"


def test_an_address_that_cannot_be_defers_and_says_why() -> None:
    verdict = ask(Engine(with_rules(INBOUND, tables={"t": TABLE})), "broken@ours.test")
    assert (verdict.code, verdict.status, verdict.route) == (451, "4.3.0", None)
    assert "two@@ats@ours.test" in verdict.cause and "ats" not in verdict.text
    missing = ask(Engine(with_rules(INBOUND)), "old@ours.test")  # the table is not there
    assert missing.status == "4.3.0" and "not there" in missing.cause


def test_who_is_outbound() -> None:
    rewriting = Rewriting(with_rules(INBOUND))
    assert rewriting.is_outbound(facts_for(OWN)) and rewriting.is_outbound(facts_for("192.0.2.9"))
    assert rewriting.is_outbound(facts_for(STRANGER, identity="anna"))
    assert not rewriting.is_outbound(facts_for(STRANGER))
    assert not rewriting.is_outbound(facts_for(STRANGER, certificate="anybody"))


def test_an_invalid_reverse_path_is_never_sent() -> None:
    rule = RewriteRule(name="out", tables=["inline:t"])
    rewriting = Rewriting(
        with_rules(rule, tables={"t": {"a@ours.test": "b" * 65 + "@ours.test", "c@ours.test": "\u00e4@ours.test"}})
    )
    for text in ("a@ours.test", "c@ours.test"):
        with pytest.raises(RewriteFailed):
            rewriting.path(REVERSE_PATH, facts_for(OWN), address_of(text))


def test_header_dkim_and_received() -> None:
    rule = RewriteRule(name="mask", domains=["in.test"], to_domain="ours.test", mode="enforce")
    shadow = RewriteRule(name="later", domains=["ours.test"], to_domain="x.test", mode="shadow")
    rewriting = Rewriting(with_rules(rule, shadow, hide_received=["10.0.0.0/8"]))
    header = (
        b"Received: from pc ([10.0.0.3]) by x; Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: a@in.test\r\n"
        b"DKIM-Signature: v=1; d=in.test; h=from:received; b=x\r\nTo: ..@in.test, b@in.test\r\n"
    )
    done = rewriting.header(facts_for(OWN), header)
    assert b"From: a@ours.test\r\n" in done.header and b"To: ..@in.test, b@ours.test\r\n" in done.header
    assert done.hidden == 1 and b"10.0.0.3" not in done.header
    assert done.broken == [("in.test", ["from", "received"])]
    assert [change.rule for change in done.changes] == ["mask", "mask"] and {one.rule for one in done.shadows} == {
        "later"
    }
    inbound = rewriting.header(facts_for(STRANGER), header)
    assert inbound.header == header and not inbound.hidden
    assert rewriting.touches_header(facts_for(OWN)) and not rewriting.touches_header(facts_for(STRANGER))


SRS_CONFIG = with_rules(srs=True)


def test_only_forwarded_mail_gets_a_return_address() -> None:
    rewriting = Rewriting(SRS_CONFIG, [SECRET])
    assert rewriting.forwarded("x@a.test", ["ours.test", "b.test"], NOW_S).endswith("@srs.test")
    for path, domains in (
        ("", ["b.test"]),
        ("x@a.test", ["ours.test"]),
        ("anna@ours.test", ["b.test"]),
        ("SRS0=a=b=c=d@srs.test", ["b.test"]),
    ):
        assert rewriting.forwarded(path, domains, NOW_S) == path


def test_a_return_address_is_a_right_for_bounces_to_one_address_only() -> None:
    engine = Engine(SRS_CONFIG)
    engine.rewriting = rewriting = Rewriting(SRS_CONFIG, [SECRET])
    signed = rewriting.forwarded("user@victim.test", ["b.test"], NOW_S)
    taken = ask(engine, signed, reverse_path="")
    assert taken.accepted and taken.permit == "srs srs.test"
    assert taken.route is not None and (taken.route.next_hop, taken.route.address) == (
        "mx:victim.test",
        "user@victim.test",
    )
    refused = ask(engine, signed)
    assert refused.status == "5.7.1" and refused.check == "srs"
    assert ask(engine, signed, OWN).status == "5.7.1"  # nobody writes to it
    for forged in (signed.replace("victim", "other"), "SRS0=AAAAAA=AA=victim.test=user@srs.test"):
        assert ask(engine, forged, reverse_path="").status == "5.1.1"
    assert not ask(Engine(SRS_CONFIG), signed, reverse_path="").accepted  # without the secret
    hacked = rewriting.forwarded("user%third.test@victim.test", ["b.test"], NOW_S)
    assert ask(engine, hacked, reverse_path="").status == "5.7.1"


def test_the_proof_knows_rewriting_and_return_addresses() -> None:
    config = with_rules(INBOUND, srs=True, tables={"t": TABLE})
    proof = prove(config, NOW_S)
    assert proof.holds and proof.relayed


def test_the_proof_refutes_an_engine_that_turns_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Rewriting, address: Address, now_s: float) -> Address:
        return address_of("user@elsewhere.example")

    monkeypatch.setattr(Rewriting, "original", careless)
    proof = prove(with_rules(srs=True), NOW_S)
    assert any("without our signature" in example.reason for example in proof.counterexamples)


def test_nothing_is_there_if_nothing_is_configured() -> None:
    assert Engine(PLAIN).rewriting is None
    assert Engine(with_rules(RewriteRule(name="a", tables=["inline:t"], mode="off"))).rewriting is None
