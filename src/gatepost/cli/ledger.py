"""`gatepost ledger`: what became of every recipient that was ever accepted."""

from __future__ import annotations

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit

_PARTS = ("delivered", "bounced", "expired", "discarded", "queued")


def ledger_lines(ledger: dict[str, int]) -> list[str]:
    """The ledger as text, ending with whether it balances."""
    total = settled(ledger)
    lines = [f"{'accepted':<12}{ledger['accepted']:>12}  recipients"]
    lines += [f"  {part:<10}{ledger[part]:>12}" for part in _PARTS]
    lines += [
        f"  {name.removeprefix('messages_'):<10}{ledger[name]:>12}  messages"
        for name in ledger
        if name.startswith("messages_")
    ]
    if lost := ledger.get("lost_to_damage", 0):
        lines.append(
            f'  lost      {lost:>12}  recipients of messages whose content no file holds any more; see the events "damaged"'
        )
    if waiting := ledger.get("notices_waiting", 0):
        lines.append(f"  waiting   {waiting:>12}  notices to senders, until the disk has room for them")
    sign = "=" if total == ledger["accepted"] else "is NOT"
    lines.append(f"accepted {ledger['accepted']} {sign} {' + '.join(f'{part} {ledger[part]}' for part in _PARTS)}")
    return lines


def settled(ledger: dict[str, int]) -> int:
    """The right side of the equation; what damage took away for good stands there too, and is said."""
    return sum(ledger[part] for part in _PARTS) + ledger.get("lost_to_damage", 0)


@click.command()
@config_option
@json_option
def ledger(config_path: str, as_json: bool) -> None:
    """Print what became of every accepted recipient.

    accepted = delivered + bounced + expired + discarded + queued. The left side is counted when mail is accepted, the right side
    from outcomes and from the queue as it is. The exit status is 1 if they differ.
    """
    answer = ask_or_exit(config_path, "ledger")
    emit(answer, as_json, ledger_lines(answer))
    if answer["accepted"] != settled(answer):
        raise click.exceptions.Exit(1)
