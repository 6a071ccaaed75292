"""Fuzz targets of what comes over the network and is not SMTP: DNS answers, PROXY headers, MTA-STS, where reports are wanted."""

from __future__ import annotations

import email
import email.utils

from fuzz.target import Target, cuts_of

from gatepost.config.schema import Auth
from gatepost.delivery import dane
from gatepost.lookup import ldapwire
from gatepost.mail.mtasts import MAX_AGE_S, MODES, StsError, is_match, parse_policy, parse_record
from gatepost.mail.tlsrpt import parse_tlsrpt_record
from gatepost.net import dnswire
from gatepost.policy.identity import Bound, check_header
from gatepost.roles.introspector import NoAnswer, parse_answer
from gatepost.smtp.proxy import BadProxyHeader, ProxyHeader, parse_proxy
from gatepost.smtp.sasl.prepare import prepare_name

_KINDS = sorted(dnswire.KINDS)
_NAME = "example.test"
_PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_ANNA = Bound("anna@a.test", ())
_A = b"\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"


def run_dns(data: bytes) -> None:
    """The first octet chooses the type; the rest is what stands behind the question, the header's counts in front."""
    kind = _KINDS[data[0] % len(_KINDS)] if data else "MX"
    question = dnswire.build_question(_NAME, kind)
    packet = b"\x00\x01" + data[1:11].ljust(10, b"\0") + question + data[11:]
    if dnswire.match_response(packet, question) is dnswire.Match.NO:
        packet = b"\x00\x01\x81\x80\x00\x01" + packet[6:]
    try:
        response = dnswire.parse_response(packet, question, _NAME, kind)
        followed = dnswire.follow(response.answers, _NAME, kind)
    except dnswire.DnsFormatError:
        return
    assert len(followed.records) <= 512
    for record in followed.records:
        assert kind == "TXT" or record.isprintable()  # a TXT says what its owner likes
    if kind == "MX":
        for record in followed.records:
            preference, _, host = record.partition(" ")
            assert 0 <= int(preference) <= 65535 and " " not in host


def run_ldap(data: bytes) -> None:
    """However much has come: a message is whole or not, and more input changes nothing of one that is."""
    try:
        parsed = ldapwire.parse_response(data)
    except ldapwire.LdapError:
        return
    if parsed is None:
        return
    response, used = parsed
    assert 0 < used <= len(data) and ldapwire.parse_response(data[:used]) == parsed
    assert len(response.cookie) <= ldapwire.MAX_COOKIE_BYTES
    for cut in cuts_of(data[:used]):
        if cut < used:
            assert ldapwire.parse_response(data[:cut]) is None


def read_proxy(data: bytes) -> tuple[ProxyHeader, int] | None | str:
    try:
        return parse_proxy(data)
    except BadProxyHeader:
        return "bad"


def run_proxy(data: bytes) -> None:
    """However much has come: more input never changes what is said of a whole header, and what was bad stays bad."""
    whole = read_proxy(data)
    if isinstance(whole, tuple):
        _, end = whole
        assert 0 < end <= len(data)
        assert read_proxy(data[:end]) == whole
        assert read_proxy(data[: end - 1]) is None
    for at in range(min(len(data), 300)):
        part = read_proxy(data[:at])
        if part is not None:
            assert part == whole
            break


def run_certificate(data: bytes) -> None:
    """A certificate of a host, held against TLSA records of each kind; the first octet chooses the digest in some of them."""
    matching, certificate = (data[0] % 4, data[1:]) if data else (0, b"")
    texts = [f"{usage} {selector} {matching} {certificate[:64].hex()}" for usage in range(4) for selector in range(3)]
    records = dane.usable_records([*texts, certificate.decode("latin-1"), f"3 0 0 {certificate.hex()}"])
    assert dane.is_end_entity(records, [certificate]) or not certificate
    dane.find_anchors(records, [b"", certificate, b"\0"])
    try:
        key = dane.public_key_of(certificate)
    except ValueError:
        return
    assert key in certificate and key[0] == 0x30
    assert dane.is_match(dane.Tlsa(2, 1, 0, key), certificate)


def run_sts_policy(data: bytes) -> None:
    """A policy that is taken can be written out and read again, and matches what it names."""
    try:
        policy = parse_policy(data)
    except StsError as error:
        assert str(error).isprintable()
        return
    assert policy.mode in MODES and 0 <= policy.max_age_s <= MAX_AGE_S
    assert parse_policy("\n".join(policy.lines).encode()) == policy
    for host in policy.mx:
        assert is_match(policy, host.replace("*", "any", 1)), host


def run_sts_record(data: bytes) -> None:
    """TXT records, one on each line, an octet to a character as the resolver gives them."""
    texts = data.decode("latin-1").split("\n")
    try:
        found = parse_record(texts)
    except StsError as error:
        assert str(error).isprintable()
    else:
        assert found.isascii() and found.isalnum() and len(found) <= 32
    for rua in parse_tlsrpt_record(texts):
        place = rua.mailbox or rua.host + rua.path
        assert place.isascii() and place.isprintable() and " " not in place and rua.port <= 65535


def run_introspection(data: bytes) -> None:
    """What an authorization server says of a token: a user only where it says active, and every name fit for the users file."""
    auth = Auth(audience="gatepost", issuer="https://l.test", user_claim="username")
    try:
        found = parse_answer(data, auth=auth, now_s=1000.0)
    except NoAnswer as error:
        assert str(error).isprintable()
        return
    assert found.why.isprintable() and not (found.user and found.why)
    if found.user:
        assert b"active" in data or b"\\u" in data
        assert found.user == prepare_name(found.user) and (found.expires_s is None or found.expires_s > 970)


