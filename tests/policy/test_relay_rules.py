"""Relay rules: which of them holds, against a plain reading of the same rules; and what they can never do."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.relayvalues import end_of_day_s
from gatepost.config.schema import Config, Domain, Relay, RelayRule
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.relayrules import RelayRules, number_of
from gatepost.policy.verdict import Verdict

STRANGER = "198.51.100.1"
NOW_S = end_of_day_s("2026-06-30") - 3600.0


def config_with(*rules: RelayRule, networks: tuple[str, ...] = ()) -> Config:
    return Config(
        hostname="mx.example.net",
        listen=["192.0.2.5:25"],
        spool="/var/spool/gatepost",
        domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"]), "sub.every.test": Domain(next_hop=["mx"])},
        relay=Relay(networks=list(networks), rules=list(rules)),
    )


def ask(
    config: Config,
    to: str,
    client: str,
    *,
    sender: str = "",
    identity: str = "",
    certificate: str = "",
    now_s: float = NOW_S,
) -> Verdict:
    engine = Engine(config)
    facts = engine.facts_of(client, "192.0.2.5")
    facts.identity, facts.certificate, facts.reverse_path, facts.now_s = identity, certificate, sender, now_s
    local, _, domain = to.rpartition("@")
    return engine.decide_rcpt(facts, Address(to, local, domain))


def test_a_rule_routes_certain_mail_from_certain_servers() -> None:
    rule = RelayRule(
        name="bulk", networks=["10.1.0.0/16"], reverse_paths=["@news.example.net"], next_hop=["smtp://10.0.0.9:25"]
    )
    config = config_with(rule, networks=("10.0.0.0/8",))
    verdict = ask(config, "x@else.example", "10.1.2.3", sender="List@News.example.net")
    assert verdict.route is not None and verdict.route.next_hop == "smtp://10.0.0.9:25"
    assert (verdict.permit, verdict.rule) == ("rule bulk (network 10.1.0.0/16)", "bulk")
    ordinary = ask(config, "x@else.example", "10.1.2.3", sender="me@example.net")
    assert ordinary.route is not None and ordinary.route.next_hop == "mx:else.example"
    assert ordinary.permit == "network 10.0.0.0/8"
    ours = ask(config, "x@example.net", "10.1.2.3", sender="list@news.example.net")
    assert ours.route is not None and ours.route.next_hop == "smtp://10.0.0.5:25"  # ours only where a rule says so
    assert ask(config, "x@else.example", STRANGER, sender="list@news.example.net").code == 550


@pytest.mark.parametrize(
    "rule",
    [
        RelayRule(name="sender", reverse_paths=["@example.net"]),
        RelayRule(name="all", anyone=True),
        RelayRule(name="all", anyone=True, domains=["else.example"]),
        RelayRule(name="ours", anyone=True, domains=["ours"]),
    ],
)
def test_what_everybody_can_say_is_no_right(rule: RelayRule) -> None:
    config = config_with(rule)
    assert ask(config, "x@else.example", STRANGER, sender="me@example.net").code == 550
    assert ask(config, "x@example.net", STRANGER, sender="me@example.net").accepted


def test_identity_certificate_and_network_must_all_hold() -> None:
    rule = RelayRule(name="r", networks=["10.0.0.0/8"], identities=["anna"], certificates=["*"])
    config = config_with(rule)
    good = ask(config, "x@else.example", "10.0.0.1", identity="anna", certificate="host")
    assert good.permit == "rule r (identity anna)"
    assert ask(config, "x@else.example", "11.0.0.1", identity="anna", certificate="host").code == 550
    assert ask(config, "x@else.example", "10.0.0.1", identity="bob", certificate="host").code == 550
    assert ask(config, "x@else.example", "10.0.0.1", identity="anna").code == 550


def test_a_rule_ends_with_its_day() -> None:
    config = config_with(RelayRule(name="r", networks=["10.0.0.0/8"], expires="2026-06-30"))
    assert ask(config, "x@else.example", "10.0.0.1").accepted
    assert ask(config, "x@else.example", "10.0.0.1", now_s=end_of_day_s("2026-06-30")).code == 550
    assert ask(config, "x@else.example", "10.0.0.1", now_s=0.0).code == 550  # the time is not known


def test_shadow_and_off() -> None:
    rule = RelayRule(name="r", networks=["10.0.0.0/8"], mode="shadow")
    engine = Engine(config_with(rule))
    facts = engine.facts_of("10.0.0.1", "192.0.2.5")
    facts.now_s = NOW_S
    assert engine.decide_rcpt(facts, Address("x@else.example", "x", "else.example")).code == 550
    assert [(shadow.rule, shadow.accepted) for shadow in facts.shadows or ()] == [("r", True)]
    off = config_with(msgspec.structs.replace(rule, mode="off"))
    assert ask(off, "x@else.example", "10.0.0.1").code == 550


# --- against a plain reading ------------------------------------------------------------------------------------------

networks = st.lists(
    st.tuples(st.sampled_from([8, 9, 12, 16, 24, 31, 32]), st.sampled_from(["10.0.0.0", "10.128.0.0", "10.1.2.3"])).map(
        lambda pair: str(ipaddress.ip_network(f"{pair[1]}/{pair[0]}", strict=False))
    ),
    max_size=3,
)
RULE = st.builds(
    lambda **values: values,
    networks=networks,
    identities=st.lists(st.sampled_from(["anna", "bob", "*"]), max_size=2),
    certificates=st.lists(st.sampled_from(["host", "*"]), max_size=1),
    reverse_paths=st.lists(st.sampled_from(["<>", "a@x.example", "@x.example", "@.example"]), max_size=2),
    domains=st.lists(st.sampled_from(["ours", "else.example", ".example", "example.net", ".every.test"]), max_size=2),
    expires=st.sampled_from(["", "", "2026-06-30", "2020-01-01"]),
)


def rules_of(drawn: list[dict[str, object]]) -> list[RelayRule]:
    return [RelayRule(name=f"r{index}", **values) for index, values in enumerate(drawn)]  # type: ignore[arg-type]


def reads(rule: RelayRule, client: str, identity: str, certificate: str, path: str, domain: str, ours: bool) -> bool:
    """What the words of the rule say, without index and without haste."""
    address = ipaddress.ip_address(client)
    is_right = bool(rule.networks or rule.identities or rule.certificates)
    place = path.lower().rpartition("@")[2]
    return all(
        (
            not rule.networks or any(address in ipaddress.ip_network(text) for text in rule.networks),
            not rule.identities or (identity != "" and ("*" in rule.identities or identity in rule.identities)),
            not rule.certificates
            or (certificate != "" and ("*" in rule.certificates or certificate in rule.certificates)),
            is_right or ours,
            not rule.reverse_paths
            or any(
                pattern == (path.lower() or "<>")
                or (path != "" and pattern == "@" + place)
                or (pattern.startswith("@.") and place.endswith(pattern[1:]))
                for pattern in rule.reverse_paths
            ),
            (not rule.domains and not ours)
            or any(
                (name == "ours" and ours) or name == domain or (name.startswith(".") and domain.endswith(name))
                for name in rule.domains
            ),
            not rule.expires or end_of_day_s(rule.expires) > NOW_S,
        )
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(RULE, max_size=6),
    st.sampled_from(
        ["10.0.0.0", "10.0.0.1", "10.1.2.3", "10.127.255.255", "10.128.0.0", "10.255.255.255", "11.0.0.0", STRANGER]
    ),
    st.sampled_from(["", "anna", "bob", "eve"]),
    st.sampled_from(["", "host", "other"]),
    st.sampled_from(["", "a@x.example", "A@X.Example", "b@x.example", "c@y.x.example", "d@example"]),
    st.sampled_from([("else.example", False), ("example.net", True), ("sub.every.test", True), ("every.test", False)]),
)
def test_the_first_rule_that_reads_so_is_found(
    drawn: list[dict[str, object]], client: str, identity: str, certificate: str, path: str, domain: tuple[str, bool]
) -> None:
    rules = rules_of(drawn)
    expected = next((r.name for r in rules if reads(r, client, identity, certificate, path, *domain)), None)
    found = RelayRules(rules).find(number_of(client), identity, certificate, path, *domain, NOW_S)
    assert (found.rule.name if found else None) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.lists(RULE, max_size=6),
    st.sampled_from(["", "a@x.example", "me@example.net"]),
    st.sampled_from(["else.example", "every.test", "x.example.net"]),
)
def test_whatever_the_rules_no_stranger_relays(drawn: list[dict[str, object]], path: str, domain: str) -> None:
    assert ask(config_with(*rules_of(drawn)), f"x@{domain}", STRANGER, sender=path).code == 550
