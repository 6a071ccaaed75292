"""The relay proof: what it refutes it shows as a session, and it agrees with the engine whatever the rules are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.neighbours import Neighbours, findings_of, read_neighbours
from gatepost.config.relayvalues import end_of_day_s
from gatepost.config.schema import Config, Domain, Relay, RelayRule
from gatepost.policy.engine import Engine
from gatepost.policy.proof import Specification, decide, prove
from gatepost.policy.rulereview import review_rules
from gatepost.policy.sessions import sessions_of, targets_of
from gatepost.policy.verdict import Verdict
from gatepost.routing.router import Route
from gatepost.smtp.command import PathCommand, parse_rcpt

NOW_S = end_of_day_s("2026-06-30") - 3600.0


def config_with(*rules: RelayRule, networks: tuple[str, ...] = ()) -> Config:
    return Config(
        hostname="mx.example.net",
        listen=["192.0.2.5:25"],
        spool="/var/spool/gatepost",
        domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"])},
        relay=Relay(networks=list(networks), rules=list(rules)),
    )


def test_an_ordinary_policy_is_proved() -> None:
    proof = prove(config_with(RelayRule(name="r", identities=["anna"]), networks=("10.0.0.0/8",)), NOW_S)
    assert proof.holds and proof.is_whole
    assert proof.sessions > 1000 and proof.relayed > 0
    assert "not about the network" in "\n".join(proof.lines())


@pytest.mark.parametrize(
    ("rule", "sender"),
    [
        (RelayRule(name="own-domain", reverse_paths=["@example.net"]), "someone@example.net"),
        (RelayRule(name="null", reverse_paths=["<>"]), ""),
        (RelayRule(name="everybody", anyone=True), ""),
    ],
)
def test_a_rule_that_asks_for_an_open_relay_is_refuted_with_its_session(rule: RelayRule, sender: str) -> None:
    proof = prove(config_with(rule), NOW_S)
    assert not proof.holds
    example = proof.counterexamples[0]
    assert example.rule == rule.name
    assert f"C: MAIL FROM:<{sender}>" in example.conversation
    assert "C: RCPT TO:<user@elsewhere.example>" in example.conversation
    assert "S: 250 2.1.5 Recipient ok" in example.conversation


def test_the_world_in_pieces_is_refuted() -> None:
    proof = prove(config_with(RelayRule(name="w", networks=[f"{first}.0.0.0/8" for first in range(1, 20)])), NOW_S)
    assert not proof.holds
    assert "   (a client connects from 8.8.8.8)" in proof.counterexamples[0].conversation


class _Leaky(Engine):
    """An engine with the classic hole: a sender of ours may relay."""

    def decide_rcpt(self, facts, address):  # type: ignore[no-untyped-def]
        verdict = super().decide_rcpt(facts, address)
        route = self._router.resolve(address)
        if facts.reverse_path.endswith("@example.net") and isinstance(route, Route):
            return Verdict(0, "", "", route)
        return verdict


def test_a_hole_in_the_engine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(RelayRule(name="r", networks=["10.0.0.0/8"], reverse_paths=["@example.net"]))
    assert prove(config, NOW_S).holds
    monkeypatch.setattr("gatepost.policy.proof.Engine", lambda config, **_: _Leaky(config))
    assert not prove(config, NOW_S).holds


def test_every_odd_form_that_the_parser_lets_through_is_among_the_targets() -> None:
    config = config_with()
    tried = {(target.address.local, target.address.domain.lower().rstrip(".")) for target in targets_of(config)}
    for path in ("user%elsewhere.example@example.net", "elsewhere.example!user@example.net", "@example.net:user@elsewhere.example",
                 '"user@elsewhere.example"@example.net', "user@[203.0.113.9]", "Postmaster", "user@EXAMPLE.net."):  # fmt: skip
        command = parse_rcpt(b"RCPT TO:<" + path.encode() + b">", {}, 0)
        if isinstance(command, PathCommand):
            assert command.path is not None
            assert (command.path.local.lower(), command.path.domain.rstrip(".")) in {
                (a.lower(), b) for a, b in tried
            }, path


# --- whatever rules there are -----------------------------------------------------------------------------------------

RULE = st.builds(
    lambda **values: values,
    networks=st.lists(
        st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"]), max_size=2, unique=True
    ),
    identities=st.lists(st.sampled_from(["anna", "*"]), max_size=1),
    certificates=st.lists(st.sampled_from(["host", "*"]), max_size=1),
    anyone=st.booleans(),
    reverse_paths=st.lists(st.sampled_from(["<>", "a@example.net", "@example.net", "@.example"]), max_size=1),
    domains=st.lists(st.sampled_from(["ours", "else.example", ".example", "example.net"]), max_size=2, unique=True),
    expires=st.sampled_from(["", "2026-06-30", "2020-01-01"]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(RULE, max_size=3), st.sampled_from([(), ("10.0.0.0/8",)]))
def test_the_proof_agrees_with_the_engine_on_every_session(
    drawn: list[dict[str, object]], networks: tuple[str, ...]
) -> None:
    rules = [RelayRule(name=f"r{index}", **values) for index, values in enumerate(drawn)]  # type: ignore[arg-type]
    config = config_with(*rules, networks=networks)
    engine, specification = Engine(config), Specification(config, NOW_S)
    sessions, _ = sessions_of(config)
    for index, session in enumerate(sessions):
        if index % 7:  # every seventh: all forms and classes come over the examples
            continue
        verdict = decide(engine, session, NOW_S)
        assert specification.fault(session, verdict) == "", session
        if verdict.code == 550 and verdict.check == "relay" and "route" not in verdict.text:
            assert not specification.has_right(session), session


@settings(max_examples=8, deadline=None)
@given(st.lists(RULE, max_size=2))
def test_rules_without_a_right_are_what_is_refuted(drawn: list[dict[str, object]]) -> None:
    rules = [RelayRule(name=f"r{index}", **values) for index, values in enumerate(drawn)]  # type: ignore[arg-type]
    refuted = {example.rule for example in prove(config_with(*rules), NOW_S).counterexamples}
    assert refuted <= {r.name for r in rules if not (r.networks or r.identities or r.certificates)}


# --- hints --------------------------------------------------------------------------------------------------------------


def test_rules_that_do_nothing_are_told() -> None:
    rules = (
        RelayRule(name="old", networks=["10.0.0.0/8"], expires="2020-01-01"),
        RelayRule(name="wide", networks=["10.0.0.0/8"]),
        RelayRule(name="hidden", networks=["10.1.0.0/16"], reverse_paths=["@a.example"], domains=["else.example"]),
        RelayRule(name="seen", networks=["10.1.0.0/16"], domains=["ours"]),
    )
    told = {finding.key: finding.problem for finding in review_rules(config_with(*rules), NOW_S)}
    assert set(told) == {'relay.rules "old"', 'relay.rules "hidden"'}
    assert '"wide"' in told['relay.rules "hidden"']


def test_gateways_and_bridges_are_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    (tmp_path / "fib_trie").write_text("           |-- 10.0.0.7\n              /32 host LOCAL\n")
    neighbours = read_neighbours(str(tmp_path))
    assert neighbours == Neighbours(["10.0.0.1"], {"docker0": "172.17.0.0/16"}, ["10.0.0.7"])
    assert neighbours.kind_of("172.17.0.1") == "the container bridge docker0"
    assert neighbours.kind_of("10.0.0.1") and neighbours.kind_of("10.0.0.7") and not neighbours.kind_of("10.0.0.9")
    problems = "\n".join(map(str, findings_of(config_with(networks=("10.0.0.0/24", "172.16.0.0/12")), neighbours)))
    assert "10.0.0.1, the default gateway" in problems and "docker0" in problems
    owned = RelayRule(name="r", networks=["10.0.0.0/24"], owner="Anna", expect_many=True)
    assert findings_of(config_with(owned), neighbours) == []
    assert read_neighbours(str(tmp_path / "none")) == Neighbours()
