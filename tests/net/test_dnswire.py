"""dnswire against dnspython: what it renders we must read the same, and no bytes may raise anything but DnsFormatError."""

from __future__ import annotations

import itertools
import struct

import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatepost.net import dnswire
from gatepost.net.dnswire import DnsFormatError, Match

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
TTL = st.integers(0, 0x7FFFFFFF)
U8 = st.integers(0, 255)
U16 = st.integers(0, 65535)
DATA = {
    "A": st.ip_addresses(v=4).map(str),
    "AAAA": st.ip_addresses(v=6).map(str),
    "NS": NAME.map("{}.".format),
    "PTR": NAME.map("{}.".format),
    "MX": st.tuples(U16, NAME).map(lambda pair: f"{pair[0]} {pair[1]}."),
    "SRV": st.tuples(U16, U16, U16, NAME).map(lambda four: "{} {} {} {}.".format(*four)),
    "TXT": st.lists(st.binary(max_size=255), min_size=1, max_size=4).map(
        lambda strings: " ".join('"' + "".join(f"\\{octet:03}" for octet in one) + '"' for one in strings)
    ),
    "TLSA": st.tuples(U8, U8, U8, st.binary(min_size=64, max_size=300)).map(
        lambda four: f"{four[0]} {four[1]} {four[2]} {four[3][: {1: 32, 2: 64}.get(four[2])].hex()}"
    ),
    "SOA": st.tuples(NAME, NAME, st.integers(0, 2**31)).map(lambda three: "{}. {}. {} 1 2 3 4".format(*three)),
}


def as_ours(kind: str, rdata: dns.rdata.Rdata) -> str:
    """What our parser is to say for dnspython's record."""
    if kind == "TXT":
        return b"".join(rdata.strings).decode("latin-1")
    if kind == "TLSA":
        return f"{rdata.usage} {rdata.selector} {rdata.mtype} {rdata.cert.hex()}"
    text = rdata.to_text().lower()
    if kind == "SOA":
        mname, rname, numbers = text.split(" ", 2)
        return f"{mname.removesuffix('.')} {rname.removesuffix('.')} {numbers}"
    return text.removesuffix(".")


@st.composite
def conversations(draw):
    """(name, kind, question, response as dnspython object): a chain of aliases and a record set at its end, and noise."""
    kind = draw(st.sampled_from(sorted(DATA)))
    chain = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    query = dns.message.make_query(dns.name.from_text(chain[0]), kind, use_edns=0)
    response = dns.message.make_response(query)
    for owner, target in itertools.pairwise(chain):
        response.answer.append(dns.rrset.from_text(owner + ".", draw(TTL), "IN", "CNAME", target + "."))
    texts = draw(st.lists(DATA[kind], max_size=5, unique=True))
    if texts:
        response.answer.append(dns.rrset.from_text(chain[-1] + ".", draw(TTL), "IN", kind, *texts))
    else:
        response.authority.append(dns.rrset.from_text("zone.test.", draw(TTL), "IN", "SOA", "a. b. 1 2 3 4 77"))
    response.additional.append(dns.rrset.from_text(draw(NAME) + ".", 5, "IN", "A", "192.0.2.99"))
    if draw(st.booleans()):
        response.flags |= dns.flags.AD
    return chain[0], kind, dnswire.build_question(chain[0], kind), response


@given(conversations())
@settings(max_examples=200, deadline=None)
def test_reads_what_dnspython_renders(conversation):
    name, kind, question, response = conversation
    packet = response.to_wire()
    assert dnswire.match_response(packet, question) is Match.YES
    parsed = dnswire.parse_response(packet, question, name, kind)
    followed = dnswire.follow(parsed.answers, name, kind)
    oracle = dns.message.from_wire(packet)
    chain = [rrset for rrset in oracle.answer if rrset.rdtype == dns.rdatatype.CNAME]
    final = [rrset for rrset in oracle.answer if rrset.rdtype == dns.rdatatype.from_text(kind)]
    expected = [as_ours(kind, rdata) for rrset in final for rdata in rrset]
    assert sorted(followed.records) == sorted(expected)
    assert parsed.authentic == bool(oracle.flags & dns.flags.AD)
    assert followed.hops == len(chain)
    if expected:
        assert followed.ttl_s == min(rrset.ttl for rrset in oracle.answer)
    else:
        assert parsed.negative_ttl_s == min(oracle.authority[0].ttl, 77)


@given(conversations(), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_packets_raise_only_format_errors(conversation, data):
    name, kind, question, response = conversation
    packet = bytearray(response.to_wire())
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(12 + len(question), len(packet) - 1))] = data.draw(
            st.sampled_from([0, 1, 63, 64, 192, 255])
        )
    packet = bytes(packet[: data.draw(st.integers(0, len(packet)))]) if data.draw(st.booleans()) else bytes(packet)
    try:
        parsed = dnswire.parse_response(packet, question, name, kind)
        followed = dnswire.follow(parsed.answers, name, kind)
    except DnsFormatError:
        return
    for text in followed.records:
        text.encode()
        assert kind == "TXT" or text.isprintable()


