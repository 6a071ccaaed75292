"""The date of a header field."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from gatepost.mail.date import build_date


@pytest.fixture
def zone(monkeypatch):
    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("now_s", [0, 951_782_400.999, 1_700_000_000, 1_709_164_800, 4_102_444_800])
def test_a_standard_parser_reads_it(now_s):
    assert parsedate_to_datetime(build_date(now_s)).timestamp() == int(now_s)


def test_utc():
    assert build_date(1_700_000_000.7) == "Tue, 14 Nov 2023 22:13:20 +0000"


@pytest.mark.parametrize(
    ("name", "now_s", "wanted"),
    [
        ("XYZ-5:30", 1_700_000_001, "Wed, 15 Nov 2023 03:43:21 +0530"),
        ("XYZ3:30", 1_700_000_002, "Tue, 14 Nov 2023 18:43:22 -0330"),
    ],
)
def test_local_zone(zone, name, now_s, wanted):
    zone(name)
    assert build_date(now_s, local=True) == wanted
    assert build_date(now_s).endswith("+0000")
