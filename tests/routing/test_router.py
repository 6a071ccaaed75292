"""Where addresses lead: our domains, recipients, postmaster, address literals, everything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gatepost.config.schema import Config, Domain, Relay
from gatepost.model import Address
from gatepost.routing.router import BAD_DOMAIN, BAD_LITERAL, NO_DOMAIN, TABLE_DOWN, UNKNOWN, Refusal, Route, Router
from gatepost.routing.tables import FileTable

INSIDE = "smtp://10.0.0.5:25,smtp://10.0.0.6:25"


def config(**changes: object) -> Config:
    values: dict[str, object] = {
        "hostname": "mx.example.net",
        "listen": ["192.0.2.5:25", "[2001:db8::5]:25", "0.0.0.0:2525"],
        "spool": "/var/spool/gatepost",
        "domains": {
            "example.net": Domain(next_hop=INSIDE.split(","), recipients=["anna", "zoë"]),
            "every.test": Domain(next_hop=["maildir:/v/{local}"]),
            "backup.test": Domain(next_hop=["mx"]),
            "xn--bcher-kva.example": Domain(next_hop=["smtp://10.0.0.7:25"], recipients=[]),
        },
    }
    return Config(**(values | changes))  # type: ignore[arg-type]


ROUTER = Router(config())


def address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(text, local, domain) if local else Address(text, domain, "")


def resolve(text: str, router: Router = ROUTER, local_address: str = "") -> Route | Refusal:
    return router.resolve(address(text), local_address)


@pytest.mark.parametrize(
    "text",
    ["anna@example.net", "ANNA@example.net", "anna@EXAMPLE.net", "anna@example.net.", '"anna"@example.net',
     '"a\\nna"@example.net', "zoë@example.net", "ZOË@example.net", "zoe\u0308@example.net", "postmaster@example.net",
     "PostMaster@example.net", '"postmaster"@example.net'],
)  # fmt: skip
def test_recipients_that_exist(text: str) -> None:
    assert resolve(text) == Route(INSIDE, "example.net", True)


@pytest.mark.parametrize(
    "text",
    ["bob@example.net", "anna.@example.net", "@example.net@example.net", "annna@EXAMPLE.NET.", "zoe@example.net"],
)
def test_recipients_that_do_not(text: str) -> None:
    assert resolve(text) is UNKNOWN
    assert (UNKNOWN.code, UNKNOWN.detail) == (550, "1.1")


def test_domains_of_ours() -> None:
    assert resolve("any+one@every.test") == Route("maildir:/v/{local}", "every.test", True)
    assert resolve("x@backup.test") == Route("mx:backup.test", "backup.test", True)
    assert resolve("x@xn--bcher-kva.example") is UNKNOWN
    assert resolve("postmaster@Bücher.Example") == Route("smtp://10.0.0.7:25", "xn--bcher-kva.example", True)
    assert not isinstance(resolve("x@sub.every.test"), Refusal)
    assert resolve("x@sub.every.test") == Route("mx:sub.every.test", "sub.every.test", False)


def test_other_domains() -> None:
    assert resolve("x@Else.Example.") == Route("mx:else.example", "else.example", False)
    assert resolve("x@élse.example") == Route("mx:xn--lse-9la.example", "xn--lse-9la.example", False)
    smart = Router(config(relay=Relay(next_hop=["smtp://smart.example:25"])))
    assert resolve("x@else.example", smart) == Route("smtp://smart.example:25", "else.example", False)
    for text in ("x@-.example", "x@a..example", "x@exam\u202eple.net", "x@1.2.3.4."):
        assert resolve(text) is BAD_DOMAIN, text


def test_postmaster_without_a_domain() -> None:
    first = Route(INSIDE, "example.net", True, "postmaster@example.net")
    assert resolve("Postmaster") == first
    assert resolve("anna") is NO_DOMAIN
    elsewhere = Router(config(postmaster="admin@else.example"))
    assert resolve("postmaster", elsewhere) == Route("mx:else.example", "else.example", True, "admin@else.example")
    ours = Router(config(postmaster="root@every.test"))
    assert resolve("postmaster", ours) == Route("maildir:/v/{local}", "every.test", True, "root@every.test")


@pytest.mark.parametrize(
    "literal", ["[192.0.2.5]", "[IPv6:2001:db8::5]", "[ipv6:2001:DB8:0::5]", "[IPv6:::ffff:192.0.2.5]", "[192.0.2.9]"]
)
def test_our_own_literal_has_only_a_postmaster(literal: str) -> None:
    accepted = resolve(f"postmaster@{literal}", local_address="192.0.2.9")
    assert isinstance(accepted, Route)
    assert accepted.address == "postmaster@example.net"
    assert resolve(f"anna@{literal}", local_address="192.0.2.9") is UNKNOWN


def test_other_literals() -> None:
    assert resolve("x@[198.51.100.1]") == Route("mx:[198.51.100.1]", "[198.51.100.1]", False)
    assert resolve("x@[IPv6:2001:DB8::7]") == Route("mx:[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]", False)
    for literal in ("[]", "[", "[x]", "[127.0.0.1]", "[0.0.0.0]", "[224.0.0.1]", "[IPv6:::1]", "[2001:db8::5]", "[10.1]",
                    "[IPv6:192.0.2.1]", "[192.0.2.1", "[Tag:x]", "[IPv6:::ffff:127.0.0.1]"):  # fmt: skip
        assert resolve(f"x@{literal}") is BAD_LITERAL, literal


def test_a_table_that_cannot_answer_defers() -> None:
    router = Router(config(), {"example.net": FileTable.unavailable("people", "gone")})
    assert resolve("anna@example.net", router) is TABLE_DOWN
    assert (TABLE_DOWN.code, TABLE_DOWN.detail) == (451, "3.0")
    assert isinstance(resolve("postmaster@example.net", router), Route)


def test_no_address_needs_a_file_once_the_router_is_there() -> None:
    """A locked-in role cannot import: whatever an address is like, everything must be loaded before."""
    script = """
import sys
from gatepost.config.schema import Config, Domain
from gatepost.model import Address
from gatepost.policy.engine import Engine
config = Config(hostname="mx.a.test", listen=["127.0.0.1:25"], spool="/s", domains={"a.test": Domain(next_hop=["mx"])})
engine = Engine(config)
def refuse(event, arguments):
    if event in ("open", "import"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
for client in ("192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "local"):
    for local in ("x", "zo\\u00eb", '"a b"', "a%b", "postmaster"):
        for domain in ("a.test", "A.test.", "b\\u00fccher.example", "xn--bcher-kva.example", "xn--a.test", "\\u202e", "", "[x]",
                       "[127.0.0.1]", "[IPv6:2001:db8::1]", "else.example", "-.test", "\\u05d0\\u05d1.example"):
            engine.decide_rcpt(engine.facts_of(client, "127.0.0.1"), Address("x", local, domain))
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")
