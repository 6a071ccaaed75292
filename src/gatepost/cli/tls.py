"""`gatepost tls ...`: what secures mail towards a destination, asked of the running gateway, and what is remembered of it."""

from __future__ import annotations

from typing import Any

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit, printable
from gatepost.cli.tlsreport import report
from gatepost.config.load import load_config
from gatepost.config.nexthop import NextHopError, canonical, parse_next_hop
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address
from gatepost.routing.route import Route
from gatepost.routing.router import Router


@click.group()
def tls() -> None:
    """Say what secures mail towards a destination, and forget what is remembered."""


@tls.command()
@config_option
@json_option
@click.argument("destination", metavar="HOST|DOMAIN")
def show(config_path: str, as_json: bool, destination: str) -> None:
    """Show what would be used towards a destination, and why.

    A recipient domain, a host, or a next hop such as smtp://10.0.0.5:25. Its DNS is asked as for a delivery; nothing is sent.
    """
    domain, next_hop = _destination(load_config(config_path), destination)
    answer = ask_or_exit(config_path, "tls_show", domain=domain, next_hop=next_hop)
    emit(answer, as_json, _show_lines(answer))
    if answer["problem"]:
        raise click.exceptions.Exit(1)


@tls.command()
@config_option
@json_option
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
def forget(config_path: str, as_json: bool, domains: tuple[str, ...]) -> None:
    """Forget that domains were verified: mail to them may go in clear again."""
    names = [_domain(text) for text in domains]
    answer = ask_or_exit(config_path, "tls_forget", domains=names)
    forgotten = answer["forgotten"]
    emit(answer, as_json, [f"{name}: {'forgotten' if name in forgotten else 'was not remembered'}" for name in names])
    if not forgotten:
        raise click.exceptions.Exit(1)


@tls.command()
@config_option
@json_option
def remembered(config_path: str, as_json: bool) -> None:
    """List the domains that were verified once and get no mail in clear."""
    answer = ask_or_exit(config_path, "tls_remembered")
    emit(
        answer,
        as_json,
        [f"{row['domain']:<40} {row['by']:<5} {row['last']}" for row in answer] or ["nothing is remembered"],
    )


tls.add_command(report)


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except InvalidValue as error:
        raise click.UsageError(f"{error}") from None


def _destination(config: Config, text: str) -> tuple[str, str]:
    """Domain and next hop (canonical)."""
    if ":" in text and not text.startswith("["):
        try:
            hops = parse_next_hop(text)
        except NextHopError as error:
            raise click.UsageError(f"{error.problem}; {error.advice}") from None
        return hops[0].host, ",".join(map(canonical, hops))
    domain = _domain(text)
    found = Router(config).resolve(Address(f"postmaster@{domain}", "postmaster", domain))
    return domain, found.next_hop if isinstance(found, Route) else f"mx:{domain}"


def _show_lines(answer: dict[str, Any]) -> list[str]:
    row = answer["policy"]["row"]
    where = row if row.startswith("tls.") else f"[[tls.policies]] {row}"
    lines = [
        f"{answer['domain']}, by {answer['next_hop']}",
        f"  policy      {answer['policy']['level']} ({where})",
        f"  DANE        {answer['dane']}",
        f"  MTA-STS     {answer['mta_sts']}",
        f"  remembered  {answer['remembered'] or 'nothing'}",
    ]
    for host in answer["hosts"]:
        how = f"{host['level']}: TLS {host['tls']}{', verified' if host['verified'] else ''}"
        if host["level"] == "refused":
            how = "gets no mail now"
        lines.append(f"  {host['host']} ({', '.join(host['addresses'])})")
        lines.append(f"    {how}; {host['why']}" if host["why"] else f"    {how}")
        lines += [f"    TLSA {record}" for record in host["records"]]
    if answer["problem"]:
        lines.append(f"  {answer['problem']}")
    return [printable(line) for line in lines]
