"""Man pages and completion come from the program and its documentation: nothing of those is missing in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import build_man
import click
import pytest

from gatepost.cli.main import COMMANDS, cli

SENDMAIL_DOCS = (build_man.ROOT / "docs" / "sendmail.md").read_text()
CONFIG_DOCS = (build_man.ROOT / "docs" / "config.md").read_text()


def plain(roff: str) -> str:
    """The words of a page without its markup."""
    text = re.sub(r"\\f[BIRP]", "", roff)
    for code, character in (("\\-", "-"), ("\\(aq", "'"), ("\\(ga", "`"), ("\\(ti", "~"), ("\\(ha", "^"), ("\\&", "")):
        text = text.replace(code, character)
    return text


def test_every_command_and_every_option_is_in_the_page() -> None:
    page = plain(build_man.build_command_page())
    for name in COMMANDS:
        assert f'.SS "gatepost {name}' in page
    for command, context in build_man.commands(cli, click.Context(cli, info_name="gatepost")):
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in page, f"{context.command_path} {option}"
        if command is not cli and command.help:
            assert " ".join(command.help.split("\n\n")[0].split()) in page, context.command_path


def test_every_documented_key_and_its_meaning_are_in_the_page() -> None:
    page = plain(build_man.build_config_page(CONFIG_DOCS))
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \|$", CONFIG_DOCS, re.MULTILINE)
    assert len(rows) > 60
    for key, meaning in rows:
        assert f"\n{key}\n" in page, key
        words = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", meaning).split("`")[0].split()[:4]
        assert " ".join(words) in page, key


def test_what_roff_would_take_for_requests_is_quoted() -> None:
    page = build_man.build_config_page("# x\n\n.so /etc/passwd\n\n```toml\n.ex\n'x\n\\n = `a`\n```\n\n'quoted' text")
    assert "\n.so" not in page and "\n.ex" not in page and "\n'" not in page
    assert "\\&.so /etc/passwd" in page and "\\en = \\(gaa\\(ga" in page


def test_every_option_of_sendmail_is_in_its_page() -> None:
    page = plain(build_man.build_sendmail_page(SENDMAIL_DOCS))
    for option in ("-t", "-i, -oi", "-f ADDRESS", "-F NAME", "-bs", "-bp", "-N never", "-v"):
        assert option in page, option
    for status in ("EX_TEMPFAIL", "EX_NOPERM"):
        assert status in page


@pytest.mark.parametrize("number", [0, 1, 2])
def test_man_finds_nothing_wrong_with_a_page(number: int, tmp_path: Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not installed: apt install groff-base")
    pages = [build_man.build_command_page(), build_man.build_config_page(CONFIG_DOCS)]
    page = [*pages, build_man.build_sendmail_page(SENDMAIL_DOCS)][number]
    path = tmp_path / "page"
    path.write_text(page)
    result = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-Wbreak", "-rLL=100n", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0 and result.stderr == ""
    assert "SEE ALSO" in re.sub(r"\x1b\[[0-9;]*m|.\x08", "", result.stdout)


@pytest.mark.parametrize("shell", sorted(build_man.SHELLS))
def test_completion_asks_the_program(shell: str, tmp_path: Path) -> None:
    script = build_man.build_completion(shell)
    assert f"_GATEPOST_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is None:
        return  # it is click's own; that it is whole is seen above
    path = tmp_path / "completion"
    path.write_text(script)
    subprocess.run([program, "-n", str(path)], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_shows_help_texts_with_commas_whole(tmp_path: Path) -> None:
    script = tmp_path / "gatepost.fish"
    script.write_text(build_man.build_completion("fish"))
    command = f"set -x PATH {Path(sys.executable).parent} $PATH; source {script}; complete -C 'gatepost queue retr'"
    done = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "retry\tAttempt messages now, whatever their...\n"


def test_bash_completes_the_commands() -> None:
    """What the script asks, asked as the script asks it."""
    result = subprocess.run(
        [sys.executable, "-m", "gatepost"],
        env={"_GATEPOST_COMPLETE": "bash_complete", "COMP_WORDS": "gatepost ", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    offered = {line.split(",")[1] for line in result.stdout.splitlines()}
    assert set(COMMANDS) <= offered
