"""What the load sends and the sink reads: a message proves who it is, however it was stored."""

from __future__ import annotations

import random
from collections import Counter

from bench.crash.content import LARGEST_BYTES, SMALLEST_BYTES, build_bodies, build_header, read_content
from bench.crash.kills import WEIGHTS, plan_kills

TRACE = b"Received: from a.test by b.test\r\n\twith ESMTP id 0660E1ABC; Mon, 1 Jan 2024 00:00:00 +0000\r\n"


def test_a_message_proves_itself():
    for stuffed, crc in build_bodies(random.Random(1), 20):
        body = (b"\r\n" + stuffed).replace(b"\r\n..", b"\r\n.")[2:]
        content = TRACE + build_header("r1c2n3", crc) + body
        assert read_content(content) == ("r1c2n3", "0660E1ABC", True)
        assert read_content(b"Delivered-To: a@b.test\n" + content.replace(b"\r\n", b"\n")) == (
            "r1c2n3",
            "0660E1ABC",
            True,
        )
        assert read_content(content[:-3] + b"x\r\n") == ("r1c2n3", "0660E1ABC", False)
        assert read_content(content[:-9])[2] is False


def test_sizes_and_dots():
    bodies = [body for body, _ in build_bodies(random.Random(2))]
    assert min(map(len, bodies)) >= SMALLEST_BYTES and max(map(len, bodies)) > LARGEST_BYTES // 3
    assert any(b"\r\n.." in body for body in bodies)
    assert all(body.endswith(b"\r\n") and b"\r\n.\r\n" not in body for body in bodies)


def test_strangers_have_no_id():
    assert read_content(b"Subject: x\r\n\r\nhello\r\n") == ("", "", False)


def test_every_target_is_killed():
    plan = plan_kills(random.Random(1), 60)
    assert len(plan) == 60 and set(plan) == set(WEIGHTS)
    assert Counter(plan)["queue"] > Counter(plan)["control"]
    assert len(plan_kills(random.Random(1), 3)) == 3
