"""docs/attestation.md is written whatever came out of it, and says what failed."""

from __future__ import annotations

from pathlib import Path

from bench import attest

LIVE = {
    "as_declared": False,
    "processes": [
        {
            "role": "receiver", "instance": 0, "refused": 27, "tried": 28, "writable": ["/x"], "landlock": "abi 6",
            "declared": {"syscalls": ["read", "write"]}, "kernel": {"descriptors": [1, 2, 3], "locked_bytes": 4096}, "differences": ["user: ..."],
        }
    ],
    "selftest": {"ok": 5, "warning": 0, "failed": 1, "skipped": 0},
}  # fmt: skip


def test_the_page_says_what_failed():
    page = attest.build_page(
        {"a proof": {"passed": 3, "failed": 1, "skipped": 0}}, LIVE, {"gatepost.service": "1.2 OK"}
    )
    assert "| a proof | 3 | 1 | 0 |" in page
    assert "NOT as declared" in page
    assert "| receiver/0 | 27 of 28 | 2 | 3 | /x | abi 6 | 4 KiB | user: ... |" in page
    assert "1 failed" in page and "| gatepost.service | 1.2 OK |" in page


def test_every_proof_is_there():
    for paths in attest.PROOFS.values():
        for path in paths:
            assert (attest.ROOT / path).exists(), path


def test_a_unit_that_is_not_there_has_no_figure():
    assert not attest.exposure(Path("/no/such.service"))[0].isdigit()
