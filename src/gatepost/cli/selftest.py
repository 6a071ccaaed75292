"""`gatepost selftest`: asks the running gateway, from outside in and from inside out, whether it does what it promises.

Meant to be run by hand after a change and by a timer every day. Its connections go to this host's `listen` addresses only, come from
an address of loopback of their own, and never end in a message for another domain.
"""

from __future__ import annotations

import asyncio
import os

import click

from gatepost.cli.ask import NotRunning, ask
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit
from gatepost.cli.status import collect_status
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.config.users import starter_of
from gatepost.selftest.host import check_clock, check_disk, check_inside, check_paths, check_processes
from gatepost.selftest.outside import Outside
from gatepost.selftest.published import check_published
from gatepost.selftest.result import FAILED, SKIPPED, WARNING, Result, count_verdicts, junit, text_lines
from gatepost.selftest.starttls import check_starttls, check_submission_tls, presented_certificate
from gatepost.selftest.submission import Submission
from gatepost.selftest.talk import endpoints, submission_endpoints

PARTS = ("smtp", "dns", "host", "inside")


@click.command()
@config_option
@json_option
@click.option("--junit", "as_junit", is_flag=True, help="Print JUnit XML.")
@click.option("--verbose", is_flag=True, help="Print what is in order, too.")
@click.option("--strict", is_flag=True, help="Let a warning fail the whole.")
@click.option(
    "--only", "parts", type=click.Choice(PARTS), multiple=True, help="Ask only this part; may be given several times."
)
def selftest(
    config_path: str, as_json: bool, as_junit: bool, verbose: bool, strict: bool, parts: tuple[str, ...]
) -> None:
    """Ask the running gateway whether it does what it promises.

    Relay attempts, smuggling, limits, error replies, STARTTLS, submission, certificates, DNS, clock, disk, paths, privileges. Exit status 0: nothing failed (with
    --strict: and no warning); 1: something did; 2: bad configuration. It sends no mail to other domains and connects only to this
    host's own listening addresses; its events have the address 127.83.84.1.
    """
    config = load_config(config_path)
    results = run_all(config, config_path, parts or PARTS)
    counts = count_verdicts(results)
    if as_junit:
        click.echo(junit(results, config.hostname))
    else:
        emit({"counts": counts, "results": results}, as_json, text_lines(results, verbose=verbose))
    if counts[FAILED] or (strict and counts[WARNING]):
        raise click.exceptions.Exit(1)


def run_all(config: Config, config_path: str, parts: tuple[str, ...]) -> list[Result]:
    """Every result of the parts that were asked for."""
    results: list[Result] = []
    is_running = _is_running(config)
    if not is_running and {"smtp", "inside"} & set(parts):
        told = "no gateway answers on the control socket: nothing on this host is asked over the network"
        results.append(Result("inside", "running", FAILED, told, "start it, or run this as the user who started it"))
    if "smtp" in parts and is_running:
        for endpoint in endpoints(config):
            results += Outside(config, endpoint).run()
            try:
                results += check_starttls(config, endpoint)
            except OSError as error:
                results.append(Result("STARTTLS", "connection", FAILED, str(error)))
        for endpoint, is_implicit in submission_endpoints(config):
            results += Submission(config, endpoint, is_implicit=is_implicit).run()
            try:
                results += check_submission_tls(config, endpoint, is_implicit=is_implicit)
            except OSError as error:
                results.append(Result("TLS", "connection", FAILED, str(error)))
    if "dns" in parts:
        ports = endpoints(config) if is_running else []
        certificate = presented_certificate(config, ports[0]) if ports else b""
        results += asyncio.run(check_published(config, certificate))
    if "host" in parts:
        path = os.path.abspath(config_path)
        results += [*check_clock(), *check_disk(config), *check_paths(config, path, starter_of(config))]
    if "inside" in parts and is_running:
        results += check_inside(collect_status(config_path))
        try:
            results += check_processes(config, ask(config, "roles"))
        except OSError as error:
            results.append(Result("processes", "records of the kernel", SKIPPED, str(error)))
    return results


def _is_running(config: Config) -> bool:
    try:
        ask(config, "status")
    except NotRunning:
        return False
    return True
