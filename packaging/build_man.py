"""Writes the man pages gatepost(1), from the commands' own help, gatepost.toml(5) and gatepost-sendmail(1), from docs/, and the completion.

Nothing of them is written by hand or committed, so that they cannot be out of date. docs/config.md is compared with the schema by a
test of its own. Input is text of this project only; the Markdown understood is what docs/config.md uses.
"""

from __future__ import annotations

import argparse
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from sourcetree import ROOT, read_version, source_epoch

from gatepost.cli.main import cli

PROGRAM = "gatepost"
SHELLS = {
    "bash": "usr/share/bash-completion/completions/gatepost",
    "zsh": "usr/share/zsh/vendor-completions/_gatepost",
    "fish": "usr/share/fish/vendor_completions.d/gatepost.fish",
}
_FILES = {
    "/etc/gatepost/gatepost.toml": "The configuration; gatepost.toml(5).",
    "/var/spool/gatepost": "The queue.",
    "/var/spool/gatepost/run/control.sock": "Where queue, ledger, privs and reload reach the running gateway.",
}
_EXITS = {
    "0": "It worked.",
    "1": "It was tried and failed.",
    "2": "Wrong usage or a bad configuration; nothing was tried.",
}


def quote(text: str) -> str:
    """Text as roff shows it: no request at the start of a line, no escape, hyphens that can be copied."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti")
    )
    return text.replace("^", "\\(ha")


def paragraph(text: str) -> str:
    """One line of running text; it may begin with what roff would take for a request."""
    line = " ".join(text.split())
    return "\\&" + line if line.startswith((".", "\\(aq")) else line


def head(name: str, section: int, what: str) -> list[str]:
    day = datetime.datetime.fromtimestamp(source_epoch(), datetime.UTC).strftime("%Y-%m-%d")
    title = f'.TH {quote(name.upper())} {section} {quote(day)} "Gatepost {quote(read_version())}"'
    return [title, ".nh", ".ad l", ".SH NAME", f"{quote(name)} \\- {what}"]


# --- gatepost(1) ----------------------------------------------------------------------------------------------------------


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """A command and everything below it, in the order of its help."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, info_name=name, parent=context))


def build_command_page() -> str:
    """gatepost(1)."""
    top = click.Context(cli, info_name=PROGRAM)
    lines = head(PROGRAM, 1, "a hardened SMTP gateway")
    lines += [".SH SYNOPSIS", ".B gatepost", ".I COMMAND", "[\\fIOPTION\\fR]...", ".SH DESCRIPTION"]
    lines += [*_help_text(cli), ".SH COMMANDS"]
    for command, context in commands(cli, top):
        if isinstance(command, click.Group) and command is cli:
            continue
        usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "COMMAND [ARGS]...")
        lines += [f'.SS "{quote(context.command_path)} {quote(usage)}"', *_help_text(command)]
        for parameter in command.get_params(context):
            if parameter.name == "help" or not isinstance(parameter, click.Option):
                continue
            if record := parameter.get_help_record(context):
                lines += [".TP", f"\\fB{quote(record[0])}\\fR", paragraph(quote(record[1]))]
    lines += [".SH EXIT STATUS", *_list(_EXITS), ".SH ENVIRONMENT"]
    lines += [".TP", "\\fBGATEPOST_CONFIG\\fR", "The configuration file, where no option names one."]
    lines += [".SH FILES", *_list(_FILES), ".SH SEE ALSO", ".BR gatepost.toml (5)"]
    return "\n".join(lines) + "\n"


def _list(rows: dict[str, str]) -> list[str]:
    return [line for key, text in rows.items() for line in (".TP", f"\\fB{quote(key)}\\fR", paragraph(quote(text)))]


def _help_text(command: click.Command) -> list[str]:
    text = (command.help or "").split("\f")[0]
    return [line for block in text.split("\n\n") if block.strip() for line in (".PP", paragraph(quote(block)))]


# --- gatepost.toml(5) -----------------------------------------------------------------------------------------------------


