"""The `gatepost` command: which file holds which subcommand, and what exit codes mean.

A subcommand is imported only when it is called, so that `gatepost version` does not pay for the queue, and so that the table
below is the list of all. Exit codes: 0 it worked, 1 it was tried and failed, 2 wrong usage or a bad configuration (nothing
was tried).
"""

from __future__ import annotations

import importlib

import click

import gatepost.firstload  # noqa: F401
from gatepost.cli.output import complain
from gatepost.config.errors import ConfigErrors

# name -> (module:attribute, one line for `gatepost --help`)
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("gatepost.cli.init:init", "Write a configuration, and print the DNS records to publish."),
    "check": ("gatepost.cli.check:check", "Check the configuration, file permissions, and who may relay."),
    "run": ("gatepost.cli.run:run", "Run the gateway in the foreground."),
    "import": ("gatepost.cli.import_:import_", "Take over the configuration of a sendmail or Postfix gateway."),
    "demo": ("gatepost.cli.demo:demo", "Show five exchanges on loopback, and the ledger."),
    "queue": ("gatepost.cli.queue:queue", "List, show, retry and remove queued messages; check the spool."),
    "user": ("gatepost.cli.user:user", "Add, list, change and remove the users who may authenticate."),
    "ledger": ("gatepost.cli.ledger:ledger", "Print what became of every accepted recipient."),
    "status": ("gatepost.cli.status:status", "Print how the running gateway is."),
    "selftest": ("gatepost.cli.selftest:selftest", "Ask the running gateway whether it does what it promises."),
    "stats": ("gatepost.cli.stats:stats", "Print the counters of every process."),
    "privs": ("gatepost.cli.privs:privs", "Print what each live process may do, from the kernel's records."),
    "reload": ("gatepost.cli.reload:reload", "Take the configuration anew, without losing a connection."),
    "explain": (
        "gatepost.cli.explain:explain",
        "Print what the gateway would do with a session, and why, without any effect.",
    ),
    "rewrite": (
        "gatepost.cli.rewrite:rewrite",
        "Print what addresses become in each part of a message, and by which rules.",
    ),
    "why": ("gatepost.cli.why:why", "Explain a session or a message of the past from its recorded facts."),
    "replay": (
        "gatepost.cli.replay:replay",
        "Decide the recorded facts of past traffic again under a new configuration, and print what would change.",
    ),
    "recipients": (
        "gatepost.cli.recipients:recipients",
        "Say where it is known from who exists; confirm that recipients are gone; forget what was known.",
    ),
    "tls": ("gatepost.cli.tls:tls", "Say what secures mail towards a destination, and why; forget what is remembered."),
    "version": ("gatepost.cli.version:version", "Print the version."),
}

EXIT_FAILED = 1
EXIT_USAGE = 2


class LazyGroup(click.Group):
    """A group whose commands come from COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigErrors as errors:
            complain(*(str(error) for error in errors))
            ctx.exit(EXIT_USAGE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Gatepost: a hardened SMTP gateway. It judges mail, queues it durably, passes it on, and does nothing else."""


def main() -> None:
    """The entry point of the installed command."""
    cli(prog_name="gatepost")
