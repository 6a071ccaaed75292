"""Recipients that do not exist go to one address, if the configuration says so; and detail, by each way an address may lead."""

from __future__ import annotations

import pytest

from gatepost.config.callahead import OWN
from gatepost.config.schema import Config, Domain
from gatepost.config.tables import LoadedConfig, TableData
from gatepost.model import Address, Question
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.router import TABLE_DOWN, UNKNOWN, Refusal, Route, Router

HOP = "smtp://10.0.0.5:25"


def resolve(config: Config, text: str, known: dict[str, Answer] | None = None) -> Route | Refusal:
    answers = Answers()
    answers.give({Question(OWN, key): answer for key, answer in (known or {}).items()}, is_last=True)
    local, _, domain = text.rpartition("@")
    return Router(config, answers=answers).resolve(Address(text, local, domain))


def config(domains: dict[str, Domain], **more: object) -> LoadedConfig:
    return LoadedConfig(hostname="g.test", listen=[], spool="/x", domains=domains, **more)  # type: ignore[arg-type]


PLAIN = {"x.test": Domain(next_hop=[HOP], recipients=["anna", "all"], catch_all="all@x.test")}


def test_unknown_recipients_are_caught() -> None:
    assert resolve(config(PLAIN), "anna@x.test") == Route(HOP, "x.test", True)
    assert resolve(config(PLAIN), "nobody@x.test") == Route(HOP, "x.test", True, "all@x.test")
    assert resolve(config(PLAIN, detail_separator="+"), "nobody+x@x.test") == Route(HOP, "x.test", True, "all@x.test")
    assert resolve(config(PLAIN, detail_separator="+"), "anna+x@x.test") == Route(HOP, "x.test", True)


def test_in_another_domain_and_below_one() -> None:
    domains = PLAIN | {".y.test": Domain(next_hop=["mx"], recipients=["bob"], catch_all="anna@x.test")}
    assert resolve(config(domains), "nobody@a.y.test") == Route(HOP, "x.test", True, "anna@x.test")
    assert resolve(config(domains), "bob@a.y.test") == Route("mx:a.y.test", "a.y.test", True)


def test_a_circle_ends() -> None:
    domains = {
        "x.test": Domain(next_hop=[HOP], recipients=["anna"], catch_all="gone@y.test"),
        "y.test": Domain(next_hop=[HOP], recipients=["anna"], catch_all="gone@x.test"),
    }
    assert resolve(config(domains), "nobody@x.test") is UNKNOWN


def test_what_an_address_stands_for_is_not_caught() -> None:
    table = TableData("file", "/v", {"sales@x.test": "gone@x.test", "all@x.test": "anna@x.test"})
    made = config(PLAIN, virtual=["file:/v"], tables={"virtual file:/v": table})
    assert resolve(made, "sales@x.test") is UNKNOWN
    assert resolve(made, "nobody@x.test") == Route(HOP, "x.test", True, "anna@x.test")  # by way of all@x.test


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("anna@x.test", Route(HOP, "x.test", True)),
        ("anna+news@x.test", Route(HOP, "x.test", True)),
        ("nobody+news@x.test", UNKNOWN),
        ("late+news@x.test", TABLE_DOWN),
        ("sales+news@x.test", Route(HOP, "x.test", True, "anna+news@x.test")),
    ],
)
def test_detail_with_call_ahead_and_virtual(text: str, found: Route | Refusal) -> None:
    table = TableData("file", "/v", {"sales@x.test": "anna@x.test"})
    made = config(
        {"x.test": Domain(next_hop=[HOP], recipients=[OWN])},
        detail_separator="+",
        virtual=["file:/v"],
        tables={"virtual file:/v": table},
    )
    known = {
        "anna@x.test": Answer(""), "anna+news@x.test": Answer(None), "nobody@x.test": Answer(None), "nobody+news@x.test": Answer(None),
        "late+news@x.test": Answer(None, "greylisted"),
    }  # fmt: skip
    assert resolve(made, text, known) == found


def test_nothing_is_caught_while_nobody_can_say() -> None:
    made = config({"x.test": Domain(next_hop=[HOP], recipients=["all", OWN], catch_all="all@x.test")})
    assert resolve(made, "nobody@x.test", {"nobody@x.test": Answer(None, "down")}) is TABLE_DOWN
    assert resolve(made, "nobody@x.test", {"nobody@x.test": Answer(None)}) == Route(HOP, "x.test", True, "all@x.test")
