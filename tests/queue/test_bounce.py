"""The bounce: who is told, and a DSN that a standard parser understands whatever a peer said."""

from __future__ import annotations

import email
import email.policy
import quopri
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.mail import dsn
from gatepost.model import Envelope, Outcome, Recipient, Result
from gatepost.queue import bounce

T0 = 1_700_000_000.0
HEADER = b"Received: from a by b;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <one@outside.test>\r\nSubject: Hello\r\n"
CONTENT = HEADER + b"\r\nHello there.\r\n.\r\n--=_D1/0\r\n"


def envelope(**changes):
    settings = {
        "id": "M1",
        "session_id": "S1",
        "reverse_path": "sender@outside.test",
        "recipients": [Recipient("user@example.test", "example.test", "smtp://10.0.0.5:25")],
        "received_s": T0,
        "peer_address": "192.0.2.1",
        "helo": "outside.test",
        "permit": "recipient-domain",
    }
    return Envelope(**(settings | changes))


def failed(text="5.1.1 No such user", code=550, status="5.1.1", host="mx.example.test[10.0.0.5]:25", index=0):
    return Outcome(index, Result.FAILED, "rcpt", code, status, text, host)


def build(kind="failed", env=None, outcomes=None, **changes):
    env = env or envelope()
    outcomes = outcomes or [(env.recipients[0], failed())]
    settings = {
        "hostname": "gw.example.test",
        "original_header": HEADER,
        "original_content": None,
        "now_s": T0 + 3600 * 5,
        "message_id": "D1",
    }
    made, chunks = bounce.build_dsn(kind, env, outcomes, **(settings | changes))
    return made, b"".join(chunks)


