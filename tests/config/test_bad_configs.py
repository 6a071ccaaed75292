"""Every broken configuration in tests/bad_configs gets exactly the messages that stand beside it, all at once.

After a change of a message: `python tests/config/test_bad_configs.py` writes them anew; read the difference before it is
committed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config

DIRECTORY = Path(__file__).resolve().parent.parent / "bad_configs"
CASES = sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def messages(case: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load_config(str(DIRECTORY / f"{case}.toml"))
    assert len(caught.value) == len(list(caught.value)) > 0
    return str(caught.value).replace(f"{DIRECTORY}/", "") + "\n"


@pytest.mark.parametrize("case", CASES)
def test_messages(case: str) -> None:
    assert messages(case) == (DIRECTORY / f"{case}.expected").read_text(encoding="utf-8")


def test_there_is_no_expectation_without_a_case() -> None:
    assert sorted(path.stem for path in DIRECTORY.glob("*.expected")) == CASES


if __name__ == "__main__":
    for name in CASES:
        (DIRECTORY / f"{name}.expected").write_text(messages(name), encoding="utf-8")
