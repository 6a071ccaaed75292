"""The command line of sendmail, as its callers write it: combined letters, values attached or apart, options that mean nothing here.

What would change who may do what (-C, -D, -O of privileges ...) has no effect, because this program has no rights of its own. What
asks for a daemon or a dangerous mode is refused, and so is an address that begins with "-", behind "--" too: it could become an
option of some other program.
"""

from __future__ import annotations

import re

from gatepost.sendmail.addresses import parse_addresses
from gatepost.sendmail.sysexits import EX_USAGE, Failure

MODES = {"m": "send", "s": "smtp", "p": "queue", "i": "aliases", "v": "verify"}
_FLAGS = "GIUcmnsvwxti"  # without a value
_VALUES = "ABCDFLMNORVXfhpr"  # with one
_OPTIONAL = "qdeo"  # whatever is attached belongs to it, nothing apart does
_NOTIFY = frozenset({"success", "failure", "delay"})
_ENVID = re.compile(r"[!-~]{1,100}").fullmatch


class Arguments:
    """What was asked for."""

    __slots__ = (
        "envelope_id", "from_header", "full_name", "ignore_dots", "mode", "notify", "recipients", "ret", "reverse_path",
        "verbose", "wants_flush",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mode = "send"
        self.recipients: list[str] = []
        self.from_header = False  # -t
        self.ignore_dots = False
        self.reverse_path: str | None = None  # None: the caller's own; "": the null reverse-path
        self.full_name: str | None = None
        self.notify: tuple[str, ...] = ()
        self.ret = ""
        self.envelope_id = ""
        self.verbose = False
        self.wants_flush = False


def parse_arguments(name: str, words: list[str]) -> Arguments:
    """The arguments of a command called `name`; raises Failure."""
    found = Arguments()
    if name.endswith("mailq"):
        found.mode = "queue"
    elif name.endswith("newaliases"):
        found.mode = "aliases"
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        _parse_word(found, word, rest)
    for word in rest:
        found.recipients += parse_addresses(word)
    if found.wants_flush and found.mode == "send" and not found.recipients and not found.from_header:
        found.mode = "flush"
    return found


def _parse_word(found: Arguments, word: str, rest: list[str]) -> None:
    at = 1
    while at < len(word):
        letter, attached = word[at], word[at + 1 :]
        if letter == "b":
            _set_mode(found, attached)
            return
        if letter in _OPTIONAL:
            _take_optional(found, letter, attached)
            return
        if letter in _VALUES:
            if not attached and not rest:
                raise Failure(EX_USAGE, f"option -{letter} needs a value")
            _take_value(found, letter, attached or rest.pop(0))
            return
        if letter not in _FLAGS:
            raise Failure(EX_USAGE, f"unknown option -{letter}")
        _take_flag(found, letter)
        at += 1


def _set_mode(found: Arguments, letter: str) -> None:
    if letter not in MODES:
        advice = "the gateway itself is run by: gatepost run" if letter in ("d", "D") else "write -bm, -bs, -bv or -bp"
        raise Failure(EX_USAGE, f"-b{letter} does not exist here; {advice}")
    found.mode = MODES[letter]


def _take_flag(found: Arguments, letter: str) -> None:
    if letter == "t":
        found.from_header = True
    elif letter == "i":
        found.ignore_dots = True
    elif letter == "v":
        found.verbose = True
    elif letter == "I":
        found.mode = "aliases"


def _take_optional(found: Arguments, letter: str, attached: str) -> None:
    if letter == "o" and attached == "i":
        found.ignore_dots = True
    elif letter == "q" and not attached:  # with a time it is about a daemon
        found.wants_flush = True


def _take_value(found: Arguments, letter: str, value: str) -> None:
    if letter in "fr":
        addresses = parse_addresses(value)
        if len(addresses) > 1:
            raise Failure(EX_USAGE, f"-{letter} {value}: write one address")
        found.reverse_path = addresses[0] if addresses else ""
    elif letter == "F":
        found.full_name = value
    elif letter == "N":
        words = value.lower().split(",")
        if words != ["never"] and not _NOTIFY.issuperset(words):
            raise Failure(EX_USAGE, f'-N {value}: write "never", or some of "success,failure,delay"')
        found.notify = tuple(word.upper() for word in words)
    elif letter == "R":
        if value.lower() not in ("full", "hdrs"):
            raise Failure(EX_USAGE, f'-R {value}: write "full" or "hdrs"')
        found.ret = value.upper()
    elif letter == "V":
        if not _ENVID(value):
            raise Failure(EX_USAGE, f"-V {value}: write up to 100 printable characters")
        found.envelope_id = value
    elif letter == "O" and value.lower().replace(" ", "") in ("ignoredots", "ignoredots=true"):
        found.ignore_dots = True
