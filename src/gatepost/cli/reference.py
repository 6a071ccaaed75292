"""docs/commands.md, made from the commands themselves: `python -m gatepost.cli.reference > docs/commands.md`.

A test fails while the page is not what this makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from gatepost.cli.main import cli

HEAD = """# Commands

Made from the program by `python -m gatepost.cli.reference > docs/commands.md`. Every command has `--help` (`-h`).

Exit status: 0 it worked, 1 it was tried and failed, 2 wrong usage or a bad configuration (nothing was tried).
"""


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, click.Context(child, info_name=name, parent=context))
    else:
        yield context.command_path, command


def all_commands() -> list[tuple[str, click.Command]]:
    """`gatepost check`, `gatepost queue list` ... with their click objects."""
    return list(walk(cli, click.Context(cli, info_name="gatepost")))


def build_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, command in all_commands():
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        options = [p for p in command.params if isinstance(p, click.Option)]
        usage = " ".join([name, "[OPTIONS]" if options else "", *(a.metavar or str(a.name).upper() for a in arguments)])
        parts.append(f"## {name}\n\n    {' '.join(usage.split())}\n\n{_text(command)}\n")
        rows = [f"| {_names(option)} | {_cell(option.help or '')}{_default(option)} |" for option in options]
        if rows:
            parts.append("| option | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _text(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _names(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    more = " ..." if option.multiple else ""
    return ", ".join(f"`{name}{value}`" for name in option.opts) + more


def _default(option: click.Option) -> str:
    if not option.show_default:
        return ""
    variable = f", or the variable `{option.envvar}`" if option.envvar else ""
    return f" Default: `{option.default}`{variable}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(build_page(), nl=False)
