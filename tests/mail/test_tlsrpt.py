"""TLS reports: where they are wanted, and what they look like (RFC 8460 3, 4.4, 5.3)."""

from __future__ import annotations

import email
import email.policy
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.mail.tlsrpt import Report, build_mail, build_report, file_name, parse_tlsrpt_record
from gatepost.model import TlsSeen

STS = ("version: STSv1", "mode: enforce", "mx: mx.a.test", "max_age: 86400")
ROWS = [
    TlsSeen("a.test", "sts", "a.test", STS, "mx.a.test", "192.0.2.1", "192.0.2.9", "", "", 7),
    TlsSeen(
        "a.test", "sts", "a.test", STS, "mx2.a.test", "192.0.2.2", "192.0.2.9", "certificate-expired", 'it "has"\x00', 2
    ),
    TlsSeen(
        "a.test", "tlsa", "mx3.a.test", ("3 1 1 00",), "mx3.a.test", "2001:db8::1", "", "validation-failure", "no", 1
    ),
]
REPORT = Report("R1", "a.test", "gate.test", "Gate Inc", "tls@gate.test", 1700006400.0, 1700092800.0, ROWS)


def test_where_reports_are_wanted():
    found = parse_tlsrpt_record(
        ["v=spf1", "v=TLSRPTv1; rua=mailto:t@a.test, https://r.a.test/v1?x=1,mailto:u@b.test?subject=x"]
    )
    assert [(rua.mailbox, rua.host, rua.port, rua.path) for rua in found] == [
        ("t@a.test", "", 0, ""),
        ("", "r.a.test", 0, "/v1?x=1"),
        ("u@b.test", "", 0, ""),
    ]
    assert parse_tlsrpt_record(["v=TLSRPTv1;rua=https://R.a.test:8443;"])[0][1:] == ("", "r.a.test", 8443, "/")


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["v=TLSRPTv1"],
        ["v=TLSRPTv1;"],
        ["v=TLSRPTv2; rua=mailto:a@b.test"],
        ["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test"],
        ["v=TLSRPTv1; rua=http://a.test/"],
        ["v=TLSRPTv1; rua=mailto:a"],
        ["v=TLSRPTv1; rua=mailto:a@b.test\r\nBcc: x"],
        ["v=TLSRPTv1; rua=mailto:<a@b.test>"],
        ["v=TLSRPTv1; rua=https://a.test:99999/"],
        ["v=TLSRPTv1; rua=https://user@a.test/"],
        ["v=TLSRPTv1; rua=https://a.test/\r\nX: y"],
    ],
)
def test_where_none_are(texts):
    assert parse_tlsrpt_record(texts) == []


def test_no_more_places_than_a_few():
    many = ",".join(f"mailto:u{number}@a.test" for number in range(50))
    assert len(parse_tlsrpt_record([f"v=TLSRPTv1; rua={many}"])) == 5


def test_the_report():
    data = json.loads(gzip.decompress(build_report(REPORT)))
    assert data["organization-name"] == "Gate Inc"
    assert data["date-range"] == {"start-datetime": "2023-11-15T00:00:00Z", "end-datetime": "2023-11-16T00:00:00Z"}
    assert (data["contact-info"], data["report-id"]) == ("tls@gate.test", "R1")
    sts, tlsa = data["policies"]
    assert sts["policy"] == {
        "policy-type": "sts",
        "policy-domain": "a.test",
        "policy-string": list(STS),
        "mx-host": ["mx.a.test", "mx2.a.test"],
    }
    assert sts["summary"] == {"total-successful-session-count": 7, "total-failure-session-count": 2}
    assert sts["failure-details"] == [
        {
            "result-type": "certificate-expired",
            "sending-mta-ip": "192.0.2.9",
            "receiving-mx-hostname": "mx2.a.test",
            "receiving-ip": "192.0.2.2",
            "failed-session-count": 2,
            "failure-reason-code": 'it "has"\x00',
        }
    ]
    assert tlsa["policy"]["policy-domain"] == "mx3.a.test"
    assert "sending-mta-ip" not in tlsa["failure-details"][0]


def test_the_message():
    packed = build_report(REPORT)
    content = b"".join(build_mail(REPORT, packed, "tls@a.test", "ID7", 1700100000.0))
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\n" not in content.replace(b"\r\n", b"")
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["TLS-Report-Domain"] == "a.test"
    assert message["TLS-Report-Submitter"] == "gate.test"
    assert message["From"] == "tls@gate.test"
    assert message["Subject"] == "Report Domain: a.test Submitter: gate.test Report-ID: <R1>"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    text, report = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert report.get_content_type() == "application/tlsrpt+gzip"
    assert report.get_filename() == file_name(REPORT) == "gate.test!a.test!1700006400!1700092799!R1.json.gz"
    assert report.get_payload(decode=True) == packed


@settings(max_examples=150)
@given(st.lists(st.text(max_size=80).map("v=TLSRPTv1; rua=mailto:".__add__) | st.text(max_size=60), max_size=3))
def test_whatever_stands_there_a_place_is_plain(texts):
    for rua in parse_tlsrpt_record(texts):
        assert (rua.mailbox or rua.host + rua.path).isascii()
        assert (rua.mailbox or rua.host + rua.path).isprintable()
        assert " " not in rua.mailbox + rua.host + rua.path
