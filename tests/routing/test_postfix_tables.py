"""Postfix's own forms of tables: logical lines, networks, patterns, transports; what is wrong in each, by line."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.errors import ConfigErrors
from gatepost.routing.tables import build_table
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.postfix_cidr import CidrTable
from gatepost.routing.tables.postfix_maps import TexthashTable
from gatepost.routing.tables.postfix_transport import BadTransport, parse_transport
from gatepost.routing.tables.regexp import (
    PatternError,
    PcreTable,
    RegexpTable,
    compile_bounded,
    compile_rule,
    parse_rule,
)


def errors_of(table: type, text: str, directory: Path) -> str:
    path = directory / "t"
    path.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        table.load(str(path))  # type: ignore[attr-defined]
    return str(caught.value).replace(f"{directory}/", "")


def test_logical_lines_and_quoted_keys(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text('# comment\n\nanna\n  one\n# between\n\ttwo # kept\n"white space" x\nBob  y\r\n')
    assert TexthashTable.load(str(path)).entries == {"anna": "one two # kept", "white space": "x", "bob": "y"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a 1\nb\n", 't:2: "b" has no value; write: key, white space, value'),
        ("a 1\n\n# x\nA 2\n", 't:4: the key "A" is given twice, first in line 1; remove one of the two'),
        ("root: anna\n", 't:1: "root:" ends with a colon; leave out the colon'),
        ("a\0b\n", "t:1: it holds a NUL byte"),
        ("a " + "x" * 70000, "t:1: the line has more than 65536 characters"),
    ],
)
def test_bad_lines(tmp_path: Path, text: str, error: str) -> None:
    assert errors_of(TexthashTable, text, tmp_path).startswith(error)


def test_a_hundred_bad_lines_are_enough(tmp_path: Path) -> None:
    lines = errors_of(TexthashTable, "word\n" * 5000, tmp_path).splitlines()
    assert len(lines) == 101
    assert "is this a file of another kind?" in lines[0]


def test_inline_items() -> None:
    table = InlineTable.of_data(InlineTable.load("{ a = b, { c = d, e } x=y }"))
    assert [table.lookup(key) for key in ("a", "c", "x", "b")] == ["b", "d, e", "y", None]
    with pytest.raises(ConfigErrors, match="braces are missing"):
        InlineTable.load("a=b")
    with pytest.raises(ConfigErrors, match='"a" is not a key with a value'):
        InlineTable.load("{a}")


# --- networks -------------------------------------------------------------------------------------------------------

CIDR = """\
10.1.0.0/16  inner
if 10.0.0.0/8
!10.2.0.0/16 outer
endif
192.0.2.1\tsingle
2001:db8::/32 six
0.0.0.0/0 other
"""


def cidr(text: str, directory: Path) -> CidrTable:
    (directory / "t").write_text(text)
    return CidrTable.of_data(CidrTable.load(str(directory / "t")))


def test_networks(tmp_path: Path) -> None:
    table = cidr(CIDR, tmp_path)
    wanted = {
        "10.1.255.255": "inner", "10.3.0.0": "outer", "10.2.3.4": "other", "192.0.2.1": "single", "192.0.2.2": "other",
        "2001:db8:ffff::1": "six", "2001:db9::": None, "::ffff:10.1.0.0": "inner", "local": None, "10.1": None,
    }  # fmt: skip
    assert {key: table.lookup(key) for key in wanted} == wanted
    assert table.find_address("10.1.2.3", "") is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("10.1.0.0/8 x\n", 't:1: "10.1.0.0/8" has bits set behind its prefix length; write "10.0.0.0/8"'),
        ("10.0.0.0/8\n", 't:1: "10.0.0.0/8" has no value'),
        ("host.example x\n", 't:1: "host.example" is not a network'),
        ("endif\n", "t:1: there is no if"),
        ("if 10.0.0.0/8\n10.1.1.1 x\n", "t:1: this if has no endif"),
    ],
)
def test_bad_networks(tmp_path: Path, text: str, error: str) -> None:
    assert errors_of(CidrTable, text, tmp_path).startswith(error)


@settings(max_examples=100, deadline=None)
@given(
    rules=st.lists(st.tuples(st.booleans(), st.integers(0, (1 << 32) - 1), st.integers(0, 32)), max_size=8),
    probe=st.integers(0, (1 << 32) - 1),
)
def test_ranges_agree_with_the_rules_one_by_one(rules: list[tuple[bool, int, int]], probe: int) -> None:
    networks = [(negated, ipaddress.ip_network((number, length), strict=False)) for negated, number, length in rules]
    table = CidrTable(
        "t",
        [
            ("rule", "!" if negated else "", str(network), str(index))
            for index, (negated, network) in enumerate(networks)
        ],
    )
    for address in (
        ipaddress.IPv4Address(probe),
        *(network[0] for _, network in networks),
        *(n[-1] for _, n in networks),
    ):
        matching = [str(index) for index, (negated, network) in enumerate(networks) if (address in network) != negated]
        assert table.lookup(str(address)) == (matching[0] if matching else None)


# --- patterns -------------------------------------------------------------------------------------------------------

REGEXP = """\
# comment
/^(.*)-outgoing@(.*)$/  550 use ${1}@$2, costs $$1
if /@Example\\.net$/
!/^anna@/  not anna
/^anna@/   anna
endif
/^[[:alnum:]]+@other\\.test$/i  small
m!^a/b@!  slash
"""


def test_patterns(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(REGEXP.replace("m!", "!/x/ never\n!!", 1).replace("!!^a/b@!", "|^a/b@|"))
    table = build_table(RegexpTable.load(str(tmp_path / "t")))
    assert table.lookup("List-Outgoing@example.org") == "550 use List@example.org, costs $1"
    assert table.lookup("bob@EXAMPLE.net") == "not anna"
    assert table.find_address("anna", "example.net") == "anna"


def test_flags(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("/^Abc@/i  exact\n/^abc@/  any\n|^a/b@|  slash\n/^x\\/y@/ escaped\n")
    table = build_table(PcreTable.load(str(tmp_path / "t")))
    wanted = {"Abc@x": "exact", "aBC@x": "any", "a/b@x": "slash", "x/y@x": "escaped", "zabc@x": None}
    assert {key: table.lookup(key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("/a/ x\n/(?=b)/ y\n", "t:2: the pattern is not valid (invalid perl operator: (?=); no look-around"),
        ("/(a)\\1/ x\n", "t:1: the pattern is not valid"),
        ("/a x\n", "t:1: the pattern has no closing /"),
        ("/a/\n", "t:1: the pattern has no value"),
        ("a x\n", "t:1: the line does not begin with a pattern"),
        ("/a/q x\n", 't:1: the flag "q" is not known; the flags are i m'),
        ("/a/x x\n", 't:1: the flag "x" is not known; basic expressions'),
        ("/a/ $1\n", "t:1: $1 is not a group of this pattern"),
        ("!/(a)/ $1\n", "t:1: $1 is not a group of this pattern"),
        ("/" + "a" * 5000 + "/ x\n", "t:1: the pattern has more than 4096 characters"),
        ("if /a/\n", "t:1: this if has no endif"),
        ("endif\n", "t:1: there is no if"),
    ],
)
def test_bad_patterns(tmp_path: Path, text: str, error: str) -> None:
    assert errors_of(RegexpTable, text, tmp_path).startswith(error)


def test_no_pattern_takes_more_than_linear_time() -> None:
    for pattern in ("^(a+)+$", "(a|aa)+$", "^(.*?,){30}P", "(x+x+)+y"):
        assert compile_bounded(pattern).search("a" * 60_000 + "!") is None
    with pytest.raises(PatternError):
        compile_bounded("a{1000}{1000}")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_line_is_a_rule_or_an_error(text: str) -> None:
    if not text.strip():
        return
    try:
        rule = parse_rule("pcre", text.strip())
        if rule[0] != "endif":
            compile_rule(rule[2], rule[3]).search("anna@example.net")
    except PatternError as error:
        assert error.problem and error.advice


# --- transports -----------------------------------------------------------------------------------------------------

TRANSPORTS = {
    "smtp:[10.0.0.5]": "smtp://10.0.0.5:25",
    "smtp:[10.0.0.5]:2525": "smtp://10.0.0.5:2525",
    "relay:[mail.Example.net]:submission": "smtp://mail.example.net:587",
    "smtp:[ipv6:2001:db8::1]:26": "smtp://[2001:db8::1]:26",
    "smtp:example.net": "mx:example.net",
    "relay:example.net": "mx:example.net",
    "[a.example]": "smtp://a.example:25",
    ":[a.example]": "smtp://a.example:25",
    "smtp:[a.example],[b.example]:26": "smtp://a.example:25,smtp://b.example:26",
    "lmtp:inet:10.0.0.7:24": "lmtp://10.0.0.7:24",
    "lmtp:[10.0.0.7]": "lmtp://10.0.0.7:24",
    "error:5.1.2 gone": "error:550 5.1.2 gone",
    "error:mail not accepted": "error:550 5.3.0 mail not accepted",
    "retry:4.7.1 later": "error:450 4.7.1 later",
    "smtp://10.0.0.5:26": "smtp://10.0.0.5:26",
    "mx": "mx",
    "maildir:/v/{local}": "maildir:/v/{local}",
    ":": None,
    "smtp:": None,
}


@pytest.mark.parametrize("value", TRANSPORTS)
def test_transports(value: str) -> None:
    assert parse_transport(value)[0] == TRANSPORTS[value]


def test_a_port_without_brackets_is_noted() -> None:
    hop, note = parse_transport("smtp:example.net:26")
    assert hop == "smtp://example.net:26"
    assert note is not None
    assert "looked up by MX in Postfix" in note.problem


BAD_TRANSPORTS = {
    "lmtp:unix:/run/l": "socket in the file system",
    "pipe:flags=R": "mailboxes or programs",
    "local:": "mailboxes or programs",
    "mytransport:x": 'no transport "mytransport"',
    "smtp:[]": "",
    "error:421 4.0.0 x": "421 is not a reply",
}


@pytest.mark.parametrize("value", BAD_TRANSPORTS)
def test_bad_transports(value: str) -> None:
    with pytest.raises(BadTransport) as caught:
        parse_transport(value)
    assert BAD_TRANSPORTS[value] in " ".join(caught.value.args)
    assert len(caught.value.args) == 2
