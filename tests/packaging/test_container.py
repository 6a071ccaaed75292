"""What can be seen of the container file by reading it; it is not built here."""

from __future__ import annotations

import re

from boxes import ROOT

TEXT = (ROOT / "packaging" / "container" / "Containerfile").read_text()
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == name]


def test_it_runs_without_root_and_keeps_only_the_queue() -> None:
    final = TEXT.rsplit("\nFROM ", 1)[1]
    assert instructions("USER") == ["gatepost"] and "\nUSER gatepost\n" in final
    assert final.index("USER gatepost") > final.index("RUN ")
    assert instructions("VOLUME") == ['["/var/spool/gatepost"]']
    assert all(int(port) >= 1024 for port in instructions("EXPOSE"))


def test_what_it_starts_is_the_program_itself() -> None:
    assert instructions("ENTRYPOINT") == ['["gatepost"]'] and instructions("CMD")[-1] == '["run"]'
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_nothing_is_fetched_without_a_hash_and_the_base_is_a_release() -> None:
    assert "ADD " not in TEXT
    assert not re.search(r"\b(curl|wget)\b", TEXT)
    for line in instructions("RUN"):
        assert "pip install" not in line or "--require-hashes" in line
    for base in instructions("FROM"):
        assert base.split()[0] == "debian:bookworm-slim"
