"""Recipients as the gateway believes them: a list in a file that has lost many is held back, so commands that decide must not take the file either.

`explain`, `check` and `replay` read the same files as the gateway, whenever they are called. What it keeps of the lists of before lies beside its
control socket, for who may open that; it is asked whether it runs. What was used is said, since the answer depends on it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gatepost.cli.ask import NotRunning, ask_at
from gatepost.config.schema import Config
from gatepost.privsep.control_path import control_path
from gatepost.privsep.recipientlists import Held, RecipientLists, lists_of


class Believed(msgspec.Struct):
    """`held` are the lists that are not taken from their files; `notes` say so, and what was looked at."""

    held: list[Held] = []
    notes: list[str] = []


def believe(config: Config, spool: str = "") -> tuple[Config, Believed]:
    """The configuration with the lists that the gateway would use if it took it now. Nothing is changed."""
    if not lists_of(config):
        return config, Believed()
    if spool and spool != config.spool:
        config = msgspec.structs.replace(config, spool=spool)
    lists = RecipientLists(config.spool)
    problem = lists.load()
    config, held = lists.look(config)
    running, why = _ask(config)
    notes = [_held_note(one, running is not None) for one in held]
    if running is not None and problem:
        names = ", ".join(row["name"] for row in running["held"])
        notes.append(
            f"recipients: as in their files, for what the gateway keeps cannot be read ({problem})"
            + (f"; it holds back {names}, so this is not what it would do" if names else "; it holds nothing back")
        )
    elif running is not None:
        notes.append("recipients: as the running gateway has them, and takes from their files at its next reload")
        notes += [note for row in running["held"] if (note := _since(row, held, lists_of(config)))]
    else:
        kept = f"what it kept cannot be read ({problem})" if problem else "as it would have them if it started now"
        notes.append(f"recipients: {'as in their files; ' if problem else ''}{kept}; no gateway answers: {why}")
    return config, Believed(held, notes)


def _ask(config: Config) -> tuple[dict[str, Any] | None, str]:
    """What the running gateway says of its lists; None and why if none says anything."""
    try:
        answer = ask_at(control_path(config), "recipients_lists")
    except (NotRunning, OSError) as error:
        return None, str(error)
    return (None, str(answer["error"])) if "error" in answer else (answer, "")


def _held_note(one: Held, is_running: bool) -> str:
    does = "the running gateway goes on with" if is_running else "a gateway that starts goes on with"
    return (
        f"{one.name}: {does} the {one.kept} recipients of before, and so does this: the file now has {one.found}, and {one.gone} are "
        f"gone ({', '.join(one.sample)} ...); if that is right: gatepost recipients confirm {one.name}"
    )


def _since(row: dict[str, Any], held: list[Held], lists: dict[str, list[str]]) -> str:
    """A list that the gateway holds back, and whose file has been mended since."""
    if row["name"] in {one.name for one in held} or row["name"] not in lists:
        return ""
    return f"{row['name']}: held back by the running gateway; its file is good again, and the next reload takes it, as this does"
