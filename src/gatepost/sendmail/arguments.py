"""The command line of sendmail, as its callers write it: combined letters, values attached or apart, options that mean nothing here.

What would change who may do what (-C, -D, -O of privileges ...) has no effect, because this program has no rights of its own. What
asks for a daemon or a dangerous mode is refused, and so is an address that begins with "-", behind "--" too: it could become an
option of some other program.
"""

from __future__ import annotations

import re

from gatepost.sendmail.sysexits import EX_USAGE, Failure

MODES = {"m": "send", "s": "smtp", "p": "queue", "i": "aliases"}
_FLAGS = "GIUcmnsvwxti"  # without a value
_VALUES = "ABCDFLMNORVXfhpr"  # with one
_OPTIONAL = "qdeo"  # whatever is attached belongs to it, nothing apart does
_ADDRESS = re.compile(r"[^\x00-\x20<>\x7f]{1,254}").fullmatch
_NOTIFY = frozenset({"success", "failure", "delay"})
_ENVID = re.compile(r"[!-~]{1,100}").fullmatch


class Arguments:
    """What was asked for."""

    __slots__ = (
        "envelope_id", "from_header", "full_name", "ignore_dots", "mode", "notify", "recipients", "ret", "reverse_path", "verbose",
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
        found.recipients += [check_address(part.strip()) for part in split_list(word) if part.strip()]
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
        advice = "the gateway itself is run by: gatepost run" if letter in ("d", "D") else "write -bm, -bs or -bp"
        raise Failure(EX_USAGE, f"-b{letter} does not exist here; {advice}")
    found.mode = MODES[letter]


def _take_flag(found: Arguments, letter: str) -> None:
    if letter == "t":
        found.from_header = True
    elif letter == "i":
        found.ignore_dots = True
    elif letter == "v":
        found.verbose = True


def _take_optional(found: Arguments, letter: str, attached: str) -> None:
    if letter == "o" and attached == "i":
        found.ignore_dots = True


def _take_value(found: Arguments, letter: str, value: str) -> None:
    if letter in "fr":
        plain = value.strip()
        found.reverse_path = "" if plain in ("", "<>") else check_address(plain.removeprefix("<").removesuffix(">"))
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


def split_list(text: str) -> list[str]:
    """A list of plain addresses, as sendmail takes one in one argument; a comma in a quoted local part is none."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', text)


def check_address(text: str) -> str:
    """An address or a bare name, in angle brackets or not; raises Failure."""
    plain = text[1:-1] if text[:1] == "<" and text[-1:] == ">" else text
    if plain.startswith("-"):
        raise Failure(EX_USAGE, f'"{plain}" is refused: an address that begins with "-" could be taken for an option')
    if not _ADDRESS(plain):
        raise Failure(EX_USAGE, f'"{plain}" is not an address')
    return plain