def run_identity(data: bytes) -> None:
    """A header of a user: where it is taken, another parser finds no address in it that is not his. A bare CR or LF never comes so far."""
    rest = data.replace(b"\r\n", b"")
    if check_header(_ANNA, data).code or b"\r" in rest or b"\n" in rest:
        return
    header = email.message_from_bytes(data)
    for name in ("from", "sender", "resent-from", "resent-sender"):
        unfolded = [str(value).replace("\r\n", "") for value in header.get_all(name) or ()]
        for _, address in email.utils.getaddresses(unfolded):
            assert address.replace(" ", "").lower() in ("", "anna@a.test"), address


def _answer(kind: str, data: bytes) -> bytes:
    number = dnswire.KINDS[kind]
    record = b"\xc0\x0c" + number.to_bytes(2, "big") + b"\0\x01\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
    return bytes([_KINDS.index(kind)]) + _A[2:] + record


_PART = b"\x30\x03\x02\x01\x05"
_CERTIFICATE = b"\x30\x23\x30\x21\xa0\x03\x02\x01\x02\x02\x01\x01" + _PART * 5
TARGETS = (
    Target(
        "certificate",
        run_certificate,
        (b"\0" + _CERTIFICATE, b"\1" + _CERTIFICATE[:20]),
        (b"\x30\x82\x01\x00", b"\xa0\x03\x02\x01\x02", b"\x30\x80", b"\x1f\x81", b"\xff\xff\xff\xff"),
    ),
    Target(
        "dns",
        run_dns,
        (
            _answer("A", b"\xc0\0\2\1"),
            _answer("MX", b"\0\x0a\2mx\xc0\x0c"),
            _answer("TXT", b"\5v=STS\3abc"),
            _answer("TLSA", b"\3\1\1" + b"\xaa" * 32),
        ),
        (b"\xc0\x0c", b"\xc0\0", b"\0\x01", b"\0\x05", b"\xff\xff", b"\x3f" + b"a" * 63, b"\0\0\x29"),
        1232,
    ),
    Target(
        "identity",
        run_identity,
        (
            b"From: Anna (home) <anna@a.test>\r\nSender: anna@a.test\r\n",
            b"From: Anna (home\r\n ) <anna@a.test>\r\n",
            b'Subject: x\r\nfrom : "a, b" <Anna@a.test>,\r\n anna@a.test\r\nResent-From: anna@a.test\r\n',
        ),
        (
            b"From:",
            b"Sender:",
            b"Resent-From:",
            b"\r\n",
            b"\r\n ",
            b"<anna@a.test>",
            b"anna@a.test",
            b"boss@a.test",
            b"<boss@a.test>",
            b"=?utf-8?q?",
        ),
        512,
    ),
    Target(
        "introspection",
        run_introspection,
        (
            b'{"active":true,"aud":"gatepost","iss":"https://l.test","exp":2000,"username":"Anna@a.test"}',
            b'{"active":true,"aud":["x","gatepost"],"iss":"https://l.test","username":"b","token_type":"bearer","nbf":1.5}',
            b'{"active":false}',
        ),
        (
            b'"active":true',
            b'"exp":',
            b'"nbf":',
            b'"aud":',
            b'"username":',
            b"1e400",
            b"NaN",
            b"null",
            b"[",
            b"{",
            b"\\u0000",
        ),
    ),
    Target(
        "ldap",
        run_ldap,
        (
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x1b\x02\x01\x02\x64\x16\x04\x04cn=x\x30\x0e\x30\x0c\x04\x04mail\x31\x04\x04\x02ab",
            b"\x30\x36\x02\x01\x02\x65\x07\x0a\x01\x00\x04\x00\x04\x00\xa0\x28\x30\x26\x04\x16"
            + ldapwire.PAGED
            + b"\x04\x0c\x30\x0a\x02\x02\x01\xf4\x04\x04more",
        ),
        (b"\x30", b"\x02\x01", b"\x04", b"\x0a\x01\x00", b"\x64", b"\x65", b"\xa0", b"\x84", b"\x82", ldapwire.PAGED),
    ),
    Target(
        "sts-policy",
        run_sts_policy,
        (
            b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 86400\r\n",
            b"version: STSv1\nmode: none\nmax_age: 0\n",
        ),
        (
            b"version:",
            b"mode:",
            b"mx:",
            b"max_age:",
            b"STSv1",
            b"testing",
            b"*.",
            b"\r\n",
            b"\n",
            b"31557600",
            b"\xc3\xbc",
        ),
    ),
    Target(
        "sts-record",
        run_sts_record,
        (
            b"v=STSv1; id=20160831085700Z;",
            b"v=spf1 -all\nv=STSv1;id=1;x=2",
            b"v=TLSRPTv1; rua=mailto:a@b.test,https://c.test:8443/in?x=1",
        ),
        (b"v=STSv1;", b"v=TLSRPTv1;", b"id=", b"rua=", b"mailto:", b"https://", b"@", b";", b",", b"\n", b" "),
    ),
    Target(
        "proxy",
        run_proxy,
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 25\r\nEHLO x\r\n",
            b"PROXY UNKNOWN\r\n",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
            _PROXY_V2 + b"\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x13\x88\0\x19",
            _PROXY_V2 + b"\x20\0\0\0",
            _PROXY_V2 + b"\x21\x11\0\x10\xc0\0\2\1\xc6\x33\x64\1\x13\x88\0\x19\4\0\1x",
        ),
        (
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"\r\n",
            b"::",
            b"255",
            b"\x21\x21",
            b"\x21\x11",
            b"\0\x0c",
            b"\0\x24",
        ),
        600,
    ),
)
