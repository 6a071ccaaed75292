"""`gatepost user`: the users who may authenticate, in the file that `[auth] users_file` names.

Passwords come from a prompt, from standard input or are made here; they are in no argument, no file and no event. The file is written
whole and renamed into place under a lock. A running gateway takes it up with `gatepost reload`, or by itself within a minute.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from typing import NoReturn

import click
import msgspec

from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.load import load_config
from gatepost.config.usersfile import User, Users, locked, parse_pattern, parse_user_name, read_users, write_users
from gatepost.config.values import InvalidValue
from gatepost.model import ScramVerifier
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name, saslprep
from gatepost.smtp.sasl.scram import derive_verifier

ITERATIONS = 100_000  # of PBKDF2: 50 ms for us and for the client
SALT_BYTES = 16
GENERATED_BYTES = 15  # 120 bits, 20 characters
SHORTEST_PASSWORD = 8
MAX_PASSWORD_BYTES = 1024
KINDS = ("scram", "argon2id")
TAKEN_UP = "A running gateway takes it up with `gatepost reload`, or by itself within a minute."


@click.group()
def user() -> None:
    """Add, list, change and remove the users who may authenticate."""


password_options = [
    click.option("--generate", is_flag=True, help="Make a password and print it."),
    click.option("--stdin", "from_stdin", is_flag=True, help="Read the password from the first line of standard input."),
    click.option(
        "--verifier", type=click.Choice(KINDS), default="scram", show_default=True,
        help="What is kept: scram serves every mechanism; argon2id is dearer to guess if the file is stolen, and serves PLAIN and LOGIN only.",
    ),
    click.option("--sha-1", "with_sha_1", is_flag=True, help="Keep a verifier for SCRAM-SHA-1 too."),
]  # fmt: skip


def _with_password(command: click.decorators.FC) -> click.decorators.FC:
    for option in reversed(password_options):
        command = option(command)
    return command


@user.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--from",
    "patterns",
    metavar="ADDRESS",
    multiple=True,
    help="An address the user may send from: anna@example.net, anna+*@example.net, *@example.net; again for more. Not given: NAME.",
)
@_with_password
@config_option
@json_option
def add(
    name: str,
    patterns: tuple[str, ...],
    generate: bool,
    from_stdin: bool,
    verifier: str,
    with_sha_1: bool,
    config_path: str,
    as_json: bool,
) -> None:
    """Add a user. NAME is best the user's address: that is then what he may send from."""
    path = _users_path(config_path)
    try:
        key = prepare_name(parse_user_name(name))
        addresses = tuple(dict.fromkeys(parse_pattern(pattern) for pattern in patterns))
        if not addresses:
            if "@" not in key:
                _fail(f'"{name}" is not an address: say with --from which addresses the user may send from')
            parse_pattern(key)
    except (InvalidValue, NotPreparable) as error:
        _fail(str(error))
    if key in _read(path).users:
        _fail(f'the user "{key}" exists; change the password with: gatepost user passwd {key}')
    password = _password(generate, from_stdin)
    with locked(path):
        users = _read(path)
        if key in users.users:
            _fail(f'the user "{key}" exists')
        _write(path, users, _made(key, password, verifier, with_sha_1, addresses))
    _report(key, "added", password if generate else None, as_json)


@user.command()
@click.argument("name", metavar="NAME")
@_with_password
@config_option
@json_option
def passwd(
    name: str, generate: bool, from_stdin: bool, verifier: str, with_sha_1: bool, config_path: str, as_json: bool
) -> None:
    """Give a user another password."""
    path = _users_path(config_path)
    key = _existing(_read(path), name).name
    password = _password(generate, from_stdin)
    with locked(path):
        users = _read(path)
        _write(path, users, _made(key, password, verifier, with_sha_1, _existing(users, name).addresses))
    _report(key, "changed", password if generate else None, as_json)


