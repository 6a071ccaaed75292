"""The decision about a recipient, phases and modes of checks, and that no stranger ever relays."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.schema import Config, Domain, Relay
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts, Mode, NamedCheck, Phase, Step
from gatepost.policy.verdict import ACCEPT, Verdict
from gatepost.routing.router import Router
from gatepost.routing.tables import FileTable

CONFIG = Config(
    hostname="mx.example.net",
    listen=["192.0.2.5:25"],
    spool="/var/spool/gatepost",
    domains={
        "example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna"]),
        "every.test": Domain(next_hop=["lmtp://10.0.0.6:24"]),
    },
    relay=Relay(networks=["10.0.0.0/8", "2001:db8::/32"]),
)
ENGINE = Engine(CONFIG)
STRANGER = "198.51.100.1"
OWN = "10.1.2.3"


def ask(text: str, client: str, engine: Engine = ENGINE) -> Verdict:
    local, _, domain = text.rpartition("@")
    address = Address(text, local, domain) if local else Address(text, domain, "")
    return engine.decide_rcpt(engine.facts_of(client, "192.0.2.5"), address)


@pytest.mark.parametrize(
    ("text", "client", "answer", "permit"),
    [
        ("anna@example.net", STRANGER, "", "recipient-domain"),
        ("anna@example.net", OWN, "", "recipient-domain"),
        ("bob@example.net", STRANGER, "550 5.1.1", ""),
        ("bob@example.net", OWN, "550 5.1.1", ""),
        ("postmaster@example.net", STRANGER, "", "recipient-domain"),
        ("postmaster", STRANGER, "", "recipient-domain"),
        ("postmaster@[192.0.2.5]", STRANGER, "", "recipient-domain"),
        ("anna@[192.0.2.5]", STRANGER, "550 5.1.1", ""),
        ("x@else.example", STRANGER, "550 5.7.1", ""),
        ("x@else.example", OWN, "", "network 10.0.0.0/8"),
        ("x@else.example", "2001:db8::1", "", "network 2001:db8::/32"),
        ("x@else.example", "::ffff:10.0.0.1", "", "network 10.0.0.0/8"),
        ("x@[203.0.113.1]", STRANGER, "550 5.7.1", ""),
        ("x@[203.0.113.1]", OWN, "", "network 10.0.0.0/8"),
        ("x@sub.example.net", STRANGER, "550 5.7.1", ""),
        ("anna@EXAMPLE.net.", STRANGER, "", "recipient-domain"),
        ("x%else.example@every.test", STRANGER, "550 5.7.1", ""),
        ("else.example!x@every.test", STRANGER, "550 5.7.1", ""),
        ('"x@else.example"@every.test', STRANGER, "550 5.7.1", ""),
        ("@every.test,@else.example:x@every.test", STRANGER, "550 5.7.1", ""),
        ("x@every.test@else.example", STRANGER, "550 5.7.1", ""),
        ("x%else.example@every.test", OWN, "", "recipient-domain"),
        ("fine@every.test", STRANGER, "", "recipient-domain"),
    ],
)
def test_recipients(text: str, client: str, answer: str, permit: str) -> None:
    verdict = ask(text, client)
    assert f"{verdict.code} {verdict.status}" == (answer or "0 ")
    assert verdict.permit == permit
    assert verdict.accepted == (verdict.route is not None) == (not answer)
    assert verdict.accepted or verdict.text


def test_a_failed_table_defers() -> None:
    engine = Engine(CONFIG, Router(CONFIG, {"example.net": FileTable.unavailable("people", "gone")}))
    verdict = ask("anna@example.net", STRANGER, engine)
    assert (verdict.code, verdict.status) == (451, "4.3.0")


def test_a_reply_says_what_to_do_and_nothing_of_us() -> None:
    for text in ("x@else.example", "a%b@every.test", "bob@example.net", "x", "x@[1]"):
        verdict = ask(text, STRANGER)
        assert verdict.text.isascii() and len(verdict.text) < 200
        assert "10.0.0" not in verdict.text and "table" not in verdict.text.lower()
        assert ask(text.replace("else", "other"), STRANGER).text == verdict.text


part = st.text(
    alphabet=st.sampled_from('ax0.@%!:,"\\[]<>()+-_ \té＠％！。\u202e\x00\r\n') | st.characters(codec="utf-8"),
    max_size=12,
)
domain_name = st.sampled_from(
    ["example.net", "every.test", "EXAMPLE.NET", "every.test.", "else.example", "[192.0.2.5]", "[203.0.113.1]", "",
     "every.test@else.example", "every.test.else.example", "xevery.test", "every。test", "ｅvery.test", "[IPv6:::1]"]
)  # fmt: skip
clients = st.sampled_from(
    [
        STRANGER,
        "",
        "local",
        "10.0.0.1.evil.example",
        "11.0.0.0",
        "9.255.255.255",
        "::",
        "::1",
        "2001:db9::",
        "127.0.0.1",
        "010.0.0.1",
    ]
) | st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))


@settings(max_examples=600, deadline=None)
@given(part, domain_name | part, part, part, clients)
def test_no_session_without_a_right_relays(local: str, domain: str, helo: str, reverse_path: str, client: str) -> None:
    facts = ENGINE.facts_of(client, "192.0.2.5")
    facts.helo, facts.reverse_path = helo, reverse_path
    verdict = ENGINE.decide_rcpt(facts, Address(f"{local}@{domain}", local, domain))
    if not verdict.accepted or client.startswith("10."):
        return
    assert verdict.permit == "recipient-domain"
    assert verdict.route is not None
    assert verdict.route.domain in CONFIG.domains
    assert verdict.route.next_hop in ("smtp://10.0.0.5:25", "lmtp://10.0.0.6:24")
    assert not set("@%!").intersection(local)
    assert domain == "" or domain[0] == "[" or domain.lower().rstrip(".") in CONFIG.domains or not domain.isascii()


@settings(max_examples=100, deadline=None)
@given(part, domain_name, part, part)
def test_nothing_a_client_says_of_itself_changes_the_verdict(
    local: str, domain: str, helo: str, reverse_path: str
) -> None:
    address = Address(f"{local}@{domain}", local, domain)
    facts = ENGINE.facts_of(STRANGER, "192.0.2.5")
    plain = ENGINE.decide_rcpt(facts, address)
    facts.helo, facts.reverse_path = helo, reverse_path
    assert ENGINE.decide_rcpt(facts, address) == plain


NO = Verdict(554, "7.0", "No", check="no")


def check_no(facts: Facts) -> Verdict | None:
    return NO


def check_nothing(facts: Facts) -> Verdict | None:
    return None


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.RCPT])
def test_modes(phase: Phase) -> None:
    def verdict_with(mode: Mode) -> tuple[Verdict, list[str]]:
        checks = {
            phase: [
                NamedCheck("nothing", check_nothing),
                NamedCheck("no", check_no, mode),
                NamedCheck("last", check_nothing),
            ]
        }
        engine = Engine(CONFIG, checks=checks)
        facts = engine.facts_of(STRANGER)
        facts.trace = []
        return engine.decide(phase, facts), [step.check for step in facts.trace]

    assert verdict_with(Mode.ENFORCE) == (NO, ["nothing", "no"])
    assert verdict_with(Mode.SHADOW) == (ACCEPT, ["nothing", "no", "last"])
    assert verdict_with(Mode.OFF) == (ACCEPT, ["nothing", "last"])
    assert ENGINE.decide(phase, ENGINE.facts_of(STRANGER)) is ACCEPT


def test_a_check_can_refuse_a_recipient_but_never_grant_one() -> None:
    def check_yes(facts: Facts) -> Verdict | None:
        return ACCEPT

    address = Address("anna@example.net", "anna", "example.net")
    refusing = Engine(CONFIG, checks={Phase.RCPT: [NamedCheck("no", check_no)]})
    assert refusing.decide_rcpt(refusing.facts_of(STRANGER), address) == NO
    shadow = Engine(CONFIG, checks={Phase.RCPT: [NamedCheck("no", check_no, Mode.SHADOW)]})
    facts = shadow.facts_of(STRANGER)
    facts.trace = []
    assert shadow.decide_rcpt(facts, address).route is not None
    assert [(step.check, step.mode) for step in facts.trace] == [("relay", Mode.ENFORCE), ("no", Mode.SHADOW)]
    granting = Engine(CONFIG, checks={Phase.RCPT: [NamedCheck("yes", check_yes)]})
    assert ask("x@else.example", STRANGER, granting).code == 550


def test_trace_names_the_decision() -> None:
    facts = ENGINE.facts_of(STRANGER)
    facts.trace = []
    verdict = ENGINE.decide_rcpt(facts, Address("bob@example.net", "bob", "example.net"))
    assert facts.trace == [Step(Phase.RCPT, "recipient", Mode.ENFORCE, verdict)]
