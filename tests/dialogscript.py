"""Dialog scripts: what a client sends and what the server must answer, as text (tests/dialogs/*.smtp).

    # a comment                       ! name=value   a setting of ServerSettings: a number, true, false, or NAMES,LIKE,THESE
    C: a line, sent with CRLF         C~ octets with Python escapes, sent as they are; C* NUMBER the same, so many times
    S: a reply line; * matches any text                S! the server closes
    M: octets of a message that was accepted, with Python escapes; in order, none otherwise

Client lines in a row are sent at once, and the server lines behind them are all it may answer. `! unpaced` marks a dialog
whose point is that the client did not wait: it means nothing when every octet is answered before the next is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DIALOGS = Path(__file__).parent / "dialogs"


@dataclass
class Turn:
    """What is sent at once, and the reply lines (as expressions) that follow; `closes` if the server then closes."""

    sent: bytes = b""
    replies: list[str] = field(default_factory=list)
    closes: bool = False


@dataclass
class Script:
    """One dialog."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    settings: dict[str, int | bool | tuple[str, ...]] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    unpaced: bool = False


def unescape(text: str) -> bytes:
    """Octets written with Python escapes."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def as_expression(text: str) -> str:
    """A reply line in which * stands for any text, as a regular expression."""
    return ".*".join(re.escape(part) for part in text.split("*"))


def setting(text: str) -> int | bool | tuple[str, ...]:
    """The value of a setting as it is written in a dialog."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdigit() else tuple(text.split(","))


def read_script(path: Path) -> Script:
    """The script in a file; a line of no known kind is an error."""
    script = Script(path.stem)
    turn = Turn()
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, text = line[:2], line[3:]
        if mark in ("C:", "C~", "C*") and (turn.replies or turn.closes):
            script.turns.append(turn)
            turn = Turn()
        if mark == "C:":
            turn.sent += text.encode() + b"\r\n"
        elif mark == "C~":
            turn.sent += unescape(text)
        elif mark == "C*":
            times, _, octets = text.partition(" ")
            turn.sent += int(times) * unescape(octets)
        elif mark == "S:":
            turn.replies.append(as_expression(text))
        elif mark == "S!":
            turn.closes = True
        elif mark == "M:":
            script.messages.append(unescape(text))
        elif line == "! unpaced":
            script.unpaced = True
        elif mark == "! ":
            name, _, value = line[2:].partition("=")
            script.settings[name] = setting(value)
        elif line and not line.startswith("#"):
            raise ValueError(f"{path}: not a line of a dialog: {line}")
    script.turns.append(turn)
    return script


def read_scripts() -> list[Script]:
    """All dialogs."""
    return [read_script(path) for path in sorted(DIALOGS.glob("*.smtp"))]
