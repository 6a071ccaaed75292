"""sendmail's tables used as they are: its order of lookup, its meaning, and what each bad line is answered with."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrate.debian import run_tool, unpacked

from gatepost.config.errorreply import BadError, ErrorReply, canonical_error, parse_error, reply_of
from gatepost.config.errors import ConfigErrors
from gatepost.config.tables import TableData
from gatepost.routing.tables import FILE_TYPES, build_table
from gatepost.routing.tables.sendmail_keys import Answer, network_of
from gatepost.routing.tables.sendmail_rights import rights_of


def load(kind: str, text: str, directory: Path) -> TableData:
    (directory / "t").write_text(text)
    data: TableData = FILE_TYPES[f"sendmail-{kind}"].load(str(directory / "t"))
    return data


def table(kind: str, text: str, directory: Path) -> Any:
    return build_table(load(kind, text, directory))


def errors_of(kind: str, text: str, directory: Path) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load(kind, text, directory)
    return str(caught.value).replace(f"{directory}/", "")


def notes_of(kind: str, text: str, directory: Path) -> str:
    return "\n".join(map(str, load(kind, text, directory).notes)).replace(f"{directory}/", "")


# --- makemap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("From:a@b OK\n  To:c OK\n", "t:2: the line begins with white space; begin it with the key"),
        ("From:a@b\n", 't:1: "From:a@b" has no value; write: key, white space, value'),
        ("To:A.example OK\n#\nto:a.example REJECT\n", 't:3: the key "to:a.example" is given twice, first in line 1'),
    ],
)
def test_the_rules_of_makemap(tmp_path: Path, text: str, error: str) -> None:
    assert errors_of("access", text, tmp_path).startswith(error)


def test_a_compiled_table_stands_for_its_source(tmp_path: Path) -> None:
    root = unpacked("db5.3-util")
    for kind in ("hash", "btree"):
        (tmp_path / kind).mkdir()
        compiled = tmp_path / kind / "access.db"
        run_tool(root, "db5.3_load", "-T", "-t", kind, str(compiled), text="connect:10.1\\00\nREJECT\\00\n")
        for name in ("access", "access.db"):
            data = FILE_TYPES["sendmail-access"].load(str(tmp_path / kind / name))
            assert build_table(data).connect("10.1.2.3") == Answer("REJECT")
            assert data.files == [str(compiled)]


# --- access ---------------------------------------------------------------------------------------------------------

ACCESS = """\
# clients
Connect:10.1            RELAY
Connect:10.1.5          REJECT
10.1.5.7                OK
Connect:192.0.2.66      DISCARD
Connect:IPv6:2001:db8:1 RELAY
Connect:IPv6:2001:db8::9        REJECT
Connect:bad.example     REJECT
Connect:.dyn.example    ERROR:5.7.1:"550 use your provider"
Connect:good.dyn.example        OK
Connect:172.16          SKIP
172                     REJECT
# senders
From:spammer@free.example       REJECT
From:free.example       ERROR:4.7.1:450 not now
From:list+*@free.example        OK
From:root@              REJECT
From:evil.example       QUARANTINE:looked at by hand
cyber.example           REJECT
# recipients
To:lost@ours.example    ERROR:5.1.1:550 gone
To:old.example          550 5.1.2 no longer here
To:friend@              REJECT
To:relayed.example      RELAY
# others
Spam:abuse@ours.example FRIEND
ClientRate:10.1         0
ClientRate:             30
ClientConn:127.0.0.1    0
ClientConn:             5
GreetPause:10.1         0
GreetPause:             5000
"""


@pytest.fixture
def access(tmp_path: Path) -> Any:
    return table("access", ACCESS, tmp_path)


@pytest.mark.parametrize(
    ("address", "name", "word"),
    [
        ("10.1.2.3", "", "RELAY"), ("10.1.5.6", "", "REJECT"), ("10.1.5.7", "", "OK"), ("10.2.0.1", "", None),
        ("192.0.2.66", "", "DISCARD"), ("192.0.2.6", "", None), ("2001:db8:1::5", "", "RELAY"), ("2001:db8:2::5", "", None),
        ("2001:db8::9", "", "REJECT"), ("::ffff:10.1.2.3", "", "RELAY"), ("10.1.2.3", "host.bad.example", "REJECT"),
        ("198.51.100.1", "a.dyn.example", "ERROR"), ("198.51.100.1", "dyn.example", None),
        ("10.1.5.6", "good.dyn.example", "OK"), ("172.16.1.1", "", None), ("172.17.1.1", "", "REJECT"),
        ("local", "", None), ("", "", None),
    ],
)  # fmt: skip
def test_clients(access: Any, address: str, name: str, word: str | None) -> None:
    answer = access.connect(address, name)
    assert (answer and answer.word) == word


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("spammer@free.example", "REJECT"), ("spammer+x@free.example", "REJECT"), ("list+x@free.example", "OK"),
        ("other@free.example", "ERROR"), ("other@sub.free.example", "ERROR"), ("root@anywhere.example", "REJECT"),
        ("root+tag@anywhere.example", "REJECT"), ("x@cyber.example", "REJECT"), ("x@mail.cyber.example", "REJECT"),
        ("x@evil.example", "QUARANTINE"), ("x@lost.example", None), ("x@[10.1.5.7]", None),
    ],
)  # fmt: skip
def test_senders(access: Any, path: str, word: str | None) -> None:
    local, _, domain = path.rpartition("@")
    answer = access.sender(local, domain)
    assert (answer and answer.word) == word


@pytest.mark.parametrize(
    ("path", "ours", "answer"),
    [
        ("lost@ours.example", True, Answer("ERROR", 550, "1.1", "gone")),
        ("lost+tag@ours.example", True, Answer("ERROR", 550, "1.1", "gone")),
        ("x@old.example", False, Answer("ERROR", 550, "1.2", "no longer here")),
        ("friend@ours.example", True, Answer("REJECT")),
        ("friend@other.example", False, None),
        ("x@cyber.example", False, Answer("REJECT")),
        ("x@ours.example", True, None),
    ],
)
def test_recipients(access: Any, path: str, ours: bool, answer: Answer | None) -> None:
    local, _, domain = path.rpartition("@")
    assert access.recipient(local, domain, ours) == answer


def test_limits_and_friends(access: Any) -> None:
    limits = [access.limit("clientrate", address) for address in ("10.1.9.9", "192.0.2.1", "2001:db8::1")]
    assert limits == [0, 30, 30]
    assert [access.limit("clientconn", address) for address in ("127.0.0.1", "192.0.2.1")] == [0, 5]
    assert [access.limit("greetpause", address) for address in ("10.1.0.0", "192.0.2.1")] == [0, 5000]
    assert access.spam("abuse", "ours.example") == Answer("FRIEND")
    assert access.spam("anna", "ours.example") is None
    assert access.has_friends
    assert not access.has_haters


def test_rights(tmp_path: Path) -> None:
    rights = rights_of(load("access", ACCESS, tmp_path))
    assert rights.networks == [
        "10.1.0.0/22", "10.1.4.0/24", "10.1.6.0/23", "10.1.8.0/21", "10.1.16.0/20", "10.1.32.0/19", "10.1.64.0/18",
        "10.1.128.0/17", "2001:db8:1::/48",
    ]  # fmt: skip
    assert rights.domains == ["relayed.example", ".relayed.example"]
    assert rights.excluded == []


RIGHTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "10 RELAY\n": (["10.0.0.0/8"], [], []),
    "Connect:10.1 OK\n10.1 RELAY\n": ([], [], []),  # the tag counts first
    "Connect:10.1 RELAY\n10.1 REJECT\n": (["10.1.0.0/16"], [], []),
    "10.1.2 RELAY\n10.1.2.0 SKIP\n10.1.2.2 RELAY\n10.2 OK\n10.2.0.9 RELAY\n": (
        [
            "10.1.2.1/32", "10.1.2.2/31", "10.1.2.4/30", "10.1.2.8/29", "10.1.2.16/28", "10.1.2.32/27", "10.1.2.64/26",
            "10.1.2.128/25", "10.2.0.9/32",
        ],
        [],
        [],
    ),
    "a.example RELAY\nTo:b.example RELAY\n": ([], ["a.example", ".a.example", "b.example", ".b.example"], []),
    "To:a.example RELAY\nTo:x.a.example OK\n": ([], ["a.example", ".a.example"], ["x.a.example"]),
    "To:.a.example RELAY\n": ([], [".a.example"], []),
    "To:a@a.example RELAY\nb@ RELAY\nTo:10.1 RELAY\n": ([], [], []),
    "To:a.example OK\nFrom:a.example REJECT\n": ([], [], []),
}  # fmt: skip


@pytest.mark.parametrize("text", RIGHTS)
def test_what_relay_gives(tmp_path: Path, text: str) -> None:
    rights = rights_of(load("access", text, tmp_path))
    assert (rights.networks, rights.domains, rights.excluded) == RIGHTS[text]


@settings(max_examples=60, deadline=None)
@given(
    lines=st.dictionaries(
        st.lists(st.integers(0, 2), min_size=1, max_size=4).map(lambda numbers: ".".join(map(str, numbers))),
        st.tuples(st.sampled_from(["", "Connect:"]), st.sampled_from(["RELAY", "OK", "REJECT", "SKIP"])),
        max_size=8,
    ),
    probe=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_networks_are_exactly_the_clients_that_sendmail_lets_relay(
    lines: dict[str, tuple[str, str]], probe: list[int]
) -> None:
    entries = {(tag.lower() + key): value for key, (tag, value) in lines.items()}
    data = TableData("sendmail-access", "t", entries)
    networks = rights_of(data).networks
    address = ".".join(map(str, probe))
    answer = build_table(data).connect(address)
    is_inside = any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in networks)
    assert is_inside == (answer is not None and answer.word == "RELAY")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "x OK\nFrom:me@ours.example RELAY\n",
            't:2: "From:me@ours.example RELAY" would let everyone relay who writes this',
        ),
        (
            "Connect:host.example RELAY\n",
            't:1: "Connect:host.example RELAY" would let everyone relay whose address is given',
        ),
        ("To:com RELAY\n", 't:1: "com RELAY": ".com" is every domain below "com"'),
        (".org.uk RELAY\n", 't:1: ".org.uk RELAY": ".org.uk" is every domain below "org.uk"'),
        ("Conect:10.1 REJECT\n", 't:1: "conect:" is not a tag of sendmail; the tags are Connect:'),
        ("ClientRate: many\n", 't:1: "many" is not a number from 0 to 60000'),
        ("TLS_Srv:a.example VERFY\n", 't:1: "VERFY" is not a demand of TLS'),
        ("TLS_Clt:10 ENCR\n", 't:1: "ENCR" does not say how many bits'),
        ("TLS_Rcpt:a.example VERIFY+XX:y\n", 't:1: "XX:y" is not a demand of a certificate'),
        ("Spam:a@b OK\n", 't:1: "OK" has no meaning for this tag'),
        ("To:a@b FRIEND\n", 't:1: "FRIEND" has no meaning for this tag'),
        ("To:a ERROR:421 x\n", "t:1: 421 is not a reply"),
        (
            "Connect:IPv6:2002 RELAY\n",
            't:1: "ipv6:2002 RELAY": "2002::/16" is far more than one organisation; that would be',
        ),
        ("10.0.0.0/33 REJECT\n", 't:1: "10.0.0.0/33" is not a network'),
        ("10.0.0.1/8 REJECT\n", 't:1: "10.0.0.1/8" is not a network'),
    ],
)
def test_bad_access(tmp_path: Path, text: str, error: str) -> None:
    assert errors_of("access", text, tmp_path).startswith(error)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("ours.example RELAY\n", 't:1: "ours.example RELAY" is taken as To:, for mail to the domain; clients'),
        ("To:a@ours.example RELAY\n", 't:1: "To:a@ours.example RELAY" gives no right'),
        (
            "Connect:1 OK\nConnect:bad.example REJECT\n",
            "t:2: because of this line the names of clients are looked up, and back",
        ),
        (
            "bad.example REJECT\n",
            "t:1: because of this line the names of clients are looked up; where DNS gives no answer",
        ),
        ("Try_TLS:a.example NO\n", "t:1: STARTTLS is not used towards a.example, except where a policy, DANE"),
        ("Clt_Features:a.example M\n", "t:1: clt_features is not asked"),
        ("TLS_Clt:a.example ENCR:128\n", "t:1: because of this line the names of clients are looked up, and back"),
        (
            "TLS_Clt:a.example OK\n",
            't:1: "a.example" is the name of a client: it can be the reason for a demand, and exempts nobody',
        ),
        ("TLS_Srv:a.example VERIFY\n", "t:1: the certificate has to be for the host as well"),
        ("TLS_Clt:10 ENCR:1+CN:a.example\n", "t:1: a name counts only in a certificate that was verified"),
        ("Spam:abuse@ours.example FRIEND\n", "t:1: because of this line client and sender are judged at RCPT"),
        ('AuthInfo:a.example "U:x" "P:secret"\n', "t:1: authinfo is not asked here, and its value is not kept"),
        ("10.0.0.0/15 REJECT\n", "t:1: sendmail itself knows no 10.0.0.0/15"),
    ],
)
def test_notes_on_access(tmp_path: Path, text: str, note: str) -> None:
    assert notes_of("access", text, tmp_path).startswith(note)


def test_passwords_are_not_kept(tmp_path: Path) -> None:
    data = load("access", 'AuthInfo:a.example "U:x" "P:secret"\n', tmp_path)
    assert "secret" not in repr(data)


def test_prefix_lengths_are_expanded_like_cidrexpand(tmp_path: Path) -> None:
    made = table("access", "Connect:10.0.0.0/15 REJECT\nConnect:IPv6:2001:db8::/31 OK\n", tmp_path)
    words = [
        (made.connect(address) or Answer("")).word for address in ("10.0.0.1", "10.1.255.1", "10.2.0.1", "2001:db9::1")
    ]
    assert words == ["REJECT", "REJECT", "", "OK"]


@pytest.mark.parametrize(
    ("key", "network"),
    [
        ("10", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("ipv6:2001:db8", "2001:db8::/32"),
        ("ipv6:2001:db8::", "2001:db8::/128"), ("ipv6:::1", "::1/128"), ("256", None), ("10.1.2.3.4", None), ("host", None),
        ("ipv6:", None), ("ipv6:xyz", None), ("10.1.", None), ("", None),
    ],
)  # fmt: skip
def test_prefixes(key: str, network: str | None) -> None:
    found = network_of(key)
    assert (str(found) if found else None) == network


# --- errors ---------------------------------------------------------------------------------------------------------

ERRORS = {
    "5.7.1:550 go away": (550, "7.1", "go away"),
    '5.7.1:"550 go away"': (550, "7.1", "go away"),
    "4.2.2:450 full": (450, "2.2", "full"),
    "5.7.0:go away": (553, "7.0", "go away"),
    "nouser No such user here": (550, "1.1", "No such user here"),
    "nouser:no one": (550, "1.1", "no one"),
    "nouser 551 moved": (551, "1.1", "moved"),
    "nouser 5.7.0:550 text": (550, "7.0", "text"),
    "550 5.1.1 gone": (550, "1.1", "gone"),
    "550 gone": (550, "0.0", "gone"),
    "plain words": (553, "3.0", "plain words"),
    "tempfail": (450, "0.0", "Refused by a rule of this site; ask its postmaster"),
    "5.7.1:450 later": (450, "7.1", "later"),
    "550 smörgås\x07": (550, "0.0", "sm?rg?s?"),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors(text: str) -> None:
    reply = parse_error(text)
    assert (reply.code, reply.detail, reply.text) == ERRORS[text]
    assert reply_of(canonical_error(reply)) == ErrorReply(*ERRORS[text])
    assert reply.is_exact == (text != "5.7.1:450 later")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_error_is_a_reply_or_refused(text: str) -> None:
    try:
        reply = parse_error(text)
    except BadError:
        return
    assert 400 <= reply.code <= 599
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert reply.text


# --- mailertable ----------------------------------------------------------------------------------------------------

MAILERTABLE = """\
exact.example       smtp:[10.0.0.5]
.sub.example        esmtp:%1.inside.example
deep.sub.example    relay:[mail.example.net]
.example            error:5.1.2:550 no such host here
hub.test            hub.example.net
many.test           esmtp:[a.test]:[b.test]
port.test           esmtp:[c.test]:2525
v6.test             smtp:[IPv6:2001:db8::1]
lmtp.test           lmtp:[10.0.0.7]:24
.                   relay:[smart.example]
"""


def test_routes(tmp_path: Path) -> None:
    made = table("mailertable", MAILERTABLE, tmp_path)
    wanted = {
        "exact.example": "smtp://10.0.0.5:25",
        "a.b.sub.example": "mx:a.b.inside.example",
        "deep.sub.example": "smtp://mail.example.net:25",
        "x.deep.sub.example": "mx:x.deep.inside.example",
        "sub.example": "error:550 5.1.2 no such host here",
        "hub.test": "mx:hub.example.net",
        "many.test": "smtp://a.test:25,smtp://b.test:25",
        "port.test": "smtp://c.test:2525",
        "v6.test": "smtp://[2001:db8::1]:25",
        "lmtp.test": "lmtp://10.0.0.7:24",
        "x.many.test": "smtp://smart.example:25",
        "com": "smtp://smart.example:25",
    }
    assert {domain: made.route(domain) for domain in wanted} == wanted
    assert table("mailertable", "a.test smtp:[b.test]\n", tmp_path).route("c.test") is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("local:", 't:1: "local" is no mailer of a gateway; no mailer runs here'),
        ("procmail:/etc/x", 't:1: "procmail" is no mailer'),
        ("uucp-dom:host", 't:1: "uucp-dom" is no mailer'),
        ("smtp:", 't:1: "smtp:" names no host'),
        ("smtp:user@host.example", 't:1: "smtp:user@host.example" changes the recipient'),
        ("smtp:[no such host]", "t:1: "),
        ("error:421 x", "t:1: 421 is not a reply"),
    ],
)
def test_bad_routes(tmp_path: Path, value: str, error: str) -> None:
    assert errors_of("mailertable", f"a.example {value}\n", tmp_path).startswith(error)


def test_notes_on_routes(tmp_path: Path) -> None:
    assert "t:1: " in notes_of("mailertable", "a.test esmtp:b.test:c.test\n", tmp_path)
    assert "taken for a host and a port" in notes_of("mailertable", "a.test esmtp:[b.test]:26\n", tmp_path)
    assert "the class of the status" in notes_of("mailertable", "a.test error:5.1.1:450 x\n", tmp_path)


# --- addresses ------------------------------------------------------------------------------------------------------

VIRTUSERTABLE = """\
anna@a.example      anna.smith@inside.example
lists+*@a.example   %1-%2@lists.example
strict++@a.example  detail-%2@inside.example
strict@a.example    plain@inside.example
bob@a.example       bob%3@inside.example
gone@a.example      error:nouser 550 left the company
@a.example          %1@b.example
only@c.example      x@d.example
++@e.example        %1.%2@f.example
"""


@pytest.mark.parametrize(
    ("address", "new"),
    [
        ("anna@a.example", "anna.smith@inside.example"),
        ("anna+x@a.example", "anna.smith@inside.example"),
        ("lists+team@a.example", "lists-team@lists.example"),
        ("strict+x@a.example", "detail-x@inside.example"),
        ("strict+@a.example", "plain@inside.example"),
        ("strict@a.example", "plain@inside.example"),
        ("bob+x@a.example", "bob+x@inside.example"),
        ("bob@a.example", "bob@inside.example"),
        ("gone@a.example", "error:550 5.1.1 left the company"),
        ("Other@a.example", "Other@b.example"),
        ("other+x@a.example", "other@b.example"),
        ("only@c.example", "x@d.example"),
        ("other@c.example", None),
        ("z+y@e.example", "z.y@f.example"),
        ("z@e.example", None),
    ],
)
def test_virtual_users(tmp_path: Path, address: str, new: str | None) -> None:
    made = table("virtusertable", VIRTUSERTABLE, tmp_path)
    local, _, domain = address.rpartition("@")
    assert made.rewrite(local.lower(), domain, local) == new
    assert made.find_address(local.lower(), domain) == (
        None if new is None or new.startswith("error:") else new.lower()
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("anna x@a.example", 't:1: "anna" has no domain'),
        ("a@a.example anna", 't:1: "anna" is a local user; there are no mailboxes here'),
        ("a@a.example x@a.example,y@a.example", "is more than one address"),
        ("a@a.example @a.example", "has no local part"),
        ("a@a.example error:421 x", "t:1: 421 is not a reply"),
        ("a@a_b x@a.example", "t:1: "),
    ],
)
def test_bad_virtual_users(tmp_path: Path, line: str, error: str) -> None:
    assert error in errors_of("virtusertable", line + "\n", tmp_path)


def test_generic_addresses(tmp_path: Path) -> None:
    text = "anna a.smith@out.example\nbob@in.example bob@out.example\n@gone.example old@out.example\nlist+* list@l.example\n"
    made = table("genericstable", text, tmp_path)
    wanted = {
        ("anna", "in.example"): "a.smith@out.example", ("anna+x", "in.example"): "a.smith@out.example",
        ("bob", "in.example"): "bob@out.example", ("bob+x", "in.example"): "bob@out.example",
        ("bob", "other.example"): None, ("x", "gone.example"): "old@out.example", ("list+x", "i.example"): "list@l.example",
    }  # fmt: skip
    assert {key: made.rewrite(*key) for key in wanted} == wanted
    assert "is not an address" in errors_of("genericstable", "a b c\n", tmp_path)


def test_domains(tmp_path: Path) -> None:
    made = table("domaintable", "Old.example new.example\n", tmp_path)
    assert made.lookup("old.example") == "new.example"
    assert made.find_address("x", "old.example") == "x@new.example"
    assert made.find_address("x", "sub.old.example") is None
    assert "t:1: " in errors_of("domaintable", "a@b c\n", tmp_path)