@given(st.binary(max_size=200), st.sampled_from(sorted(dnswire.KINDS)))
@settings(max_examples=300, deadline=None)
@example(b"\xc0\x0c" * 100, "MX")
def test_random_sections_raise_only_format_errors(tail, kind):
    question = dnswire.build_question("example.test", kind)
    for counts in (b"\x00\x01\x00\x03\x00\x00\x00\x00", b"\x00\x01\x00\x00\x00\x02\x00\x02"):
        packet = b"\x00\x01\x80\x00" + counts + question + tail
        try:
            dnswire.follow(dnswire.parse_response(packet, question, "example.test", kind).answers, "example.test", kind)
        except DnsFormatError:
            pass


@given(NAME, st.sampled_from(sorted(dnswire.KINDS)), st.binary(min_size=2, max_size=2), st.booleans(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_dnspython_reads_our_queries(name, kind, query_id, dnssec_ok, random):
    question = dnswire.mix_case(dnswire.build_question(name, kind), random.randbytes(300))
    query = dns.message.from_wire(dnswire.build_query(query_id, question, dnssec_ok=dnssec_ok))
    assert query.id == int.from_bytes(query_id, "big")
    assert query.flags == dns.flags.RD | dns.flags.AD
    assert query.question[0].name == dns.name.from_text(name)
    assert query.question[0].rdtype == dns.rdatatype.from_text(kind)
    assert query.question[0].rdclass == dns.rdataclass.IN
    assert (query.edns, query.payload, bool(query.ednsflags & dns.flags.DO)) == (0, 1232, dnssec_ok)


def test_mix_case_changes_letters_only_and_can_reach_both_cases():
    question = dnswire.build_question("ab1-_z.test", "A")
    assert dnswire.mix_case(question, b"\x00" * 64) == question
    upper = dnswire.mix_case(question, b"\xff" * 64)
    assert upper == b"\x06AB1-_Z\x04TEST\x00\x00\x01\x00\x01"


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", ".a", "a" * 64, "a b", "a\nb", "ä.test", "a\x00b", ".".join(["abcdefg"] * 32) + ".tes"]
)
def test_names_that_cannot_be_asked(name):
    with pytest.raises(DnsFormatError):
        dnswire.build_question(name, "A")


def test_longest_name_can_be_asked():
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253
    assert dns.message.from_wire(dnswire.build_query(b"ab", dnswire.build_question(name, "A")))


# --- hand-made responses --------------------------------------------------------------------------------------------

ASKED = "example.test"


def packet(*records: bytes, kind: str = "MX", flags: int = 0x8180, authority: int = 0, additional: int = 0) -> bytes:
    answers = len(records) - authority - additional
    head = struct.pack("!6H", 7, flags, 1, answers, authority, additional)
    return head + dnswire.build_question(ASKED, kind) + b"".join(records)


def record(kind: int, data: bytes, owner: bytes = b"\xc0\x0c", ttl: int = 60, klass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, klass, ttl, len(data)) + data


def read(wire: bytes, kind: str = "MX") -> dnswire.Followed:
    parsed = dnswire.parse_response(wire, dnswire.build_question(ASKED, kind), ASKED, kind)
    return dnswire.follow(parsed.answers, ASKED, kind)


@pytest.mark.parametrize(
    ("kind", "code", "data"),
    [
        ("MX", 15, b"\x00\x0a\xc0\x2c"),  # a pointer to itself
        ("MX", 15, b"\x00\x0a\xc0\xff"),  # forwards, beyond the end
        ("MX", 15, b"\x00\x0a\xc0\x04"),  # into the header
        ("MX", 15, b"\x00\x0a\x41abc\x00"),  # a label type that is none
        ("MX", 15, b"\x00\x0a\x01a\x00\x00"),  # octets behind the name
        ("MX", 15, b"\x00\x0a\x09abc"),  # a label beyond the end
        ("MX", 15, b"\x00"),
        ("MX", 15, b""),
        ("A", 1, b"\x7f\x00\x01"),
        ("AAAA", 28, b"\x00" * 4),
        ("TXT", 16, b""),
        ("TXT", 16, b"\x05abc"),
        ("TLSA", 52, b"\x03\x01\x01"),
        ("SRV", 33, b"\x00\x01\x00\x01\x00"),
        ("PTR", 12, b""),
    ],
)
def test_malformed_data(kind, code, data):
    with pytest.raises(DnsFormatError):
        read(packet(record(code, data), kind=kind), kind)


def test_name_longer_than_255_octets_by_pointers():
    label = b"\x3f" + b"a" * 63
    first = record(15, b"\x00\x01" + label * 3 + b"\x00")  # 193 octets, its name at a known place
    at = 12 + len(dnswire.build_question(ASKED, "MX")) + 12 + 2
    assert read(packet(first)).records == ["1 " + ".".join(["a" * 63] * 3)]
    second = record(15, b"\x00\x02" + label + struct.pack("!H", 0xC000 | at))
    with pytest.raises(DnsFormatError):
        read(packet(first, second))


def test_many_pointers_to_pointers_cost_little():
    base = 12 + len(dnswire.build_question(ASKED, "MX"))
    chain = b"".join(struct.pack("!H", 0xC000 | (base + 12 + 2 * index)) for index in range(200))
    filler = record(99, b"\x00\x00" + chain)
    hostile = record(15, b"\x00\x01" + struct.pack("!H", 0xC000 | (base + 12 + 400)))
    with pytest.raises(DnsFormatError, match="backwards"):
        read(packet(filler, hostile))


def test_too_many_records():
    many = [record(15, b"\x00\x01\xc0\x0c")] * (dnswire.MAX_RECORDS + 1)
    assert len(read(packet(*many[1:])).records) == dnswire.MAX_RECORDS
    with pytest.raises(DnsFormatError):
        read(packet(*many))


def test_records_of_others_are_not_answers():
    other = b"\x05other\x04test\x00"
    wire = packet(
        record(15, b"\x00\x01\x01a\x00", owner=other),
        record(15, b"\x00\x02\x01b\x00", klass=3),
        record(1, b"\x7f\x00\x00\x01"),
        record(15, b"\x00\x03\x01c\x00"),
        record(15, b"\x00\x04\x01d\x00"),
        additional=1,
    )
    assert read(wire).records == ["3 c"]


def test_null_mx_txt_octets_and_top_bit_ttl():
    assert read(packet(record(15, b"\x00\x00\x00"))).records == ["0 ."]
    followed = read(packet(record(16, b"\x03a\xff\x00\x02bc", ttl=0x80000001), kind="TXT"), "TXT")
    assert followed.records == ["a\xff\x00bc"]
    assert followed.ttl_s == 0


def test_hosts_that_are_none_are_left_out_and_never_the_only_answer():
    bad = record(15, b"\x00\x01\x03a b\x00")
    dotted = record(15, b"\x00\x01\x03a.b\x00")
    assert read(packet(bad, dotted, record(15, b"\x00\x02\x01B\x00"))).records == ["2 b"]
    with pytest.raises(DnsFormatError):
        read(packet(bad))


def test_alias_loop_and_length():
    loop = record(5, b"\xc0\x0c")
    with pytest.raises(DnsFormatError, match="loop"):
        read(packet(loop))
    names = [b"\xc0\x0c", *(b"\x02n%d\x00" % index for index in range(9))]
    links = [record(5, target, owner=owner) for owner, target in itertools.pairwise(names)]
    assert read(packet(*links[:8])).hops == 8
    with pytest.raises(DnsFormatError):
        read(packet(*links))


def test_match_response():
    question = dnswire.build_question(ASKED, "MX")
    good = packet()
    assert dnswire.match_response(good, question) is Match.YES
    assert dnswire.match_response(good, dnswire.mix_case(question, b"\xff" * 99)) is Match.OTHER_CASE
    assert dnswire.match_response(good, dnswire.build_question("example.tess", "MX")) is Match.NO
    assert dnswire.match_response(good, dnswire.build_question(ASKED, "A")) is Match.NO
    assert dnswire.match_response(good[:2] + b"\x01" + good[3:], question) is Match.NO  # a query
    assert dnswire.match_response(good[:2] + b"\xa9" + good[3:], question) is Match.NO  # another opcode
    assert dnswire.match_response(good[:11], question) is Match.NO
    assert dnswire.match_response(b"\0\7\x81\x81" + bytes(8), question) is Match.YES  # FORMERR, bare header
    assert dnswire.match_response(b"\0\7\x81\x83" + bytes(8), question) is Match.NO  # NXDOMAIN must name what it denies


def test_extended_rcode_referral_and_negative_ttl():
    question = dnswire.build_question(ASKED, "MX")
    opt = b"\x00" + struct.pack("!HHIH", 41, 1232, 0x01000000, 0)
    assert dnswire.parse_response(packet(opt, additional=1), question, ASKED, "MX").rcode == dnswire.Rcode.BADVERS
    delegation = record(2, b"\x02ns\xc0\x0c")
    parsed = dnswire.parse_response(packet(delegation, authority=1), question, ASKED, "MX")
    assert parsed.referral
    assert parsed.negative_ttl_s == -1
    with pytest.raises(DnsFormatError):
        dnswire.parse_response(packet(record(6, b"\x00\x00" + bytes(19)), authority=1), question, ASKED, "MX")
