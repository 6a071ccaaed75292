"""TLS reports (RFC 8460): where a domain wants them, and the report itself as JSON and as a message.

Pure. Which results there were comes from deliverers (`delivery/tlsresults.py`), when a report goes out from the queue role
(`roles/tlsreports.py`). What peers said (host names, reasons) stands in JSON strings and nowhere else. The message is not signed with
DKIM yet, which receivers may ask for (RFC 8460 3).
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gatepost.mail import date
from gatepost.model import TlsSeen

MEDIA_TYPE = "application/tlsrpt+gzip"
MAX_RECORDS = 20  # TXT records looked at
MAX_RUAS = 5
MAX_URI = 1000
_RECORD_START = re.compile(r"v=TLSRPTv1[ \t]*;")
_RUA = re.compile(r"rua=(.+)")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])")
_HTTPS = re.compile(r"https://([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9]))(?::([0-9]{1,5}))?(/[\x21-\x7e]*)?")


class Rua(NamedTuple):
    """One place for reports: a mailbox, or host, port (0: the usual) and path of a web server."""

    text: str
    mailbox: str = ""
    host: str = ""
    port: int = 0
    path: str = ""


class Report(NamedTuple):
    """What a report is about. `rows` are the results of one domain."""

    id: str
    domain: str
    submitter: str  # our host name
    organization: str
    contact: str
    begin_s: float
    end_s: float
    rows: Sequence[TlsSeen]


def parse_tlsrpt_record(texts: Sequence[str]) -> list[Rua]:
    """Where the TXT records of `_smtp._tls.DOMAIN` want reports; empty if there is no single good one (RFC 8460 3)."""
    records = [text for text in texts[:MAX_RECORDS] if _RECORD_START.match(text)]
    if len(records) != 1:
        return []
    for field in records[0].split(";")[1:]:
        match = _RUA.fullmatch(field.strip(" \t"))
        if match is not None:
            found = [_parse_rua(uri.strip(" \t")) for uri in match[1].split(",")[:MAX_RUAS]]
            return list(dict.fromkeys(rua for rua in found if rua is not None))
    return []


def _parse_rua(uri: str) -> Rua | None:
    if len(uri) > MAX_URI:
        return None
    kind, _, rest = uri.partition(":")
    if kind.lower() == "mailto":
        mailbox = rest.partition("?")[0]
        return Rua(uri, mailbox=mailbox) if _MAILBOX.fullmatch(mailbox) else None
    match = _HTTPS.fullmatch(uri)
    if match is None or int(match[2] or 0) > 65535:
        return None
    return Rua(uri, host=match[1].lower(), port=int(match[2] or 0), path=match[3] or "/")


def build_report(report: Report) -> bytes:
    """The report as gzipped JSON (RFC 8460 4.4)."""
    policies: dict[tuple[Any, ...], list[TlsSeen]] = {}
    for row in report.rows:
        policies.setdefault((row.policy_type, row.policy_domain, tuple(row.policy_strings)), []).append(row)
    data = {
        "organization-name": report.organization,
        "date-range": {"start-datetime": _timestamp(report.begin_s), "end-datetime": _timestamp(report.end_s)},
        "contact-info": report.contact,
        "report-id": report.id,
        "policies": [_policy(key, rows) for key, rows in policies.items()],
    }
    return gzip.compress(json.dumps(data, ensure_ascii=True).encode("ascii"), mtime=0)


def _policy(key: tuple[Any, ...], rows: list[TlsSeen]) -> dict[str, Any]:
    kind, domain, strings = key
    hosts = sorted({row.mx_host for row in rows if row.mx_host})
    policy: dict[str, Any] = {"policy-type": kind, "policy-domain": domain}
    if strings:
        policy["policy-string"] = list(strings)
    if hosts:
        policy["mx-host"] = hosts
    failed = [row for row in rows if row.result]
    return {
        "policy": policy,
        "summary": {
            "total-successful-session-count": sum(row.count for row in rows if not row.result),
            "total-failure-session-count": sum(row.count for row in failed),
        },
        "failure-details": [_failure(row) for row in failed],
    }


def _failure(row: TlsSeen) -> dict[str, Any]:
    details = {
        "result-type": row.result,
        "sending-mta-ip": row.sending_ip,
        "receiving-mx-hostname": row.mx_host,
        "receiving-ip": row.receiving_ip,
        "failed-session-count": row.count,
        "failure-reason-code": row.reason,
    }
    return {name: value for name, value in details.items() if value != ""}


def file_name(report: Report) -> str:
    """RFC 8460 5.1."""
    return f"{report.submitter}!{report.domain}!{int(report.begin_s)}!{int(report.end_s) - 1}!{report.id}.json.gz"


def build_mail(report: Report, packed: bytes, to: str, message_id: str, now_s: float) -> list[bytes]:
    """The report as a message (RFC 8460 5.3), in chunks to be joined: 7-bit, lines of at most 998 octets."""
    boundary = f"=_{message_id}"
    name = file_name(report)
    header = [
        f"From: <{report.contact}>",
        f"To: <{to}>",
        f"Date: {date.build_date(now_s)}",
        f"Message-ID: <{message_id}@{report.submitter}>",
        f"Subject: Report Domain: {report.domain}\r\n Submitter: {report.submitter}\r\n Report-ID: <{report.id}>",
        f"TLS-Report-Domain: {report.domain}",
        f"TLS-Report-Submitter: {report.submitter}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="{boundary}"',
    ]
    text = (
        f"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        f"This is a TLS report of {report.submitter} about mail for {report.domain}.\r\n"
        f"\r\n--{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment;\r\n filename="{name}"\r\n\r\n'
    )
    body = base64.encodebytes(packed).replace(b"\n", b"\r\n")
    return ["\r\n".join(header).encode("ascii") + text.encode("ascii"), body, f"--{boundary}--\r\n".encode("ascii")]


def _timestamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
