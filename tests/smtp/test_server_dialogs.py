"""Every dialog on the bare session: each turn whole, octet by octet, and octet by octet before anything is looked at."""

from __future__ import annotations

import pytest
from dialogowner import play, settings_of
from dialogscript import Script, read_scripts

SCRIPTS = read_scripts()


@pytest.mark.parametrize("way", ["whole", "paced", "unpaced"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_dialog(script: Script, way: str) -> None:
    play(script, settings_of(script), way)


def test_there_are_dialogs_with_and_without_messages() -> None:
    assert len(SCRIPTS) > 20
    assert any(script.messages for script in SCRIPTS)
    assert any(script.unpaced for script in SCRIPTS)
