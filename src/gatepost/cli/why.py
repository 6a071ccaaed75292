"""`gatepost why ID`: explains a session or message of the past from its recorded facts."""

from __future__ import annotations

import time
from typing import Any

import click

from gatepost.cli.asked import AskedAnswers
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.cli.records import key_of, read_records
from gatepost.cli.rewriting import prepare
from gatepost.config.load import load_config
from gatepost.policy.engine import Engine
from gatepost.policy.explain import Explainer, Explanation
from gatepost.policy.record import FactRecord
from gatepost.policy.replay import Replay


@click.command()
@config_option
@json_option
@click.argument("identifier", metavar="ID")
def why(config_path: str, as_json: bool, identifier: str) -> None:
    """Explain a session or a message of the past from its recorded facts.

    ID is the one in the reply: that of the session in a refusal, that of the message in "Queued as". What was decided then is
    printed, and explained under the configuration of now.
    """
    if not identifier.strip():
        raise click.BadParameter("it is empty; the id stands at the end of the reply")
    config = load_config(config_path)
    found = [one for one in read_records(config.spool) if identifier in (one.session, one.id)]
    if not found:
        complain(f"gatepost: nothing is recorded of {identifier}; facts are kept for {config.facts.keep_days} days")
        raise click.exceptions.Exit(1)
    key = key_of(config.spool)
    answers = AskedAnswers(config, hashed=key != b"")
    engine = Engine(config, answers=answers)
    prepare(engine, config)
    replay, explainer = Replay(config, key, answers), Explainer(config, engine, answers=answers)
    told = [_tell(record, replay, explainer) for record in found]
    emit([data for data, _ in told], as_json, [line for _, lines in told for line in (*lines, "")][:-1])


def _tell(record: FactRecord, replay: Replay, explainer: Explainer) -> tuple[dict[str, Any], list[str]]:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.time_s))
    head = [
        f"session {record.session} at {when}"
        + (f", message {record.id} ({record.size_bytes} octets)" if record.id else ", no message accepted"),
        f"client {record.client} as {record.helo or '(no EHLO)'}"
        + (f", authenticated as {record.identity}" if record.identity else "")
        + (f", in TLS ({record.tls.bits} bits)" if record.tls is not None else "")
        + (f", certificate {record.certificate}" if record.certificate else ""),
    ]
    if record.has_mail:
        became = f", which became <{record.rewritten_path}>" if record.rewritten_path else ""
        head.append(f"MAIL FROM:<{record.reverse_path}>{became}")
    if record.fault:
        head.append(f"refused: {record.fault}")
    explanations = []
    for recipient in record.recipients:
        explanation = explainer.rcpt(replay.facts_of(record), replay.address_of(recipient))
        explanations.append({"then": recipient, "now": explanation})
        then = f"{recipient.code} {recipient.code // 100}.{recipient.detail} {recipient.text}" if recipient.code else ""
        became = f" as <{recipient.forward_path}>" if recipient.forward_path else ""
        head.append(
            f"answered then: {then or f'accepted ({recipient.permit}), by way of {recipient.next_hop}{became}'}"
        )
        head += _now(explanation, recipient.code != 0)
    if record.more:
        head.append(f"and {record.more} more recipients that are not recorded")
    return {"record": record, "recipients": explanations}, head


def _now(explanation: Explanation, was_refused: bool) -> list[str]:
    lines = explanation.text()
    if explanation.accepted == was_refused:
        lines.append(
            "  this is decided otherwise now: by another configuration, or by what only the running gateway knew (rates, guard)"
        )
    return lines
