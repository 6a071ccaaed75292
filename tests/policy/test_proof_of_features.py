"""The relay proof sees every feature that touches an address: each hole that is cut into the engine here it must show as a session.

And whatever configuration is made up of rewriting, SRS, users of this host, virtual addresses, aliases, routes, holds and pools, engine
and specification agree on every session.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.relayvalues import end_of_day_s
from gatepost.config.schema import (
    Config,
    Domain,
    Local,
    Pool,
    PoolMember,
    Relay,
    RelayRule,
    Rewrite,
    RewriteRule,
    Srs,
)
from gatepost.config.tables import LoadedConfig, TableData, table_key
from gatepost.mail.srs import Srs as SrsCodec
from gatepost.model import Address
from gatepost.policy import engine as engine_module
from gatepost.policy.engine import Engine
from gatepost.policy.localusers import LocalUsers
from gatepost.policy.proof import Proof, Specification, decide, prove
from gatepost.policy.relay import LocalUser
from gatepost.policy.relayrules import RelayRules
from gatepost.policy.rewriting import Rewriting
from gatepost.policy.sessions import bounces_of, sessions_of
from gatepost.routing.route import Route
from gatepost.routing.router import Router
from gatepost.routing.tables.lookups import Lookups

NOW_S = end_of_day_s("2026-06-30") - 3600.0
SECRET = b"a secret of sixteen octets or more"
AWAY = "someone@elsewhere.test"


def inline(use: str, entries: dict[str, str]) -> dict[str, TableData]:
    return {table_key(use, "inline:t"): TableData("inline", "t", entries)} if entries else {}


def config_with(
    *,
    rewrite: dict[str, str] | None = None,
    virtual: dict[str, str] | None = None,
    aliases: dict[str, str] | None = None,
    domaintable: dict[str, str] | None = None,
    routes: dict[str, str] | None = None,
    senders: dict[str, str] | None = None,
    rules: tuple[RelayRule, ...] = (),
    rewrite_rules: tuple[RewriteRule, ...] = (),
    srs: bool = False,
    local: Local | None = None,
    networks: tuple[str, ...] = ("10.0.0.0/8",),
    next_hop: str = "smtp://10.0.0.5:25",
) -> LoadedConfig:
    """A configuration as the roles have it."""
    uses = {
        "virtual": virtual, "aliases": aliases, "domaintable": domaintable, "routes": routes, "sender_routes": senders,
    }  # fmt: skip
    tables: dict[str, TableData] = inline("rewrite", rewrite or {})
    for use, entries in uses.items():
        tables |= inline(use, entries or {})
    if rewrite:
        both = ["inbound", "outbound"]
        rule = RewriteRule(name="map", directions=both, parts=["forward-path"], tables=["inline:t"])
        rewrite_rules = (*rewrite_rules, rule)
    return LoadedConfig(
        hostname="mx.example.net",
        listen=["192.0.2.5:25"],
        spool="/var/spool/gatepost",
        domains={
            "example.net": Domain(next_hop=[next_hop]),
            "srs.test": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=[]),
            ".lab.test": Domain(next_hop=["mx"]),
        },
        alias_domains=["example.net"] if aliases else [],
        detail_separator="+",
        pools={"inside": Pool(members=[PoolMember(next_hop="smtp://10.0.0.6:25")])},
        relay=Relay(networks=list(networks), rules=list(rules)),
        rewrite=Rewrite(rules=list(rewrite_rules), srs=Srs(domain="srs.test", secrets_file="/s") if srs else Srs()),
        local=local or Local(),
        tables=tables,
        **{use: ["inline:t"] for use, entries in uses.items() if entries},
    )


RULE = RelayRule(name="both", networks=["192.0.2.0/24"], identities=["anna"], domains=["partner.test"])
FULL = config_with(
    rewrite={"old@example.net": "anna@example.net", "away@example.net": AWAY},
    virtual={"team@example.net": "a@lists.test, b@example.net", "boss@example.net": "boss@partner.test"},
    aliases={"all": "x@far.test, root"},
    domaintable={"former.test": "example.net", "lost.test": "elsewhere.test"},
    senders={"elsewhere.example": "smtp://10.0.0.9:25"},
    rules=(
        RULE,
        RelayRule(name="over", networks=["203.0.113.0/24"], expires="2020-01-01"),
        RelayRule(name="job", identities=["uid:backup"], domains=["partner.test"]),
    ),
    srs=True,
    local=Local(socket="/run/s", users=["root", "backup"], groups=["mail"]),
)


def test_with_everything_configured_it_is_proved() -> None:
    proof = prove(FULL, NOW_S)
    assert proof.holds, "\n".join(proof.lines())
    assert proof.relayed > 100


# --- holes ------------------------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    """A hole: a method in another way, made of the right one."""
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def _decides_what_was_written(right: Any) -> Any:
    def wrong(self: Engine, facts: Any, address: Address, rewriting: Rewriting) -> Any:
        if rewriting.is_bounce_address(address):
            return self._decide_bounce(facts, address, rewriting)
        found = rewriting.path("forward-path", facts, address).address
        verdict = self._decide_rcpt(facts, address)
        return verdict if verdict.route is None else msgspec.structs.replace(
            verdict, route=msgspec.structs.replace(verdict.route, address=found.text)
        )  # fmt: skip

    return wrong


def _gives_all_users_a_right(right: Any) -> Any:
    def wrong(self: Engine, facts: Any, user: str, groups: Any, *, relays: bool = True) -> None:
        facts.client_permit = LocalUser(user)

    return wrong


def _gives_a_right_over_lmtp(right: Any) -> Any:
    return lambda self, facts, user, groups, *, relays=True: right(self, facts, user, groups)


def _takes_returns_from_anybody(right: Any) -> Any:
    return lambda self, facts, address, rewriting: right(
        self, msgspec.structs.replace(facts, reverse_path=""), address, rewriting
    )


def _turns_back_to_another(right: Any) -> Any:
    def wrong(self: Rewriting, address: Address, now_s: float) -> Address:
        right(self, address, now_s)
        return Address(AWAY, *AWAY.split("@"))

    return wrong


def _leads_elsewhere(right: Any) -> Any:
    """The domain of the target is taken from the address, as `$2` in a pattern would."""

    def wrong(self: Lookups, local: str, domain: str, written: str) -> str | None:
        return "user@victim.test" if local == "user" else right(self, local, domain, written)

    return wrong


def _expands_elsewhere(right: Any) -> Any:
    def wrong(self: Any, key: str, domain: str, targets: str, owner: str) -> Any:
        return right(self, key, domain, targets + ", spy@victim.test", owner)

    return wrong


def _routes_are_rights(right: Any) -> Any:
    def wrong(self: Router, route: Route, reverse_path: str) -> Any:
        found = right(self, route, reverse_path)
        return msgspec.structs.replace(found, ours=True) if found is not route else found

    return wrong


def _ends_as_ours(right: Any) -> Any:
    def wrong(self: Router, address: Address, local_address: str = "") -> Any:
        found = right(self, address, local_address)
        if isinstance(found, Route) and found.domain.endswith("example.net"):
            return msgspec.structs.replace(found, ours=True)
        return found

    return wrong


def _one_condition_is_enough(right: Any) -> Any:
    return lambda self, number, client, identity, certificate, now_s: True


HOLES: dict[str, Patch] = {
    "rewriting gives a right": replaced(Engine, "_decide_rewritten", _decides_what_was_written),
    "every user of this host relays": replaced(Engine, "attest", _gives_all_users_a_right),
    "users of this host relay over LMTP": replaced(Engine, "attest", _gives_a_right_over_lmtp),
    "groups are not looked at": replaced(LocalUsers, "is_allowed", lambda _: lambda self, user, groups: True),
    "return addresses are for everybody": replaced(Engine, "_decide_bounce", _takes_returns_from_anybody),
    "return addresses lead elsewhere": replaced(Rewriting, "original", _turns_back_to_another),
    "return addresses never end": replaced(SrsCodec, "_check_day", lambda _: lambda self, stamp, now_s: None),
    "signatures are not looked at": replaced(SrsCodec, "_check", lambda _: lambda self, signature, *parts: None),
    "a client chooses whom a virtual address stands for": replaced(Lookups, "virtual", _leads_elsewhere),
    "an alias has one more member": replaced(engine_module.Router.__init__.__globals__["Expander"], "expand", _expands_elsewhere),
    "a route by sender is a right": replaced(Router, "route_by_sender", _routes_are_rights),
    "what ends as our domain is ours": replaced(Router, "resolve", _ends_as_ours),
    "local parts that ask for a route pass": replaced(engine_module, "is_routed_local", lambda _: lambda local: False),
    "one condition of a rule is enough": replaced(RelayRules, "_holds", _one_condition_is_enough),
    "rules never end": replaced(RelayRules, "_is_in_time", lambda _: lambda self, number, now_s: True),
    "a client that has no address relays": replaced(
        Engine, "facts_of",
        lambda right: lambda self, client, *more: right(self, client if client[:1].isdigit() else "10.0.0.1", *more),
    ),
}  # fmt: skip


@pytest.mark.parametrize("hole", HOLES)
def test_every_hole_is_shown(monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    config = FULL
    if hole == "rules never end":  # only looked at in rules with more than networks
        over = RelayRule(name="over", identities=["anna"], expires="2020-01-01")
        config = config_with(rules=(over,))
    HOLES[hole](monkeypatch)
    proof: Proof = prove(config, NOW_S)
    assert not proof.holds
    assert "S: 250 2.1.5 Recipient ok" in proof.counterexamples[0].conversation


# --- whatever is configured -------------------------------------------------------------------------------------------

KEYS = ["anna@example.net", "@example.net", "x@lost.test", "@lab.test", "user@elsewhere.example"]
TARGETS = ["anna@example.net", "user@srs.test", "far@elsewhere.test", "user@below.lab.test", "root@partner.test"]
ENTRIES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(TARGETS), max_size=2)
SEVERAL = st.dictionaries(
    st.sampled_from(KEYS[:2]),
    st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3, unique=True).map(", ".join),
    max_size=2,
)
RULES = st.lists(
    st.builds(
        RelayRule,
        name=st.sampled_from(["a", "b"]),
        networks=st.lists(st.sampled_from(["10.1.0.0/16", "192.0.2.0/24", "::ffff:198.51.100.64/122"]), max_size=1),
        identities=st.lists(st.sampled_from(["anna", "*", "uid:root", "uid:backup"]), max_size=1),
        domains=st.lists(st.sampled_from(["ours", "partner.test", "elsewhere.example"]), max_size=1),
        reverse_paths=st.lists(st.sampled_from(["<>", "@example.net", "@elsewhere.example"]), max_size=1),
        next_hop=st.sampled_from([[], ["pool:inside"], ["hold:mx"]]),
    ),
    max_size=2,
    unique_by=lambda rule: rule.name,
)
MASKS = st.lists(
    st.builds(
        RewriteRule,
        name=st.just("mask"),
        directions=st.sampled_from([["inbound"], ["outbound"], ["inbound", "outbound"]]),
        parts=st.sampled_from([["forward-path"], ["forward-path", "reverse-path"]]),
        domains=st.sampled_from([[], ["ours"], ["elsewhere.example"], [".lab.test"]]),
        to_domain=st.sampled_from(["example.net", "elsewhere.example", "partner.test"]),
        mode=st.sampled_from(["enforce", "shadow"]),
    ),
    max_size=1,
)
CONFIGS = st.builds(
    config_with,
    rewrite=ENTRIES,
    virtual=SEVERAL,
    aliases=st.dictionaries(st.sampled_from(["anna", "user", "all"]), st.sampled_from([*TARGETS, "root", "a@far.test, root"]), max_size=2),
    domaintable=st.dictionaries(st.sampled_from(["lost.test", "elsewhere.example"]), st.sampled_from(["example.net", "other.test"]), max_size=1),
    routes=st.dictionaries(st.sampled_from(["example.net", "partner.test"]), st.sampled_from(["smtp://10.0.0.7:25", "hold:", "discard:"]), max_size=1),
    senders=st.dictionaries(st.sampled_from(["elsewhere.example", "<>"]), st.just("smtp://10.0.0.9:25"), max_size=1),
    rules=RULES.map(tuple),
    rewrite_rules=MASKS.map(tuple),
    srs=st.booleans(),
    local=st.sampled_from([None, Local(socket="/s", users=["*"]), Local(socket="/s", users=["backup"], groups=["mail"])]),
    networks=st.sampled_from([(), ("10.0.0.0/8",), ("10.0.0.0/8", "2001:db8::/32")]),
    next_hop=st.sampled_from(["smtp://10.0.0.5:25", "pool:inside", "hold:mx", "mx"]),
)  # fmt: skip


def agreed(config: Config, every: int) -> int:
    """Compare engine and specification on every so manieth session; how many relay."""
    engine, specification = Engine(config), Specification(config, NOW_S)
    sessions, _ = sessions_of(config)
    if config.rewrite.srs.domain:
        engine.rewriting = rewriting = Rewriting(config, [SECRET])
        assert rewriting.srs is not None
        sessions = chain(sessions, bounces_of(config, rewriting.srs, NOW_S))
    relayed = 0
    for index, session in enumerate(sessions):
        if index % every and session.target.address.domain != "srs.test":
            continue
        verdict = decide(engine, session, NOW_S)
        assert specification.fault(session, verdict) == "", (session, verdict)
        relayed += verdict.accepted
        if verdict.check == "relay" and "route" not in verdict.text and not verdict.rewritten:
            assert not specification.has_right(session), (session, verdict)
    return relayed


@settings(max_examples=60, deadline=None)
@given(CONFIGS)
def test_engine_and_specification_agree_whatever_is_configured(config: LoadedConfig) -> None:
    agreed(config, 23)


def test_they_agree_on_every_session_of_the_full_one() -> None:
    assert agreed(FULL, 1) > 1000