def parse(content):
    """The parts of a DSN: text, fields of the message, fields of each recipient, what was returned."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    text, status, returned = message.get_payload()
    for part in (text, status, returned):
        assert not part.defects
    whole, *recipients = status.get_payload()
    return message, text.get_content(), whole, recipients, returned


def test_a_failure_is_reported_in_full():
    env, content = build()
    message, text, whole, (recipient,), returned = parse(content)
    assert content.isascii()
    assert message["To"] == "sender@outside.test"
    assert message["From"] == "Mail gateway <MAILER-DAEMON@gw.example.test>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<one@outside.test>"
    assert message["Message-ID"] == "<D1@gw.example.test>"
    assert message["Date"] == "Wed, 15 Nov 2023 03:13:20 +0000"
    assert "user@example.test" in text
    assert "550 5.1.1 No such user" in text
    assert "mx.example.test[10.0.0.5]:25" in text
    assert "Check the address" in text
    assert "M1" in text
    assert dict(whole.items()) == {
        "Reporting-MTA": "dns; gw.example.test",
        "X-Gatepost-Queue-ID": "M1",
        "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
    }
    assert dict(recipient.items()) == {
        "Final-Recipient": "rfc822; user@example.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
        "Last-Attempt-Date": "Wed, 15 Nov 2023 03:13:20 +0000",
    }
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload(decode=True) == HEADER.rstrip(b"\r\n") + b"\r\n"
    assert env.reverse_path == ""
    assert env.recipients == [Recipient("sender@outside.test", "outside.test", "", bounce.NOTIFY_NEVER)]
    assert (env.id, env.permit, env.body_type, env.smtputf8, env.has_8bit) == ("D1", "dsn", "7BIT", False, False)


def test_a_delay_notice_says_until_when():
    outcome = Outcome(0, Result.DEFERRED, "connect", 0, "4.4.1", "Connection refused", "mx.example.test[10.0.0.5]:25")
    env = envelope()
    _, content = build("delayed", env, [(env.recipients[0], outcome)], retry_until_s=T0 + 86400 * 5)
    _, text, _, (recipient,), _ = parse(content)
    assert recipient["Action"] == "delayed"
    assert recipient["Status"] == "4.4.1"
    assert recipient["Will-Retry-Until"] == "Sun, 19 Nov 2023 22:13:20 +0000"
    assert recipient["Diagnostic-Code"] == "x-gatepost; Connection refused"
    assert "5 hours" in text
    assert "do not need to send it again" in text


def test_an_expired_message_has_the_status_of_an_expired_message():
    outcome = Outcome(0, Result.DEFERRED, "rcpt", 451, "4.2.0", "4.2.0 Later", "mx.example.test[10.0.0.5]:25")
    env = envelope()
    _, content = build("expired", env, [(env.recipients[0], outcome)], now_s=T0 + 86400 * 5)
    _, text, _, (recipient,), _ = parse(content)
    assert (recipient["Action"], recipient["Status"]) == ("failed", "4.4.7")
    assert "451 4.2.0 Later" in recipient["Diagnostic-Code"]
    assert "5 days" in text


def test_every_recipient_has_its_fields():
    recipients = [Recipient(f"user{number}@example.test", "example.test", "x") for number in range(120)]
    env = envelope(recipients=recipients)
    _, content = build(env=env, outcomes=[(each, failed(index=n)) for n, each in enumerate(recipients)])
    _, text, _, rows, _ = parse(content)
    assert [row["Final-Recipient"] for row in rows] == [f"rfc822; user{number}@example.test" for number in range(120)]
    assert "and 70 more" in text


def test_orcpt_and_envid_are_decoded():
    env = envelope(
        envelope_id="QQ+2B1+3D",
        recipients=[Recipient("user@example.test", "example.test", "x", 0, "rfc822;old+2Buser@example.test")],
    )
    _, _, whole, (recipient,), _ = parse(build(env=env)[1])
    assert whole["Original-Envelope-Id"] == "QQ+1="
    assert recipient["Original-Recipient"] == "rfc822; old+user@example.test"


@pytest.mark.parametrize(
    ("ret", "kind", "changes", "content", "wanted"),
    [
        ("FULL", "failed", {}, CONTENT, "message/rfc822"),
        ("FULL", "expired", {}, CONTENT, "message/rfc822"),
        ("FULL", "delayed", {}, CONTENT, "text/rfc822-headers"),
        ("HDRS", "failed", {}, CONTENT, "text/rfc822-headers"),
        ("", "failed", {}, CONTENT, "text/rfc822-headers"),
        ("FULL", "failed", {}, None, "text/rfc822-headers"),
        ("FULL", "failed", {}, HEADER + b"\r\n" + b"x\r\n" * dsn.MAX_CONTENT_BYTES, "text/rfc822-headers"),
        ("FULL", "failed", {}, HEADER + b"\r\n\xe4\r\n", "text/rfc822-headers"),
        ("FULL", "failed", {}, HEADER + b"\r\n" + b"x" * 999 + b"\r\n", "text/rfc822-headers"),
        ("FULL", "failed", {"body_type": "BINARYMIME"}, CONTENT, "text/rfc822-headers"),
    ],
)
def test_what_is_returned(ret, kind, changes, content, wanted):
    made, built = build(kind, envelope(ret=ret, **changes), original_content=content)
    *_, returned = parse(built)
    assert returned.get_content_type() == wanted
    if wanted == "message/rfc822":
        assert CONTENT in built
        assert made.needs_stuffing
    assert built.isascii()


def test_the_boundary_is_not_in_the_content():
    _, built = build(env=envelope(ret="FULL"), original_content=CONTENT)
    boundary = email.message_from_bytes(built).get_boundary()
    assert boundary == "=_D1/1"
    assert CONTENT.count(boundary.encode()) == 0


def test_8bit_header_bytes_are_encoded():
    original = b"Subject: \xe4\xf6\r\nX-Long: " + b"y" * 2000 + b"\r\n"
    made, built = build(original_header=original)
    *_, returned = parse(built)
    assert built.isascii()
    assert made.body_type == "7BIT"
    assert returned.get_payload(decode=True) == original
    assert max(map(len, built.split(b"\r\n"))) <= 998


def test_a_huge_header_is_cut_between_lines():
    _, built = build(original_header=b"X-Line: 1234567890\r\n" * 100_000)
    *_, returned = parse(built)
    assert dsn.MAX_HEADER_BYTES - 100 < len(returned.get_payload()) <= dsn.MAX_HEADER_BYTES
    assert returned.get_payload().strip().endswith("X-Line: 1234567890")


def test_utf8_addresses_make_a_global_dsn():
    env = envelope(
        reverse_path="grüße@bücher.test",
        smtputf8=True,
        recipients=[Recipient("юзер@пример.test", "xn--e1afmkfd.test", "x")],
    )
    made, built = build(env=env, original_header="Subject: Привет\r\n".encode())
    message = email.message_from_bytes(built, policy=email.policy.SMTPUTF8)
    assert [part.get_content_type() for part in message.get_payload()] == [
        "text/plain", "message/global-delivery-status", "message/global-headers",
    ]  # fmt: skip
    assert "To: <grüße@bücher.test>\r\n".encode() in built
    assert "\r\nFinal-Recipient: utf-8; юзер@пример.test\r\n".encode() in built
    assert "Subject: Привет".encode() in built
    assert (made.smtputf8, made.has_8bit, made.body_type) == (True, True, "8BITMIME")
    assert made.recipients[0].domain == "xn--bcher-kva.test"


@pytest.mark.parametrize(("ret", "returned_type"), [("FULL", "message/global"), ("HDRS", "message/global-headers")])
def test_a_sender_in_ascii_hears_of_an_internationalised_message_where_nothing_takes_8_bit(ret, returned_type):
    """RFC 6532 3.7, RFC 6533 6: the encoded form of what is returned loses nothing."""
    env = envelope(smtputf8=True, ret=ret, recipients=[Recipient("юзер@пример.test", "xn--e1afmkfd.test", "x")])
    header = "Subject: Привет\r\nX-Long: ".encode() + b"=" * 200 + b"\r\n"
    content = header + "\r\nЗдравствуйте. \r\n.\r\n".encode()
    made, built = build(env=env, original_header=header, original_content=content)
    assert built.isascii() and max(map(len, built.split(b"\r\n"))) <= 998
    assert (made.smtputf8, made.has_8bit, made.body_type) == (False, False, "7BIT")
    message = email.message_from_bytes(built, policy=email.policy.SMTP)
    text, status, returned = message.get_payload()
    assert "юзер@пример.test" in text.get_content()
    assert re.search(r"Final-Recipient: utf-8;\s+\\x\{44E\}", status.as_string())
    assert returned.get_content_type() == returned_type
    encoded = built.partition(b"Content-Type: " + returned_type.encode())[2].partition(b"\r\n\r\n")[2]
    decoded = quopri.decodestring(encoded.partition(b"\r\n--=_")[0])
    assert decoded.replace(b"\r\n", b"\n") == (content if ret == "FULL" else header).replace(b"\r\n", b"\n")


def test_an_ascii_message_sent_with_smtputf8_gets_a_plain_dsn():
    made, built = build(env=envelope(smtputf8=True))
    assert built.isascii()
    assert b"message/delivery-status" in built
    assert not made.smtputf8


def test_a_reply_outside_ascii_does_not_make_the_dsn_8bit():
    env = envelope()
    _, built = build(env=env, outcomes=[(env.recipients[0], failed("5.1.1 Empfänger unbekannt"))])
    _, text, _, (recipient,), _ = parse(built)
    assert built.isascii()
    assert "Empfänger unbekannt" in text
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 Empf?nger unbekannt"


def test_no_dsn_for_the_null_reverse_path():
    env = envelope(reverse_path="")
    assert bounce.suppressed_by("failed", env, env.recipients[0]) == "null reverse-path"
    with pytest.raises(ValueError, match="null reverse-path"):
        build(env=env)


def test_a_dsn_begets_no_dsn():
    made, _ = build()
    assert bounce.suppressed_by("failed", made, made.recipients[0])


@pytest.mark.parametrize(
    ("notify", "failed", "delayed", "delivered"),
    [
        (0, True, True, False),
        (bounce.NOTIFY_NEVER, False, False, False),
        (bounce.NOTIFY_FAILURE, True, False, False),
        (bounce.NOTIFY_DELAY, False, True, False),
        (bounce.NOTIFY_SUCCESS, False, False, True),
        (bounce.NOTIFY_SUCCESS | bounce.NOTIFY_FAILURE | bounce.NOTIFY_DELAY, True, True, True),
    ],
)
def test_notify_is_honoured(notify, failed, delayed, delivered):
    env = envelope()
    recipient = Recipient("user@example.test", "example.test", "x", notify)
    assert (not bounce.suppressed_by("failed", env, recipient)) == failed
    assert (not bounce.suppressed_by("expired", env, recipient)) == failed
    assert (not bounce.suppressed_by("delayed", env, recipient)) == delayed
    assert (not bounce.suppressed_by("delivered", env, recipient)) == delivered


def test_a_long_address_stays_in_one_piece():
    address = f"{'a' * 64}@{'.'.join(['b' * 60] * 3)}.test"
    env = envelope(recipients=[Recipient(address, "b.test", "x", 0, f"rfc822;{address}")])
    _, built = build(env=env)
    assert f"Final-Recipient: rfc822; {address}\r\n".encode() in built.replace(b"\r\n    ", b" ")
    *_, (recipient,), _ = parse(built)
    assert recipient["Original-Recipient"].split() == ["rfc822;", address]


def test_hosts_without_a_name():
    env = envelope()
    _, built = build(env=env, outcomes=[(env.recipients[0], failed(host="[2001:db8::1]:25"))])
    *_, (recipient,), _ = parse(built)
    assert recipient["Remote-MTA"] == "dns; [2001:db8::1]"


@pytest.mark.parametrize("status", ["", "5.1", "9.1.1", "5.1.1\r\nX: y", "5.9999.1"])
def test_a_strange_status_becomes_a_plain_one(status):
    env = envelope()
    _, built = build(env=env, outcomes=[(env.recipients[0], failed(status=status))])
    *_, (recipient,), _ = parse(built)
    assert recipient["Status"] == "5.0.0"


HOSTILE = st.text(
    st.sampled_from("ab :;<>@.\r\n\t\0\x1b\x7f\x9b\u202e\ud800é字=+-_/D10"), max_size=300
) | st.sampled_from(
    [
        "\r\n\r\n--=_D1/0\r\n",
        "x" * 5000,
        "a\r\nBcc: victim@example.test\r\n\r\n",
        "\n\nFinal-Recipient: rfc822; other@x",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    text=HOSTILE,
    address=HOSTILE,
    host=HOSTILE,
    original=HOSTILE,
    envid=HOSTILE,
    field=st.binary(max_size=200),
    utf8=st.booleans(),
)
def test_nothing_a_peer_said_gets_out_of_its_place(text, address, host, original, envid, field, utf8):
    recipient = Recipient(address, "example.test", "x", 0, f"rfc822;{original}")
    env = envelope(reverse_path=f"s{address}", recipients=[recipient], envelope_id=envid, ret="FULL", smtputf8=utf8)
    made, built = build(
        env=env,
        outcomes=[(recipient, failed(text, host=host))],
        original_header=b"X: " + field + b"\r\n",
        original_content=b"X: " + field + b"\r\n\r\n" + field,
    )
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", built)
    assert max(map(len, built.split(b"\r\n"))) <= 998
    if not made.smtputf8:
        assert built.isascii()
    top = built.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in top.split(b"\r\n") if not line.startswith(b"\t")]
    assert set(names) <= {
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"In-Reply-To", b"References", b"Auto-Submitted",
        b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding",
    }  # fmt: skip
    assert len(names) == len(set(names))
    boundary = re.search(rb'boundary="([^"]+)"', top)[1]
    parts = built.split(b"--" + boundary)
    assert len(parts) == 5
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", b"".join(parts[:3]))
    status = parts[2].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    whole, rows, *others = status.split(b"\r\n\r\n")
    assert not others
    fields = [line.partition(b":")[0] for line in rows.split(b"\r\n") if line and not line.startswith(b" ")]
    assert fields.count(b"Final-Recipient") == fields.count(b"Diagnostic-Code") == 1
    assert set(fields) <= {
        b"Original-Recipient", b"Final-Recipient", b"Action", b"Status", b"Remote-MTA", b"Diagnostic-Code",
        b"Last-Attempt-Date",
    }  # fmt: skip
    assert whole.startswith(b"Reporting-MTA:")


@pytest.mark.parametrize(
    ("original", "shown"),
    [
        ("rfc822;a+2Bb+20c@example.org", "rfc822; a+b c@example.org"),
        ("utf-8;bj\\x{F6}rn@example.org", "utf-8; bj\\x{F6}rn@example.org"),
        ("utf-8;björn@example.org", "utf-8; bj\\x{F6}rn@example.org"),
        ("utf-8;a\\x{110000}@example.org", "utf-8; a?@example.org"),
    ],
)
def test_the_original_recipient_in_ascii(original, shown):
    """RFC 3464 2.3.1, RFC 6533 3."""
    recipient = Recipient("user@example.test", "example.test", "smtp://10.0.0.5:25", original=original)
    _, content = build(outcomes=[(recipient, failed())])
    assert content.isascii()
    _, _, _, (row,), _ = parse(content)
    assert row["Original-Recipient"] == shown


def test_utf8_addresses_stand_as_themselves_where_the_sender_can_read_them():
    """RFC 6533 4."""
    recipient = Recipient(
        "börn@example.test", "example.test", "smtp://10.0.0.5:25", original="utf-8;bj\\x{F6}rn@example.org"
    )
    env = envelope(reverse_path="grüße@bücher.test", smtputf8=True, recipients=[recipient])
    made, content = build(env=env, outcomes=[(recipient, failed())])
    assert made.smtputf8
    assert "Original-Recipient: utf-8; björn@example.org\r\n".encode() in content
    assert "Final-Recipient: utf-8; börn@example.test\r\n".encode() in content
    assert b"Content-Type: message/global-delivery-status" in content


def test_what_was_asked_of_its_time_stands_in_the_dsn():
    """RFC 2852 5, RFC 4865 5."""
    env = envelope(deliver_by="RT", deliver_by_s=T0 + 60, release_s=T0 + 30)
    outcome = Outcome(0, Result.DEFERRED, "rcpt", 451, "4.2.0", "4.2.0 Later", "")
    _, content = build("expired", env, [(env.recipients[0], outcome)])
    _, _, whole, (row,), _ = parse(content)
    assert whole["Deliver-By-Date"] == "Tue, 14 Nov 2023 22:14:20 +0000"
    assert whole["Future-Release-Request"] == "until;2023-11-14T22:13:50Z"
    assert row["Status"] == "5.4.7"


def test_a_message_that_waited_for_tls_it_requires():
    env = envelope(requiretls=True, ret="FULL")
    outcome = Outcome(0, Result.DEFERRED, "tls", 0, "4.7.4", "no STARTTLS", "")
    made, content = build("expired", env, [(env.recipients[0], outcome)], original_content=CONTENT)
    _, _, _, (row,), returned = parse(content)
    assert row["Status"] == "5.7.30"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert made.requiretls


@pytest.mark.parametrize(
    ("notify", "mode", "passed", "told"),
    [(0, "", False, False), (2, "", False, True), (2, "", True, False), (0, "NT", True, True), (1, "NT", False, False)],
)
def test_who_is_told_of_success(notify, mode, passed, told):
    recipient = Recipient("user@example.test", "example.test", "smtp://10.0.0.5:25", notify=notify)
    outcome = Outcome(0, Result.DELIVERED, "body", 250, "2.0.0", "ok", dsn_passed=passed)
    env = envelope(recipients=[recipient], deliver_by=mode)
    assert bounce.is_success_told("relayed", env, recipient, outcome) is told
    assert not bounce.is_success_told("relayed", envelope(reverse_path="", deliver_by=mode), recipient, outcome)
