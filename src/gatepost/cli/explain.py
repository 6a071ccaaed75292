"""`gatepost explain`: what the gateway would do with a session, and why; nothing is sent, counted or stored."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import click

from gatepost.cli.believed import believe
from gatepost.cli.binding import NoSuchUser
from gatepost.cli.dryrun import DryRun, Visit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.load import load_config
from gatepost.config.values import parse_listen

_BARE_LF = re.compile(rb"(?<!\r)\n")


@click.command()
@config_option
@json_option
@click.option("--ip", "client", metavar="ADDRESS", required=True, help="The client's IP address.")
@click.option(
    "--name",
    metavar="NAME",
    default=None,
    help="The name that its address has in DNS, and that leads back to it; without this the running gateway asks.",
)
@click.option("--helo", metavar="NAME", default="client.example", show_default=True, help="The name in its EHLO.")
@click.option("--from", "reverse_path", metavar="ADDRESS", default="", help="The reverse-path; '' is the null one.")
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True, required=True, help="A forward-path.")
@click.option(
    "--auth",
    "identity",
    metavar="USER",
    default="",
    help="The user it has authenticated as; uid:NAME for a user of this host by the Unix socket.",
)
@click.option("--cert", "certificate", metavar="NAME", default="", help="The name in its verified client certificate.")
@click.option(
    "--tls-bits",
    metavar="BITS",
    type=click.IntRange(1, 4096),
    default=None,
    help="The session is in TLS with a cipher of so many bits; 256 with --cert.",
)
@click.option("--local", metavar="ADDRESS", default="", help="The address of ours it connects to.")
@click.option("--eml", metavar="FILE", default=None, help="A message to send in this session.")
def explain(
    config_path: str,
    as_json: bool,
    client: str,
    name: str | None,
    helo: str,
    reverse_path: str,
    recipients: tuple[str, ...],
    identity: str,
    certificate: str,
    tls_bits: int | None,
    local: str,
    eml: str | None,
) -> None:
    """Print what the gateway would do with a session, and why, without any effect.

    Each rule in order with the facts it used, the verdict, the exact reply, the route, and what would have changed the verdict;
    with --eml what becomes of the header, and which DKIM signatures that breaks.
    """
    config, believed = believe(load_config(config_path))
    try:
        ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        complain(f"gatepost: --ip {client} is not an IP address: names are not asked for rights here")
        raise click.exceptions.Exit(2) from None
    content = None
    if eml is not None:
        try:
            content = _BARE_LF.sub(b"\r\n", Path(eml).read_bytes())
        except OSError as error:
            complain(f"gatepost: {eml}: {error.strerror}")
            raise click.exceptions.Exit(2) from None
    local = local or parse_listen(config.listen[0]).address if config.listen else local
    run = DryRun(config)
    visit = Visit(
        client=client,
        names=None if name is None else ((name.lower().rstrip("."),) if name else ()),
        helo=helo,
        reverse_path=reverse_path,
        recipients=list(recipients),
        local=local,
        identity=identity,
        certificate=certificate,
        tls_bits=tls_bits or (256 if certificate else 0),
        content=content,
    )
    try:
        run.play(visit)
    except NoSuchUser as error:
        complain(f"gatepost: --auth: {error}")
        raise click.exceptions.Exit(2) from None
    text = [*run.conversation, ""]
    for explanation in run.explanations:
        text += [*explanation.text(), ""]
    if preview := run.preview.text():
        text += [*preview, ""]
    if believed.notes:
        text += [*believed.notes, ""]
    data = {
        "conversation": run.conversation,
        "recipients": run.explanations,
        "rewriting": run.preview,
        "lists": believed,
    }
    emit(data, as_json, text[:-1])
