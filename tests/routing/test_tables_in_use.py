"""Tables named in a configuration: read at load, handed over as data, asked by the router; nothing is opened after that."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import decode_config, encode_config, load_config
from gatepost.config.schema import Config
from gatepost.config.tables import read_table
from gatepost.config.warnings import warnings_of
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.routing.router import BAD_DOMAIN, LOOP, REWRITE_FAILED, TABLE_DOWN, UNKNOWN, Refusal, Route, Router

HEAD = 'hostname = "mx.example.net"\nlisten = ["127.0.0.1:2525"]\nspool = "spool"\n'
FILES = {
    "access": "Connect:10.1 RELAY\nTo:relayed.example RELAY\nTo:x.relayed.example OK\n",
    "mailertable": "a.example smtp:[10.0.0.5]\n.a.example error:5.1.2:550 no such host\noutside.example smtp:[10.0.0.9]\n",
    "virtusertable": (
        "anna@a.example anna.smith@b.example\n@v.example %1@b.example\nloop@a.example loop@a2.example\n"
        "loop@a2.example loop@a.example\nself@a.example self@a.example\ngone@a.example error:nouser 550 gone\n"
        "out@a.example someone@outside.example\n"
    ),
    "people": "carl@b.example x\n@c.example x\nbare\n",
}
TABLES = """\
routes = "sendmail-mailertable:mailertable"
access = ["sendmail-access:access"]
virtual = "sendmail-virtusertable:virtusertable"
domains = ["a.example", "a2.example", "b.example", "c.example", "v.example", ".below.example"]
recipients = ["anna.smith", "self", "file:people"]
"""


def write(directory: Path, text: str = TABLES, **files: str) -> str:
    for name, content in (FILES | files).items():
        (directory / name).write_text(content)
    (directory / "gatepost.toml").write_text(HEAD + text)
    return str(directory / "gatepost.toml")


def handed_over(path: str) -> Config:
    """The configuration as a role has it: the files are gone."""
    encoded = encode_config(load_config(path))
    for name in FILES:
        (Path(path).parent / name).unlink(missing_ok=True)
    return decode_config(encoded)


def resolve(router: Router, text: str) -> Route | Refusal:
    local, _, domain = text.rpartition("@")
    return router.resolve(Address(text, local, domain))


def test_routes_virtual_addresses_and_recipients(tmp_path: Path) -> None:
    router = Router(handed_over(write(tmp_path)))
    wanted: dict[str, Route | Refusal] = {
        "anna@a.example": Route("mx:b.example", "b.example", True, "anna.smith@b.example"),
        "Anna@A.Example": Route("mx:b.example", "b.example", True, "anna.smith@b.example"),
        "anna.smith@a.example": Route("smtp://10.0.0.5:25", "a.example", True),
        "self@a.example": Route("smtp://10.0.0.5:25", "a.example", True),
        "bob@a.example": UNKNOWN,
        "bare@b.example": Route("mx:b.example", "b.example", True),
        "carl@b.example": Route("mx:b.example", "b.example", True),
        "carl@v.example": Route("mx:b.example", "b.example", True, "carl@b.example"),
        "Carl@v.example": Route("mx:b.example", "b.example", True, "Carl@b.example"),
        "nobody@v.example": UNKNOWN,
        "any+one@c.example": Route("mx:c.example", "c.example", True),
        "bare@x.below.example": Route("mx:x.below.example", "x.below.example", True),
        "bob@x.below.example": UNKNOWN,
        "bob@below.example": Route("mx:below.example", "below.example", False),
        "bare@.below.example": BAD_DOMAIN,
        "gone@a.example": Refusal(550, "1.1", "gone"),
        "loop@a.example": LOOP,
        "out@a.example": Route("smtp://10.0.0.9:25", "outside.example", True, "someone@outside.example"),
        "x@outside.example": Route("smtp://10.0.0.9:25", "outside.example", False, is_tabled=True),
        "x@sub.a.example": Refusal(550, "1.2", "no such host"),
        "x@else.example": Route("mx:else.example", "else.example", False),
        "x@relayed.example": Route("mx:relayed.example", "relayed.example", True),
        "x@deep.relayed.example": Route("mx:deep.relayed.example", "deep.relayed.example", True),
        "postmaster@b.example": Route("mx:b.example", "b.example", True),
    }
    assert {text: resolve(router, text) for text in wanted} == wanted


def test_a_rewrite_that_yields_no_path_defers(tmp_path: Path) -> None:
    router = Router(handed_over(write(tmp_path)))
    for local in ('"a b"', '"a@b"', '"<x>"', '"a,b"', '"a, carl"'):  # no list comes of what a client has written
        assert resolve(router, f"{local}@v.example") is REWRITE_FAILED


def test_rights_of_an_access_table_are_rows_of_the_algebra(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    assert config.relay.networks == ["10.1.0.0/16"]
    assert config.domains["relayed.example"].next_hop == ["mx"]
    assert ".relayed.example" in config.domains
    engine = Engine(handed_over(write(tmp_path)))
    inside, stranger = engine.facts_of("10.1.2.3"), engine.facts_of("192.0.2.1")
    else_where, relayed = Address("x@e.test", "x", "e.test"), Address("x@relayed.example", "x", "relayed.example")
    assert engine.decide_rcpt(inside, else_where).permit == "network 10.1.0.0/16"
    assert engine.decide_rcpt(stranger, else_where).code == 550
    assert engine.decide_rcpt(stranger, relayed).permit == "recipient-domain"


def test_the_roles_that_ask_for_no_recipient_get_no_tables(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    assert b"anna.smith" in encode_config(config)
    assert b"anna.smith" not in encode_config(config, "deliverer")


@pytest.mark.parametrize(
    ("text", "files", "error"),
    [
        (TABLES, {"access": "Connect:10.1 OK\nFrom:a.example RELAY\n"}, "access:2: "),
        (TABLES, {"mailertable": "a.example local:\n"}, 'mailertable:1: "local" is no mailer'),
        (TABLES.replace('"file:people"', '"file:nobody"'), {}, 'domains."a.example".recipients: "'),
        (
            TABLES.replace("sendmail-mailertable:", "mailertable:"),
            {},
            'routes: there is no kind of table "mailertable"',
        ),
        (TABLES.replace("sendmail-mailertable:", "sendmail-access:"), {}, 'routes: "'),
        (TABLES.replace("sendmail-access:", "file:"), {}, 'access: "'),
        (TABLES.replace("sendmail-virtusertable:virtusertable", "file:people"), {}, 'people:1: "x" has no domain'),
        (
            TABLES.replace('"sendmail-mailertable:mailertable"', '"file:people"'),
            {},
            'people:1: there is no transport "x" here',
        ),
        (
            TABLES + "[relay]\nnetworks = []\n",
            {"access": "0 RELAY\n" + "".join(f"{n} RELAY\n" for n in range(1, 99))},
            "far more",
        ),
        (TABLES, {"virtusertable": "@a.example %2@%1\n"}, "virtusertable:1: "),
        (
            TABLES.replace("sendmail-virtusertable:virtusertable", "regexp:people"),
            {"people": "/^(.+)=(.+)@a.example$/ $1@$2\n"},
            "choose the domain that the mail goes to, which is an open relay",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, files: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_config(write(tmp_path, text, **files))
    assert error in str(caught.value)


def test_values_of_routes_are_checked_by_line(tmp_path: Path) -> None:
    text = 'routes = "texthash:people"\ndomains = ["a.example"]\n'
    path = write(
        tmp_path, text, people="a.example smtp:[10.0.0.5]\n.b.example smtp://10.0.0.6:26\n* relay:[x.example]\n"
    )
    router = Router(handed_over(path))
    wanted = {
        "a.example": "smtp://10.0.0.5:25",
        "x.b.example": "smtp://10.0.0.6:26",
        "c.example": "smtp://x.example:25",
    }
    assert {domain: getattr(resolve(router, f"x@{domain}"), "next_hop", "") for domain in wanted} == wanted
    with pytest.raises(ConfigErrors, match=r'people:2: there is no transport "nowhere" here'):
        load_config(write(tmp_path, text, people="a.example smtp:[10.0.0.5]\nb.example nowhere:x\n"))


def test_notes_are_warnings(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, access="a.example RELAY\n"))
    warnings = [warning for warning in warnings_of(config) if "access" in warning.key]
    assert len(warnings) == 1
    assert "access:1: " in warnings[0].problem
    assert "clients with this name in DNS get no right" in warnings[0].problem


def test_too_much_for_the_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.config.tables.MAX_TABLES_BYTES", 1000)
    with pytest.raises(ConfigErrors, match=r"at most 0 MiB are handed to the processes; keep large tables in LDAP"):
        load_config(write(tmp_path, people="".join(f"user{number} x\n" for number in range(200))))


def test_a_table_that_was_not_handed_over_defers(tmp_path: Path) -> None:
    config = Config(hostname="mx.example.net", listen=[], spool="/s", domains={}, routes=["file:/gone"])
    assert (
        resolve(Router(Config(**{**_fields(config), "domains": load_config(write(tmp_path)).domains})), "x@e.test")
        is TABLE_DOWN
    )


def _fields(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


def test_a_bad_value_of_a_pattern_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "patterns"
    path.write_text("# addresses\n\n/^a@/ b@example.net\n/^c@/ no address\n")
    with pytest.raises(ConfigErrors) as bad:
        read_table(f"regexp:{path}", "virtual")
    assert [(error.file, error.line) for error in bad.value] == [(str(path), 4)]


def test_a_colon_takes_a_name_out_of_wider_lines_and_a_transport_alone_means_mx(tmp_path: Path) -> None:
    lines = "* smtp:[10.0.0.9]\nb.example :\nplain.example :\ndirect.example smtp:\n.below.example smtp:[10.0.0.8]\nx.below.example :\n"
    text = (
        'routes = "texthash:transport"\nnext_hop = "smtp://10.0.0.5"\ndomains = ["b.example", ".below.example"]\n'
        '[relay]\nnext_hop = "smtp://10.0.0.7"\n'
    )
    router = Router(handed_over(write(tmp_path, text, transport=lines)))

    def hop(address: str) -> str:
        route = resolve(router, address)
        assert isinstance(route, Route)
        return route.next_hop

    assert hop("a@b.example") == "smtp://10.0.0.5:25"
    assert hop("a@plain.example") == "smtp://10.0.0.7:25"
    assert hop("a@direct.example") == "mx:direct.example"
    assert hop("a@other.example") == "smtp://10.0.0.9:25"
    assert (hop("a@y.below.example"), hop("a@x.below.example")) == ("smtp://10.0.0.8:25", "smtp://10.0.0.5:25")


@pytest.mark.parametrize(
    "value",
    ["x%else.example@b.example", "bad..dots@b.example", ".dot@b.example", "a@b@c.example", "else.example!x@b.example"],
)
@pytest.mark.parametrize("use", ["virtual", "rewrite"])
def test_an_address_that_no_mail_can_go_to_is_an_error_of_its_line(tmp_path: Path, use: str, value: str) -> None:
    rule = '[[rewrite.rules]]\nname = "r"\ntables = ["texthash:bad"]\n'
    head = 'virtual = "texthash:bad"\n' if use == "virtual" else ""
    text = head + 'next_hop = "smtp://10.0.0.5"\ndomains = ["b.example"]\n' + (rule if use == "rewrite" else "")
    with pytest.raises(ConfigErrors, match="bad:2: .*is not an address that mail can be sent to"):
        load_config(write(tmp_path, text, bad=f"good@b.example anna@b.example\nanna@b.example {value}\n"))
