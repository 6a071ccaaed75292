"""The text of a new configuration file, and writing it safely.

The text explains each key to who reads it first; it is made from answers that the caller has validated, and must load with
`load_config`. The file appears whole or not at all, with its final mode, and never over an existing one unless told to.
"""

from __future__ import annotations

import json
import os

import msgspec


class Answers(msgspec.Struct, kw_only=True):
    """What `gatepost init` asks; all values in canonical form."""

    hostname: str
    domains: list[str]
    next_hop: list[str]
    networks: list[str]
    listen: list[str]
    spool: str
    recipients_file: str | None = None


_HEAD = """\
# Configuration of Gatepost. Check it with: gatepost check --config FILE
# Every key that may stand here, with its default and meaning, is in docs/config.md.

# The name of this gateway: in its greeting, in HELO, in trace fields. Its A/AAAA and PTR records must agree with it.
hostname = {hostname}

# Where to listen, ADDRESS:PORT. Other mail servers come to port 25.
listen = {listen}

# Where accepted mail is kept until it is delivered. On a disk: not tmpfs, not overlay.
spool = {spool}

# The domains we accept mail for, from anyone.
domains = {domains}

# Where that mail goes, first choice first: "smtp://HOST:25", "lmtp://HOST:24", "maildir:/PATH/{{domain}}/{{local}}",
# or "mx" for the MX hosts of the domain (a backup MX).
next_hop = {next_hop}
"""
_WITH_FILE = """
# The recipients that exist in these domains: one local part or address on each line. Others are refused at RCPT.
recipients_file = {recipients_file}
"""
_WITHOUT_FILE = """
# The recipients that exist in these domains: one local part or address on each line. Without a list every one is
# accepted, and what the next hop then refuses has to be bounced, often to a forged address. Better write a list:
# recipients_file = "recipients"
"""
_RELAY = """
[relay]
# Who may send to the whole world through this gateway: your own networks, by address, and nothing else.
networks = {networks}

# Where their mail goes: "mx" delivers it itself; "smtp://HOST:25" hands it to a smart host.
next_hop = "mx"
"""


def build_config_text(answers: Answers) -> str:
    """The commented TOML file for these answers."""
    tail = _WITHOUT_FILE if answers.recipients_file is None else _WITH_FILE
    return (_HEAD + tail + _RELAY).format(
        hostname=_toml(answers.hostname),
        listen=_toml(answers.listen),
        spool=_toml(answers.spool),
        domains=_toml(answers.domains),
        next_hop=_toml(answers.next_hop[0] if len(answers.next_hop) == 1 else answers.next_hop),
        recipients_file=_toml(answers.recipients_file or ""),
        networks=_toml(answers.networks),
    )


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML basic string


def write_aside(path: str, text: str, mode: int) -> str:
    """Write `text` durably to a new file beside `path` and return its name, for `put_in_place`; raises OSError."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
    aside = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        os.fsync(descriptor)
    except BaseException:
        os.unlink(aside)
        raise
    finally:
        os.close(descriptor)
    return aside


def put_in_place(aside: str, path: str, overwrite: bool) -> None:
    """Give the file its name; raises FileExistsError if the name is taken and `overwrite` is false."""
    if overwrite:
        os.replace(aside, path)
    else:
        os.link(aside, path)  # unlike rename, it fails where the name exists; the caller removes `aside`
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
