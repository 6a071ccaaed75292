"""`gatepost import sendmail DIR` and `gatepost import postfix DIR`: a configuration and a report out of another server's.

Reads the old files and writes below the output directory, nowhere else; no program of the old server is run. Ends 0 if everything
was taken over exactly, approximately, or is of no use here; 1 if a construct was refused (the report says what to do); 2 if nothing
usable was written.
"""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from gatepost.cli.main import EXIT_FAILED, EXIT_USAGE
from gatepost.cli.options import json_option
from gatepost.cli.output import complain, emit
from gatepost.migrate.draft import Draft, write_file
from gatepost.migrate.postfix import PostfixImport
from gatepost.migrate.report import Item, Report, Result
from gatepost.migrate.sendmail import SendmailImport

REPORT_NAME = "migration-report.txt"


class Answer(msgspec.Struct, kw_only=True):
    """What `--json` prints."""

    source: str
    config: str
    ok: bool
    counts: dict[str, int]
    files: list[str]
    problems: list[str]
    items: list[Item]


@click.group("import")
def import_() -> None:
    """Take over the configuration of a sendmail or Postfix gateway.

    Writes gatepost.toml, the tables that could not be used as they are, and a report that tells of every construct by file and line.
    """


_options = [
    click.argument("directory", type=click.Path(exists=True, file_okay=False)),
    click.option(
        "--output",
        metavar="DIR",
        type=click.Path(file_okay=False),
        default="gatepost-import",
        show_default=True,
        help="Where to write.",
    ),
    click.option(
        "--hostname", metavar="NAME", default="", help="The full host name, where the old files do not tell it."
    ),
    click.option(
        "--copy", is_flag=True, help="Copy the tables beside the configuration, instead of naming the old files."
    ),
    click.option("--force", is_flag=True, help="Overwrite what an earlier import has written there."),
    json_option,
]


def _with_options(function: Any) -> Any:
    for option in reversed(_options):
        function = option(function)
    return function


@import_.command()
@_with_options
@click.pass_context
def sendmail(
    ctx: click.Context, directory: str, output: str, hostname: str, copy: bool, force: bool, as_json: bool
) -> None:
    """Import /etc/mail: sendmail.mc, its tables as text or .db, relay-domains, local-host-names, aliases."""
    importer = SendmailImport(directory, hostname, copy)
    importer.run()
    _finish(ctx, importer.draft, importer.report, output, force, as_json)


@import_.command()
@_with_options
@click.pass_context
def postfix(
    ctx: click.Context, directory: str, output: str, hostname: str, copy: bool, force: bool, as_json: bool
) -> None:
    """Import /etc/postfix: main.cf, master.cf and the tables they name."""
    importer = PostfixImport(directory, hostname, copy)
    importer.run()
    _finish(ctx, importer.draft, importer.report, output, force, as_json)


def _finish(ctx: click.Context, draft: Draft, report: Report, output: str, force: bool, as_json: bool) -> None:
    """Write, check what was written as `gatepost check` would, and print."""
    output = os.path.abspath(output)
    config = os.path.join(output, "gatepost.toml")
    if os.path.lexists(config) and not force:
        raise click.UsageError(f"{config} exists already; give --force to overwrite it, or another --output")
    for key, how in draft.settle_order():
        report.approximated(draft.source, 0, key, how)
    items = report.items()
    counts = report.counts()
    try:
        problems = draft.write(output)
        text = "\n".join([_summary(draft, counts), "", *map(str, items)]) + "\n"
        write_file(os.path.join(output, REPORT_NAME), text)
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror}") from None
    answer = Answer(
        source=draft.source,
        config=config,
        ok=not problems,
        counts=counts,
        files=sorted([*draft.files, "gatepost.toml", REPORT_NAME]),
        problems=problems,
        items=items,
    )
    emit(answer, as_json, _text(answer))
    if problems:
        complain(
            "gatepost: the configuration that was written cannot be used yet:", *(f"  {line}" for line in problems)
        )
        ctx.exit(EXIT_USAGE)
    if counts[Result.REFUSED.value]:
        ctx.exit(EXIT_FAILED)


def _summary(draft: Draft, counts: dict[str, int]) -> str:
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"Import of {draft.source}: {told}."


def _text(answer: Answer) -> list[str]:
    lines = [str(item) for item in answer.items]
    told = ", ".join(f"{count} {name}" for name, count in answer.counts.items())
    return [
        *lines,
        "",
        f"{told}.",
        f"Wrote {', '.join(answer.files)} in {os.path.dirname(answer.config)}.",
        f"Next: gatepost check --config {answer.config}",
    ]
