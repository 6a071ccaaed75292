"""What the queue takes as the next hop of a recipient: all that the engine yields, and nothing of an attacker's choice."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy.test_proof_of_features import CONFIGS, FULL, NOW_S, RULE, SECRET, config_with

from gatepost.config.encoded import decode_config, encode_config
from gatepost.config.schema import Config, Domain, Relay, RelayRule, Source
from gatepost.config.tables import LoadedConfig, TableData, table_key
from gatepost.model import NeedsAnswer, Question, Recipient
from gatepost.policy.engine import Engine
from gatepost.policy.proof import decide
from gatepost.policy.rewriting import Rewriting
from gatepost.policy.sessions import bounces_of, sessions_of
from gatepost.routing import permitted
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.permitted import PermittedHops
from gatepost.routing.route import Route
from gatepost.routing.tables.uses import fit_routes, fit_sender_routes


def as_the_queue_has_it(config: Config) -> PermittedHops:
    return PermittedHops(decode_config(encode_config(config, "queue")))


def recipients_of(route: Route, written: str) -> list[Recipient]:
    """As a receiver makes them."""
    if route.expansion is not None:
        return [Recipient(one.address, one.domain, one.next_hop) for one in route.expansion.routes]
    return [Recipient(route.address or written, route.domain, route.next_hop)]


def yielded(engine: Engine, session: Any) -> list[Recipient]:
    verdict = decide(engine, session, NOW_S)
    return recipients_of(verdict.route, session.target.address.text) if verdict.accepted and verdict.route else []


def assert_all_permitted(config: Config, every: int = 1) -> int:
    engine, hops = Engine(config), as_the_queue_has_it(config)
    sessions = list(sessions_of(config)[0])
    if config.rewrite.srs.domain:
        engine.rewriting = rewriting = Rewriting(config, [SECRET])
        assert rewriting.srs is not None
        sessions += bounces_of(config, rewriting.srs, NOW_S)
    count = 0
    for index, session in enumerate(sessions):
        if index % every and session.target.address.domain != "srs.test":
            continue
        for recipient in yielded(engine, session):
            assert hops.permits(recipient), (session, recipient)
            count += 1
    return count


HOPS = st.sampled_from(
    ["mx", "hold:mx", "hold:smtp://10.0.0.8:25", "pool:inside", "smtp://10.0.0.8:25", "error:550 5.1.2 no", "discard:", "maildir:/srv/{domain}/{local}"]
)  # fmt: skip
WITH_OTHER_HOPS = st.builds(
    lambda config, relay, ours, below, rules: msgspec.structs.replace(
        config,
        relay=msgspec.structs.replace(
            config.relay,
            next_hop=[relay],
            rules=[msgspec.structs.replace(rule, next_hop=[hop]) for rule, hop in zip(config.relay.rules, rules, strict=False)],
        ),
        domains=config.domains | {"example.net": Domain(next_hop=[ours]), ".lab.test": Domain(next_hop=[below])},
    ),
    CONFIGS,
    HOPS.filter(lambda hop: not hop.startswith("maildir")),
    HOPS,
    HOPS,
    st.lists(HOPS.filter(lambda hop: hop != "discard:"), min_size=2, max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(WITH_OTHER_HOPS)
def test_whatever_the_engine_yields_is_permitted(config: LoadedConfig) -> None:
    assert_all_permitted(config, 13)


def test_so_it_is_with_everything_configured() -> None:
    assert assert_all_permitted(FULL) > 1000


ROUTES = {
    "sendmail-mailertable": {"partner.test": "smtp://10.9.0.1:25", ".lab.test": "smtp://%1.inside.test:25", ".": "mx:rest.test"},
    "file": {"boss@example.net": "smtp://10.9.0.2:25", "elsewhere.example": "lmtp://10.9.0.3:24", "*": "hold:"},
    "static": {},
    "regexp": {},
}  # fmt: skip
RULES_OF = {
    "static": [("value", "smtp://10.9.0.4:25")],
    "regexp": [
        ("rule", "", "^user@", "", "smtp://10.9.0.5:25"),
        ("rule", "", "@partner", "", "error:550 5.1.1 no $1x"),
    ],
}


def with_routes(kind: str, **more: Any) -> LoadedConfig:
    pytest.importorskip("re2")
    config = config_with(networks=("10.0.0.0/8",), rules=(RULE,), **more)
    data = TableData(kind, "/t", ROUTES[kind], RULES_OF.get(kind, []))
    name = data.name
    return msgspec.structs.replace(config, routes=[name], tables=config.tables | {table_key("routes", name): data})


@pytest.mark.parametrize("kind", ROUTES)
def test_what_tables_of_every_kind_yield_is_permitted(kind: str) -> None:
    assert assert_all_permitted(with_routes(kind)) > 100
    assert (
        assert_all_permitted(with_routes(kind, virtual={"anna@example.net": "user@partner.test, x@below.lab.test"}))
        > 100
    )


class Said(Answers):
    """Servers that answer what they are asked."""

    def need_answers(self, source: str, keys: Any) -> list[Answer]:
        return [Answer("smtp://10.8.0.1:25" if "@" in key else None) for key in keys]


@pytest.mark.parametrize("limits", [[], ["smtp://10.8.0.1:25"]])
@pytest.mark.parametrize("use", ["routes", "sender_routes"])
def test_what_servers_say_is_permitted(use: str, limits: list[str]) -> None:
    source = Source(type="ldap", attribute="x", next_hops=limits)
    config = msgspec.structs.replace(config_with(), sources={"s": source}, **{use: ["ldap:s"]})
    engine, hops = Engine(config, answers=Said()), as_the_queue_has_it(config)
    found = [one for session in sessions_of(config)[0] for one in yielded(engine, session)]
    assert "smtp://10.8.0.1:25" in {one.next_hop for one in found}
    assert all(hops.permits(one) for one in found)
    other = Recipient("a@elsewhere.example", "elsewhere.example", "smtp://127.0.0.1:6379")
    assert hops.permits(other) is (not limits)


def test_a_server_that_names_another_next_hop_is_not_believed() -> None:
    told: list[str] = []
    answers = Answers(trouble=lambda source, why: told.append(why))
    config = msgspec.structs.replace(
        config_with(), routes=["ldap:s"], sources={"s": Source(type="ldap", attribute="x", next_hops=["smtp://*.inside.test:25"])}
    )  # fmt: skip
    engine = Engine(config, answers=answers)
    session = next(
        one for one in sessions_of(config)[0] if one.client.startswith("10.") and one.target.form == "elsewhere"
    )
    for value, code in (("smtp://a.inside.test:25", 0), ("smtp://a.inside.test:26", 451), ("smtp://10.0.0.1:25", 451)):
        with pytest.raises(NeedsAnswer) as needed:
            answers.give({})
            decide(engine, session, NOW_S)
        given: dict[Question, Answer] = {question: Answer(None) for question in needed.value.questions}
        given[needed.value.questions[0]] = Answer(value)
        answers.give(given)
        assert decide(engine, session, NOW_S).code == code, value
    assert len(told) == 2 and "next_hops" in told[0]


# --- an attacker's choice ---------------------------------------------------------------------------------------------

PLAIN = Config(
    hostname="mx.example.net",
    listen=["192.0.2.5:25"],
    spool="/var/spool/gatepost",
    domains={
        "example.net": Domain(next_hop=["smtp://10.0.0.5:25"]),
        "box.test": Domain(next_hop=["maildir:/srv/mail/{domain}/{local}"]),
        "closed.test": Domain(next_hop=["error:550 5.1.2 closed"]),
        "held.test": Domain(next_hop=["hold:mx"]),
        "two.test": Domain(next_hop=["smtp://10.0.0.6:25", "smtp://10.0.0.7:25"]),
    },
    relay=Relay(
        networks=["10.0.0.0/8"],
        next_hop=["mx"],
        rules=[
            RelayRule(name="partner", networks=["10.1.0.0/16"], domains=["partner.test"], next_hop=["smtp://10.0.0.9:25"]),
            RelayRule(name="trial", mode="shadow", networks=["10.1.0.0/16"], next_hop=["smtp://10.0.0.10:25"]),
            RelayRule(name="inside", networks=["10.2.0.0/16"], domains=["ours"], next_hop=["lmtp://10.0.0.11:24"]),
        ],
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("address", "domain", "next_hop", "is_permitted"),
    [
        ("a@example.net", "example.net", "smtp://10.0.0.5:25", True),
        ("a@Example.NET", "example.net", "smtp://10.0.0.5:25", True),
        ("a@example.net", "example.net", "lmtp://10.0.0.11:24", True),  # a rule of our domains
        ("a@example.net", "example.net", "discard:", True),
        ("a@example.net", "example.net", "smtp://127.0.0.1:6379", False),
        ("a@example.net", "example.net", "smtp://10.0.0.5:26", False),
        ("a@example.net", "example.net", "lmtp://10.0.0.5:25", False),
        ("a@example.net", "example.net", "mx:example.net", False),
        ("a@example.net", "example.net", "mx:evil.example", False),
        ("a@example.net", "example.net", "pool:inside", False),
        ("a@example.net", "example.net", "smtp://10.0.0.9:25", False),  # another's route
        ("a@example.net", "example.net", "maildir:/srv/mail/{domain}/{local}", False),
        ("a@other.test", "example.net", "smtp://10.0.0.5:25", False),  # an address that is not of the domain
        ("a@notexample.net", "example.net", "smtp://10.0.0.5:25", False),
        ("example.net", "example.net", "smtp://10.0.0.5:25", False),
        ("a@box.test", "box.test", "maildir:/srv/mail/{domain}/{local}", True),
        ("a@box.test", "box.test", "maildir:/srv/mail/box.test/boss", False),
        ("a@box.test", "BOX.test", "maildir:/srv/mail/{domain}/{local}", False),  # would be another directory
        ("a@other.test", "other.test", "maildir:/srv/mail/{domain}/{local}", False),
        ("a@closed.test", "closed.test", "mx:closed.test", False),
        ("a@closed.test", "closed.test", "error:550 5.1.2 closed", False),
        ("a@held.test", "held.test", "mx:held.test", True),
        ("a@two.test", "two.test", "smtp://10.0.0.6:25,smtp://10.0.0.7:25", True),
        ("a@two.test", "two.test", "smtp://10.0.0.7:25", False),
        ("a@far.test", "far.test", "mx:far.test", True),
        ("a@far.test", "far.test", "mx:evil.example", False),
        ("a@far.test", "far.test", "smtp://10.0.0.5:25", False),
        ("a@far.test", "far.test", "lmtp://10.0.0.11:24", False),
        ("a@partner.test", "partner.test", "smtp://10.0.0.9:25", True),
        ("a@below.partner.test", "below.partner.test", "smtp://10.0.0.9:25", False),
        ("a@far.test", "far.test", "smtp://10.0.0.10:25", False),  # a rule that is only tried
        ("a@[203.0.113.9]", "[203.0.113.9]", "mx:[203.0.113.9]", True),
        ("a@[IPv6:2001:DB8::9]", "[IPv6:2001:db8::9]", "mx:[IPv6:2001:db8::9]", True),
        ("a@[127.0.0.1]", "[127.0.0.1]", "mx:[127.0.0.1]", False),
        ("a@[IPv6:::1]", "[IPv6:::1]", "mx:[IPv6:::1]", False),
        ("a@", "", "mx:", False),
        ("a@..", "..", "mx:..", False),
        ("a@x/../y.test", "x/../y.test", "mx:x/../y.test", False),
        ("a@\ud800", "\ud800", "mx:\ud800", False),
        ("\ud800@far.test", "far.test", "mx:far.test", True),
    ],
)  # fmt: skip
def test_an_attacker_chooses_nothing(address: str, domain: str, next_hop: str, is_permitted: bool) -> None:
    hops = as_the_queue_has_it(PLAIN)
    for _ in range(2):  # the second is remembered
        assert hops.permits(Recipient(address, domain, next_hop)) is is_permitted


def test_a_smart_host_does_not_mean_mx() -> None:
    config = msgspec.structs.replace(PLAIN, relay=Relay(networks=["10.0.0.0/8"], next_hop=["smtp://smart.test:587"]))
    hops = as_the_queue_has_it(config)
    assert hops.permits(Recipient("a@far.test", "far.test", "smtp://smart.test:587"))
    assert not hops.permits(Recipient("a@far.test", "far.test", "mx:far.test"))
    assert not hops.permits(Recipient("a@example.net", "example.net", "smtp://smart.test:587"))


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30),
    st.text(max_size=20),
    st.one_of(st.text(max_size=20), st.sampled_from(["smtp://127.0.0.1:25", "mx:evil.example", "hold:", "mx", "mx:"])),
)
def test_any_text_is_answered(local: str, domain: str, next_hop: str) -> None:
    hops = PermittedHops(PLAIN)
    assert hops.permits(Recipient(f"{local}@{domain}", domain, next_hop)) in (True, False)


def test_patterns_are_asked_of_the_whole_address_and_fill_in_no_next_hop() -> None:
    hops = as_the_queue_has_it(with_routes("regexp"))
    assert hops.permits(Recipient("User@example.net", "example.net", "smtp://10.9.0.5:25"))
    assert not hops.permits(Recipient("anna@example.net", "example.net", "smtp://10.9.0.5:25"))
    for fit in (fit_routes, fit_sender_routes):
        with pytest.raises(Exception, match="takes a part of the address into the next hop"):
            fit(TableData("regexp", "/t", rules=[("rule", "", "^(.*)@", "", "maildir:/srv/$1")]))


def test_templates_of_a_mailertable_are_filled_from_the_domain_only() -> None:
    hops = as_the_queue_has_it(with_routes("sendmail-mailertable"))
    assert hops.permits(Recipient("u@a.lab.test", "a.lab.test", "smtp://a.inside.test:25"))
    assert not hops.permits(Recipient("u@a.lab.test", "a.lab.test", "smtp://b.inside.test:25"))


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_it_is_looked_up_once_for_each_domain_and_next_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    hops = as_the_queue_has_it(FULL)
    calls = []
    learn = PermittedHops._is_said_of_domain
    monkeypatch.setattr(
        PermittedHops, "_is_said_of_domain", lambda self, *pair: calls.append(pair) or learn(self, *pair)
    )
    for number in range(1000):
        assert hops.permits(Recipient(f"r{number}@example.net", "example.net", "smtp://10.0.0.5:25"))
        assert not hops.permits(Recipient(f"r{number}@example.net", "example.net", "smtp://10.0.0.66:25"))
    assert calls == [("example.net", "smtp://10.0.0.5:25"), ("example.net", "smtp://10.0.0.66:25")]


def test_a_decision_costs_few_calls() -> None:
    """Deterministic where a time is not: what one more message to a known place costs the queue."""
    hops = as_the_queue_has_it(FULL)
    recipient = Recipient("anna@example.net", "example.net", "smtp://10.0.0.5:25")
    assert hops.permits(recipient)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event in ("call", "c_call") else None)
    hops.permits(recipient)
    sys.setprofile(None)
    assert len(calls) - 1 <= 5  # itself, dict.get, twice len, endswith; the other is that of setprofile


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permitted, "MAX_KNOWN", 10)
    hops = PermittedHops(PLAIN)
    for number in range(100):
        assert hops.permits(Recipient(f"a@d{number}.test", f"d{number}.test", f"mx:d{number}.test"))
        assert len(hops._known) <= 10
