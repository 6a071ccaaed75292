"""LDAP messages: what we write, what we read, and what no server and no key can make of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.ldapfilter import parse_filter
from gatepost.config.pieces import values_of
from gatepost.config.values import InvalidValue
from gatepost.lookup import ldapwire as wire
from gatepost.lookup.ldap import escape_dn

KEY = "anna@example.test"


def encoded(text: str, key: str = KEY) -> bytes:
    return wire.encode_filter(parse_filter(text), values_of(key))


def test_messages_as_the_rfc_has_them() -> None:
    assert wire.build_bind(1, "cn=x", b"pw") == bytes.fromhex("3012020101600d02010304") + b"\x04cn=x\x80\x02pw"
    assert wire.build_start_tls(1).endswith(b"1.3.6.1.4.1.1466.20037")
    assert encoded("(mail={key})") == b"\xa3\x19\x04\x04mail\x04\x11anna@example.test"
    assert encoded("(objectClass=*)") == b"\x87\x0bobjectClass"
    assert encoded("(!(a=b))") == b"\xa2\x08\xa3\x06\x04\x01a\x04\x01b"
    assert encoded("(&(a=b)(|(c>=d)(e~=f)))").startswith(b"\xa0")
    assert encoded("(cn=a*b*c)") == b"\xa4\x0f\x04\x02cn\x30\x09\x80\x01a\x81\x01b\x82\x01c"
    assert encoded(r"(cn=\2a\28\c3\a9)") == b"\xa3\x0a\x04\x02cn\x04\x04*(\xc3\xa9"


@pytest.mark.parametrize("key", ["*", "a)(mail=*", "\\2a", "(|(a=b))", "é*", "\x01"])
def test_no_key_changes_a_filter(key: str) -> None:
    octets = key.encode()
    inner = b"\x04\x04mail" + wire.tlv(4, octets)
    assert encoded("(mail={key})", key) == wire.tlv(0xA3, inner)


@pytest.mark.parametrize(
    "text",
    [
        "mail={key}", "(mail={key}", "(mail={key}))", "()", "(&)", "(!(a=b)(c=d))", "(a=b)(c=d)", "(a:dn:=b)", "(a=\\2)", "(a=\\zz)",
        "(a={other})", "({key}=b)", "(a=\\ff)", "(" * 50 + "a=b" + ")" * 50, "(&" * 30 + "(a=b)" + ")" * 30,
    ],
)  # fmt: skip
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_filter(text)


def entry(number: int, *attributes: tuple[str, list[bytes]]) -> bytes:
    pairs = b"".join(
        wire.tlv(0x30, wire.tlv(4, name.encode()) + wire.tlv(0x31, b"".join(wire.tlv(4, value) for value in values)))
        for name, values in attributes
    )
    return wire.tlv(0x30, wire.integer(number) + wire.tlv(wire.ENTRY, wire.tlv(4, b"cn=x") + wire.tlv(0x30, pairs)))


def done(number: int, code: int, text: str = "") -> bytes:
    result = wire.integer(code, 0x0A) + wire.tlv(4, b"") + wire.tlv(4, text.encode())
    return wire.tlv(0x30, wire.integer(number) + wire.tlv(wire.DONE, result))


def test_answers() -> None:
    data = entry(7, ("Mail;lang-en", [b"a", b"b"]), ("mail", [b"c"])) + done(7, 32, "no\x1bthing")
    first, used = wire.parse_response(data) or (None, 0)
    assert first is not None and first.number == 7 and first.values == {"mail": [b"a", b"b", b"c"]}
    second, rest = wire.parse_response(data[used:]) or (None, 0)
    assert second is not None and second.result is not None and used + rest == len(data)
    assert second.result.words == "noSuchObject (no?thing)"
    large = entry(300, ("x", [b"v" * 70_000]))
    assert all(wire.parse_response(large[:size]) is None for size in (0, 1, 2, 4, 100, len(large) - 1))
    whole = wire.parse_response(large)
    assert whole is not None and whole[0].values == {"x": [b"v" * 70_000]}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request", b"\x30\x80\x02\x01\x01", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x83\xff\xff\xff", b"\x30\x00",
        b"\x30\x03\x02\x01\x01", b"\x30\x05\x04\x01\x01\x65\x00", b"\x30\x05\x02\x01\x01\x65\x00", b"\x30\x05\x02\x01\x01\x64\x00",
        b"\x30\x06\x02\x01\x01\x65\x05\x0a",
    ],
)  # fmt: skip
def test_what_is_not_understood(data: bytes) -> None:
    with pytest.raises(wire.LdapError):
        wire.parse_response(data)


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda data: b"\x30" + bytes([len(data)]) + data))
def test_a_server_can_say_anything(data: bytes) -> None:
    try:
        found = wire.parse_response(data)
    except wire.LdapError:
        return
    assert found is None or 0 < found[1] <= len(data)


def test_names_of_entries_are_escaped() -> None:
    assert escape_dn("a,b+c=d\\") == "a\\2cb\\2bc\\3dd\\5c"
    assert escape_dn(" #x ") == "\\20#x\\20"


# --- pages (RFC 2696) -------------------------------------------------------------------------------------------------


def done_page(number: int, *controls: bytes) -> bytes:
    result = wire.integer(0, 0x0A) + wire.tlv(0x04, b"") + wire.tlv(0x04, b"")
    tail = wire.tlv(0xA0, b"".join(controls)) if controls else b""
    return wire.tlv(0x30, wire.integer(number) + wire.tlv(wire.DONE, result) + tail)


def page_control(value: bytes, name: bytes = wire.PAGED) -> bytes:
    return wire.tlv(0x30, wire.tlv(0x04, name) + wire.tlv(0x04, value))


def test_the_cookie_of_a_page() -> None:
    control = page_control(wire.tlv(0x30, wire.integer(0) + wire.tlv(0x04, b"more")))
    other = page_control(b"\x01", b"1.2.3")
    for data, cookie in ((done_page(7, other, control), b"more"), (done_page(7, other), b""), (done_page(7), b"")):
        parsed = wire.parse_response(data)
        assert parsed is not None and (parsed[0].cookie, parsed[0].kind, parsed[1]) == (cookie, wire.DONE, len(data))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30",
        wire.tlv(0x30, b""),
        wire.tlv(0x30, wire.integer(0)),
        wire.tlv(0x30, wire.integer(0) + wire.tlv(0x04, b"x" * 5000)),
    ],
)
def test_a_page_without_a_sound_cookie(value: bytes) -> None:
    with pytest.raises(wire.LdapError):
        wire.parse_response(done_page(7, page_control(value)))


def test_a_search_asks_for_a_page() -> None:
    page = wire.build_search(3, "dc=x", 2, wire.tlv(0x87, b"mail"), ["mail"], most=0, limit_s=9, page=(500, b"more"))
    assert wire.PAGED in page and b"\x02\x02\x01\xf4\x04\x04more" in page
    plain = wire.build_search(3, "dc=x", 2, wire.tlv(0x87, b"mail"), ["mail"], most=0, limit_s=9)
    assert wire.PAGED not in plain
