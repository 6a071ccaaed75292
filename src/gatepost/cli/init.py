"""`gatepost init`: asks a few questions, writes one commented configuration, prints the DNS records to publish.

Every answer is also an option; with `--yes` nothing is asked. What is written has been through the parser of `gatepost check`
before it gets its name. It writes that one file and nothing else: no spool, no users, no DNS.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence

import click
import msgspec
from msgspec.structs import replace

from gatepost.cli.options import DEFAULT_CONFIG, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.nexthop import canonical, parse_next_hop
from gatepost.config.publish import Record, records_to_publish
from gatepost.config.schema import Config
from gatepost.config.template import Answers, build_config_text, put_in_place, write_aside
from gatepost.config.values import InvalidValue, parse_domain, parse_fqdn, parse_listen, parse_network


def _next_hop(text: str) -> str:
    if text.startswith("maildir:") and not text.startswith("maildir:/"):
        text = "maildir:" + os.path.abspath(text.removeprefix("maildir:"))
    return canonical(parse_next_hop(text))


def _network(text: str) -> str:
    return str(parse_network(text))


def _listen(text: str) -> str:
    return str(parse_listen(text))


def _path(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise InvalidValue("the path is empty or holds control characters", "write a path such as /var/spool/gatepost")
    return os.path.abspath(text.strip())


class _Value(click.ParamType[str]):
    """An option whose value goes through one of our parsers."""

    def __init__(self, name: str, parse: Callable[[str], str]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._parse(str(value))
        except InvalidValue as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option("--yes", is_flag=True, help="Ask nothing: take the options, and defaults for the rest.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="The file to write: by default /etc/gatepost/gatepost.toml for root, else ./gatepost.toml.",
)
@click.option("--hostname", type=_Value("name", parse_fqdn), help="The full host name of the gateway.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    type=_Value("domain", parse_domain),
    help="A domain to accept; again for more.",
)
@click.option(
    "--next-hop",
    "next_hop",
    multiple=True,
    type=_Value("hop", _next_hop),
    help="Where its mail goes: smtp://HOST:PORT, lmtp://HOST:PORT, maildir:DIR, or mx; again for a second choice.",
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    type=_Value("cidr", _network),
    help="A network that may relay; again for more.",
)
@click.option("--listen", multiple=True, type=_Value("addr:port", _listen), help="Where to listen; again for more.")
@click.option("--spool", type=_Value("dir", _path), help="The directory for queued mail.")
@click.option("--recipients", type=_Value("file", _path), help="A file with the recipients that exist.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@json_option
def init(
    yes: bool,
    output: str | None,
    hostname: str | None,
    domains: tuple[str, ...],
    next_hop: tuple[str, ...],
    networks: tuple[str, ...],
    listen: tuple[str, ...],
    spool: str | None,
    recipients: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a configuration, and print the DNS records to publish."""
    output = os.path.abspath(output or (DEFAULT_CONFIG if os.geteuid() == 0 else "gatepost.toml"))
    if os.path.lexists(output) and not force:
        raise click.UsageError(f"{output} exists already; give --force to overwrite it, or another --output")
    given = Answers(
        hostname=hostname or "",
        domains=_unique(domains),
        next_hop=_unique(next_hop),
        networks=_unique(networks),
        listen=_unique(listen),
        spool=spool or "",
        recipients_file=recipients,
    )
    answers = _with_defaults(given) if yes else _asked(given)
    config = _install(answers, output, force)
    records = records_to_publish(config)
    data = {"file": output, "config": msgspec.to_builtins(answers), "dns": msgspec.to_builtins(records)}
    emit(data, as_json, _report(output, records, answers))


def _default_hostname() -> str | None:
    try:
        return parse_fqdn(socket.gethostname())
    except InvalidValue:
        return None


def _default_listen() -> list[str]:
    port = 25 if os.geteuid() == 0 else 2525
    return [f"0.0.0.0:{port}", f"[::]:{port}"]


