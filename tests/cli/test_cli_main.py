"""The command table, exit codes, and that no data reaches a terminal as control characters."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost import __version__
from gatepost.cli.main import COMMANDS, cli
from gatepost.cli.output import emit, printable


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_explains_itself(name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Usage:" in out


def test_help_lists_every_command_without_loading_one() -> None:
    script = (
        "import sys; from gatepost.cli.main import cli\n"
        "try: cli(['--help'], prog_name='gatepost')\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name in ('ssl', 'asyncio', 'uvloop', 'gatepost.cli.run')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]")
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert text.split(",")[0] in " ".join(done.stdout.split())


def test_usage_errors_end_2() -> None:
    assert run("no-such-command")[0] == 2
    assert run("version", "--no-such-option")[0] == 2
    assert run("check", "--config", "/no/such/file")[0] == 2


def test_version() -> None:
    code, out, _ = run("version")
    assert (code, out.split()[:2]) == (0, ["gatepost", __version__])
    assert json.loads(run("version", "--json")[1])["gatepost"] == __version__


def test_module_and_command_are_the_same() -> None:
    command = [sys.executable, "-m", "gatepost", "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == run("version")[1]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("plain text, zoë, 日本", "plain text, zoë, 日本"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\r\nb\tc\x00", "a\\x0d\\x0ab\\x09c\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe\u2028\ufeff", "\\u202egpj.exe\\u2028\\ufeff"),
        ("\ud800\U000e0001", "\\ud800\\U000e0001"),
    ],
)
def test_printable(data: str, shown: str) -> None:
    assert printable(data) == shown


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=30))
def test_printable_leaves_nothing_that_acts(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in shown)
    assert printable(shown) == shown


def test_emit(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": "\x9bé"}, True, "text")
    out = capsys.readouterr().out
    assert out.isascii() and json.loads(out) == {"a": "\x9bé"}
    emit({}, False, "one\x1b\ntwo")
    assert capsys.readouterr().out == "one\\x1b\ntwo\n"
    emit({}, False, ["one\ntwo"])
    assert capsys.readouterr().out == "one\\x0atwo\n"
