"""A locked-in role can open no file, and Python opens one when a codec is named for the first time: all are loaded before."""

from __future__ import annotations

import encodings
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gatepost

SOURCE = Path(gatepost.__file__).parent
NAMED = sorted(
    {
        name
        for file in SOURCE.rglob("*.py")
        for name in re.findall(r"""\.(?:en|de)code\(\s*["']([A-Za-z0-9_-]+)["']""", file.read_text(encoding="utf-8"))
    }
)
LOADED = set(
    subprocess.run(
        [sys.executable, "-I", "-c", "import gatepost.roles.skeleton, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)


def test_codecs_are_found():
    assert {"ascii", "utf-8", "utf-16-be"} <= set(NAMED)


@pytest.mark.parametrize("name", [*NAMED, "punycode"])
def test_a_codec_that_is_named_somewhere_is_loaded_with_the_skeleton(name):
    module = encodings.normalize_encoding(name).lower()
    assert f"encodings.{encodings.aliases.aliases.get(module, module)}" in LOADED
