"""Every command and every option says what it is for, and the page and the README name them all."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from gatepost.cli.main import COMMANDS
from gatepost.cli.reference import all_commands, build_page

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL = dict(all_commands())
PRINTS_NO_DATA = {"gatepost run"}


@pytest.mark.parametrize("name", ALL)
def test_a_command_says_what_it_does(name):
    first, _, _rest = (ALL[name].help or "").partition("\n")
    assert first.endswith("."), "the first line is a whole sentence"
    assert first.strip() and len(first) < 120


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_help_text(name):
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").endswith("."), parameter.opts


@pytest.mark.parametrize("name", sorted(set(ALL) - PRINTS_NO_DATA))
def test_what_prints_data_prints_it_as_json_too(name):
    assert any("--json" in parameter.opts for parameter in ALL[name].params)


def test_the_page_is_what_the_program_says():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == build_page(), "python -m gatepost.cli.reference > docs/commands.md"


def test_the_readme_leads_to_the_page():
    assert "(docs/commands.md)" in README


@pytest.mark.parametrize("name", [name.split()[-1] for name in ALL if name.startswith("gatepost queue")])
def test_the_readme_names_every_verb_of_the_queue(name):
    line = next(line for line in README.splitlines() if "gatepost queue" in line)
    assert name in line.split()[2].split("|")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_and_the_command_agree(name):
    command = next(value for full, value in ALL.items() if full.split()[1] == name)
    if f"gatepost {name}" in ALL:
        assert (command.help or "").split("\n")[0] == COMMANDS[name][1]