@user.command()
@click.argument("name", metavar="NAME")
@config_option
@json_option
def remove(name: str, config_path: str, as_json: bool) -> None:
    """Remove a user. Sessions that are open go on until they end."""
    path = _users_path(config_path)
    with locked(path):
        users = _read(path)
        key = _existing(users, name).name
        left = {other: kept for other, kept in users.users.items() if other != key}
        _write(path, Users(users.secret, left))
    _report(key, "removed", None, as_json)


@user.command("list")
@config_option
@json_option
def list_(config_path: str, as_json: bool) -> None:
    """List the users, what is kept of each, and the addresses they may send from."""
    rows = [
        {
            "name": one.name,
            "verifiers": [f"scram-{algorithm}" for algorithm in one.scram] + (["argon2id"] if one.argon2id else []),
            "from": list(one.addresses) or [one.name],
        }
        for _, one in sorted(_read(_users_path(config_path)).users.items())
    ]
    width = max((len(str(row["name"])) for row in rows), default=0)
    lines = [f"{row['name']!s:{width}}  {', '.join(row['verifiers'])}  from {', '.join(row['from'])}" for row in rows]
    emit(rows, as_json, lines or ["There are no users; add one with: gatepost user add NAME"])


# --- parts of the commands ----------------------------------------------------------------------------------------------


def _users_path(config_path: str) -> str:
    path = load_config(config_path).auth.users_file
    if path is None:
        complain('gatepost: the configuration names no users file; write: [auth] users_file = "users"')
        raise click.exceptions.Exit(2)
    return path


def _read(path: str) -> Users:
    return read_users(path)


def _existing(users: Users, name: str) -> User:
    try:
        found = users.users.get(prepare_name(parse_user_name(name)))
    except (InvalidValue, NotPreparable):
        found = None
    if found is None:
        _fail(f'there is no user "{name}"; see: gatepost user list')
    return found


def _password(generate: bool, from_stdin: bool) -> str:
    """The prepared password."""
    if generate:
        return secrets.token_urlsafe(GENERATED_BYTES)
    if from_stdin:
        text = sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 2).decode("utf-8", "surrogateescape").rstrip("\r\n")
    else:
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    try:
        text.encode("utf-8")
        password = saslprep(text)
    except (NotPreparable, UnicodeEncodeError):
        _fail("the password holds a character that not every client can send: use others")
    if len(password) < SHORTEST_PASSWORD or len(password.encode()) > MAX_PASSWORD_BYTES:
        _fail(f"the password must have {SHORTEST_PASSWORD} characters at least; --generate makes a good one")
    return password


def _made(name: str, password: str, kind: str, with_sha_1: bool, addresses: tuple[str, ...]) -> User:
    scram: dict[str, ScramVerifier] = {}
    argon2id = ""
    if kind == "argon2id":
        argon2id = importlib.import_module("gatepost.config.argon2id").derive(password)
    else:
        for algorithm in ("sha256", "sha1") if with_sha_1 else ("sha256",):
            scram[algorithm] = derive_verifier(password, os.urandom(SALT_BYTES), ITERATIONS, algorithm)
    return User(name=name, scram=scram, argon2id=argon2id, addresses=addresses)


def _write(path: str, users: Users, changed: User | None = None) -> None:
    if changed is not None:
        users = msgspec.structs.replace(users, users=users.users | {changed.name: changed})
    try:
        write_users(path, users)
    except OSError as error:
        _fail(f"{path} cannot be written ({error.strerror}); nothing has changed")


def _report(name: str, done: str, password: str | None, as_json: bool) -> None:
    data = {"name": name, "done": done} | ({"password": password} if password is not None else {})
    lines = [f"{name}: {done}."] + ([f"Password: {password}"] if password is not None else []) + [TAKEN_UP]
    emit(data, as_json, lines)


def _fail(why: str) -> NoReturn:
    complain(f"gatepost: {why}")
    raise click.exceptions.Exit(1)