def build_config_page(markdown: str) -> str:
    """gatepost.toml(5) from the text of docs/config.md."""
    lines = [*head("gatepost.toml", 5, "configuration of gatepost(1)"), ".SH DESCRIPTION", *_body(markdown)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR gatepost (1)"]) + "\n"


def build_sendmail_page(markdown: str) -> str:
    """gatepost-sendmail(1) from the text of docs/sendmail.md."""
    lines = [*head("gatepost-sendmail", 1, "send mail of programs on this host"), ".SH SYNOPSIS"]
    lines += [".B gatepost-sendmail", "[\\fIOPTION\\fR]... [\\fIADDRESS\\fR]...", ".SH DESCRIPTION", *_body(markdown)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR gatepost (1)"]) + "\n"


def _body(markdown: str) -> list[str]:
    """A page of docs/ without its title."""
    lines: list[str] = []
    for block in _blocks(markdown):
        first = block[0]
        if first.startswith("# "):
            continue  # the name of the page
        if first.startswith("```"):
            lines += [".PP", ".RS 4", ".nf", *("\\&" + quote(line) for line in block[1:-1]), ".fi", ".RE"]
        elif first.startswith("## "):
            lines.append(f'.SH "{_inline(first[3:].upper())}"')
        elif first.startswith("### "):
            lines.append(f'.SS "{_inline(first[4:])}"')
        elif first.startswith("|"):
            lines += _table(block)
        else:
            lines += [".PP", paragraph(_inline(" ".join(block)))]
    return lines


def _blocks(markdown: str) -> Iterator[list[str]]:
    block: list[str] = []
    in_code = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            in_code = not in_code
            if in_code and block:
                yield block
                block = []
            block.append(line)
            if not in_code:
                yield block
                block = []
        elif in_code or line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _inline(text: str) -> str:
    parts = text.split("`")
    return "".join(f"\\fB{quote(part)}\\fR" if i % 2 else _emphasis(part) for i, part in enumerate(parts))


def _emphasis(text: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link has no place to lead to
    return "".join(
        f"\\fI{quote(part)}\\fR" if i % 2 else quote(part) for i, part in enumerate(re.split(r"\*\*?", text))
    )


def _table(block: list[str]) -> list[str]:
    """The first cell as a tag; then the others, named by their column except the last, which speaks for itself."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block]
    names, lines = rows[0], []
    for row in rows[2:]:
        facts = [f"{name}: {cell}." for name, cell in zip(names[1:-1], row[1:-1], strict=False) if cell]
        lines += [".TP", _inline(row[0]), paragraph(_inline(" ".join([row[-1], *facts])))]
    return lines


# --- completion -----------------------------------------------------------------------------------------------------------


def build_completion(shell: str) -> str:
    """click's script for a shell; it asks the program."""
    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    # Without click's question for the version of bash, which every shell that sources the file would ask again.
    text = completion.source_template % completion.source_vars()
    text = text.replace('(string split "," $completion)', '(string split --max 1 "," $completion)')  # fish: help texts hold commas
    return text.strip("\n") + "\n"


def build_all(markdown: str | None = None) -> dict[str, str]:
    """Path below / to content of everything here."""
    markdown = (ROOT / "docs" / "config.md").read_text() if markdown is None else markdown
    pages = {
        "usr/share/man/man1/gatepost.1": build_command_page(),
        "usr/share/man/man1/gatepost-sendmail.1": build_sendmail_page((ROOT / "docs" / "sendmail.md").read_text()),
        "usr/share/man/man1/gatepost-mailq.1": ".so man1/gatepost-sendmail.1\n",
        "usr/share/man/man5/gatepost.toml.5": build_config_page(markdown),
    }
    return pages | {path: build_completion(shell) for shell, path in SHELLS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write man pages and shell completion.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "share")
    output = parser.parse_args().output
    for name, text in build_all().items():
        path = output / Path(name).relative_to("usr/share")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()
