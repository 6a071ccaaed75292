"""`gatepost tls report`: what TLS to MX hosts came to, by day and recipient domain, as the queue role has counted it."""

from __future__ import annotations

import time
from typing import Any

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit
from gatepost.cli.replay import parse_span


def report_lines(answer: dict[str, Any]) -> list[str]:
    """One block for each day and domain, failures with their reason."""
    lines = []
    for seen in answer["seen"]:
        good = sum(row["count"] for row in seen["results"] if row["result"] == "success")
        bad = sum(row["count"] for row in seen["results"]) - good
        lines.append(f"{seen['day'][:10]}  {seen['domain']}  {good} good, {bad} failed  report: {seen['report']}")
        for row in seen["results"]:
            why = f": {row['reason']}" if row["reason"] else ""
            lines.append(
                f"  {row['count']:>7}  {row['policy']:<15}  {row['result']}  {row['mx']}[{row['address']}]{why}"
            )
    if not lines:
        lines.append("no connection to an MX host in this time")
    if answer["contact"] is None:
        lines.append("reports are not sent: set tls.reports.contact")
    return lines


@click.command("report")
@click.option("--since", metavar="SPAN", default="7d", show_default=True, help="How far back: 14d, 6h, 30m.")
@config_option
@json_option
def report(since: str, config_path: str, as_json: bool) -> None:
    """Print how TLS to the MX hosts of other domains went.

    Connections are counted by recipient domain, what it publishes (DANE, MTA-STS) and result, and kept for
    tls.reports.keep_days. Result types are those of TLS reports (RFC 8460).
    """
    answer = ask_or_exit(config_path, "tls_report", since_s=time.time() - parse_span(since))
    emit(answer, as_json, report_lines(answer))