def _default_spool() -> str:
    return "/var/spool/gatepost" if os.geteuid() == 0 else os.path.expanduser("~/.local/state/gatepost/spool")


def _with_defaults(given: Answers) -> Answers:
    hostname = given.hostname or _default_hostname() or ""
    needed = (("--hostname", hostname), ("--domain", given.domains), ("--next-hop", given.next_hop))
    missing = [option for option, value in needed if not value]
    if missing:
        raise click.UsageError(f"with --yes these have no default and must be given: {', '.join(missing)}")
    listen = given.listen or _default_listen()
    return replace(given, hostname=hostname, listen=listen, spool=given.spool or _default_spool())


def _asked(given: Answers) -> Answers:
    """Ask for what no option has answered; several values are separated by spaces or commas."""
    hostname = given.hostname or _one("Full host name of this gateway", parse_fqdn, _default_hostname())
    above = hostname.partition(".")[2]
    suggestion = above if "." in above else None
    answers = replace(
        given,
        hostname=hostname,
        domains=given.domains or _several("Domains to accept mail for", parse_domain, suggestion),
        next_hop=given.next_hop
        or _several("Where their mail goes (smtp://HOST:25, lmtp://HOST:24, maildir:DIR)", _next_hop, None),
        networks=given.networks
        or _several("Own networks that may send to the world through it (none: nobody)", _network, "none"),
        listen=given.listen or _several("Listen on", _listen, " ".join(_default_listen())),
        spool=given.spool or _one("Directory for queued mail", _path, _default_spool()),
    )
    if given.recipients_file is None:
        file = _one("File with the recipients that exist (none: accept every one)", _path_or_none, "none")
        answers.recipients_file = file or None
    return answers


def _path_or_none(text: str) -> str:
    return "" if text.strip() == "none" else _path(text)


def _one(question: str, parse: Callable[[str], str], default: str | None) -> str:
    while True:
        try:
            return parse(str(click.prompt(question, default=default, err=True)))
        except InvalidValue as error:
            complain(f"  {error}")


def _several(question: str, parse: Callable[[str], str], default: str | None) -> list[str]:
    while True:
        text = str(click.prompt(question, default=default, err=True))
        if text.strip() == "none" and default == "none":
            return []
        try:
            values = [parse(part) for part in text.replace(",", " ").split()]
        except InvalidValue as error:
            complain(f"  {error}")
            continue
        if values:
            return _unique(values)


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _install(answers: Answers, output: str, force: bool) -> Config:
    """Write the file, load it as `gatepost check` would, and only then give it its name."""
    mode = 0o640 if os.geteuid() == 0 else 0o600
    try:
        aside = write_aside(output, build_config_text(answers), mode)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None
    try:
        config = load_config(aside)
        put_in_place(aside, output, force)
    except ConfigErrors as errors:
        raise ConfigErrors([_renamed(error, aside, output) for error in errors]) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)  # it has its name by now, or is not to have one
    return config


def _renamed(error: ConfigError, aside: str, output: str) -> ConfigError:
    return replace(error, file=output) if error.file == aside else error


def _report(output: str, records: list[Record], answers: Answers) -> list[str]:
    lines = [f"Wrote {output}.", "", "DNS records to publish:", ""]
    names = max(len(record.name) for record in records)
    for record in records:
        lines.append(f"  {record.name:<{names}}  IN  {record.type:<4}  {record.value}")
        lines.append(f"  {'':<{names}}      ; {record.note}")
    lines += [
        "",
        "Records for DKIM, MTA-STS and DANE (TLSA) come later, with the parts of the gateway that need them.",
        "",
        "Next:",
        f"  gatepost check --config {output}",
        f"  gatepost run --config {output}",
    ]
    if not answers.networks:
        lines.append("Nobody may relay to the world yet: add your own networks in the section [relay] if they should.")
    return lines
