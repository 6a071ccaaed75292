"""The users file: who may authenticate, how that is checked, and which addresses are theirs. It never holds a password.

One user a line: NAME, then words `scram-sha-256=ITERATIONS:SALT:STORED:SERVER`, `scram-sha-1=...`, `argon2id=$argon2id$...` and
`from=PATTERN,PATTERN`; lines that begin with "#" are comments, `!secret BASE64` feeds the verifiers of users that do not exist. The
supervisor reads it with the configuration and hands it to receivers only; `gatepost user` writes it, whole, under a lock, by
rename. It must belong to who starts the gateway and be closed to everybody else.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import stat
import unicodedata
from binascii import Error as Base64Error
from collections.abc import Iterator

import msgspec

from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import ScramVerifier
from gatepost.safeopen import read_regular

MAX_FILE_BYTES = 12 * 1024 * 1024  # a role takes its start message in 16 MiB
MAX_NAME_BYTES = 320
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 1_000_000  # RFC 7677 4; the client works as much as we do
SECRET_BYTES = 32

_HASHES = {"scram-sha-256": ("sha256", 32), "scram-sha-1": ("sha1", 20)}
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,6}),t=([0-9]{1,2}),p=([0-9])\$[A-Za-z0-9+/]{11,88}\$[A-Za-z0-9+/]{22,88}"
)
MAX_ARGON2_KIB = 65536
_LOCAL_PATTERN = re.compile(r"[^\s@,<>()\"\\\x00-\x1f\x7f]+")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `addresses` are patterns (see policy/identity.py); empty: the name itself, if it is an address."""

    name: str
    scram: dict[str, ScramVerifier] = {}  # by hash, "sha256"
    argon2id: str = ""
    addresses: tuple[str, ...] = ()


class Users(msgspec.Struct, frozen=True):
    """A whole file; `secret` makes what is told of users that do not exist the same every time."""

    secret: bytes = b""
    users: dict[str, User] = {}


def parse_users(text: str, path: str = "") -> Users:
    """The users in a file; raises ConfigErrors with every bad line."""
    users: dict[str, User] = {}
    secret = b""
    errors: list[ConfigError] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] == "!secret" and len(words) == 2:
                secret = _decode(words[1], SECRET_BYTES)
                continue
            user = _parse_user(words)
            if user.name in users:
                raise InvalidValue(f'"{user.name}" is listed twice', "remove one of the two lines")
            users[user.name] = user
        except InvalidValue as error:
            errors.append(ConfigError(path, number, "", error.problem, error.advice))
    if users and not secret and not errors:
        advice = f"write one: !secret {base64.b64encode(os.urandom(SECRET_BYTES)).decode()}"
        errors.append(ConfigError(path, 1, "", "the line that begins with !secret is missing", advice))
    if errors:
        raise ConfigErrors(errors)
    return Users(secret, users)


def render_users(users: Users) -> str:
    """The text of a file; `parse_users` gives the same users back."""
    lines = [
        "# Users of Gatepost: change them with `gatepost user`.",
        f"!secret {base64.b64encode(users.secret).decode()}",
    ]
    names = {algorithm: key for key, (algorithm, _) in _HASHES.items()}
    for name in sorted(users.users):
        user = users.users[name]
        words = [name]
        for algorithm, kept in user.scram.items():
            parts = (base64.b64encode(part).decode() for part in (kept.salt, kept.stored_key, kept.server_key))
            words.append(f"{names[algorithm]}={kept.iterations}:{':'.join(parts)}")
        if user.argon2id:
            words.append(f"argon2id={user.argon2id}")
        if user.addresses:
            words.append(f"from={','.join(user.addresses)}")
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def parse_user_name(text: str) -> str:
    """A user name in the form in which it is compared; raises InvalidValue."""
    name = unicodedata.normalize("NFKC", text.strip()).lower()
    advice = 'write a name such as "anna" or, better, the user\'s address'
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise InvalidValue("the user name is empty or too long", advice)
    if name[0] in "!#" or any(c.isspace() or not c.isprintable() for c in name) or not _is_text(name):
        raise InvalidValue(f'"{text}" is not a user name', advice)
    if name.startswith("uid:"):
        raise InvalidValue(f'"{text}" is how users of this host are called', "write a name without uid: in front")
    return name


def parse_pattern(text: str) -> str:
    """An address a user may use: `anna@example.net`, `*@example.net`, `anna+*@example.net`; raises InvalidValue."""
    local, at, domain = text.strip().rpartition("@")
    example = 'write "anna@example.net", "anna+*@example.net" or "*@example.net"'
    if not at or not _LOCAL_PATTERN.fullmatch(local) or local.count("*") > 1 or "*" in domain:
        raise InvalidValue(f'"{text}" is not an address or a pattern of addresses of one domain', example)
    return f"{unicodedata.normalize('NFC', local).lower()}@{parse_domain(domain)}"


def check_users_file(path: str, owners: frozenset[int] | None) -> tuple[str, str] | None:
    """What is wrong with owner (None: any, `paths.py` looks) or mode of an existing file, and the command that mends it."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file", f"write the real path of the users file instead of {path}"
    if owners is not None and status.st_uid not in owners:
        return f"it belongs to uid {status.st_uid}", f"chown {min(owners)} {path}"
    if status.st_mode & 0o177:
        return (
            f"its mode is {stat.S_IMODE(status.st_mode):04o}: others could read what passwords are checked by",
            f"chmod 0600 {path}",
        )
    return None


def read_users_text(path: str) -> str:
    """The text of a users file that only its owner may read; empty if there is none yet. Raises ConfigErrors."""
    problem = check_users_file(path, frozenset({os.geteuid(), 0}) if os.geteuid() else None)
    if problem is not None:
        raise ConfigErrors([ConfigError(path, 0, "", problem[0], f"mend it with: {problem[1]}")])
    try:
        data = read_regular(os.path.abspath(path), MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        advice = "run as the user who starts the gateway, or see ls -l"
        raise ConfigErrors([ConfigError(path, 0, "", f"it cannot be read ({error.strerror})", advice)]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigErrors(
            [ConfigError(path, 0, "", "it is larger than 12 MiB", "keep so many users in a directory service")]
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigError(path, line, "", "the line is not UTF-8", "save the file as UTF-8")]) from None


def read_users(path: str) -> Users:
    """The users in a file, none if it does not exist; raises ConfigErrors."""
    return parse_users(read_users_text(path), path)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Nobody else changes the file meanwhile: a lock on its directory, so that no lock file is left behind."""
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_users(path: str, users: Users) -> None:
    """Replace the file, under `locked`: a crash leaves the old one or the new one. Raises OSError."""
    if not users.secret:
        users = Users(os.urandom(SECRET_BYTES), users.users)
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # of a run that was killed
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(render_users(users).encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _parse_user(words: list[str]) -> User:
    name = parse_user_name(words[0])
    scram: dict[str, ScramVerifier] = {}
    argon2id = ""
    addresses: tuple[str, ...] = ()
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key in _HASHES:
            scram[_HASHES[key][0]] = _parse_verifier(value, *_HASHES[key])
        elif key == "argon2id":
            match = _ARGON2.fullmatch(value)
            if (
                match is None
                or not 8 <= int(match[1]) <= MAX_ARGON2_KIB
                or not 1 <= int(match[2]) <= 20
                or match[3] != "1"
            ):
                raise InvalidValue(
                    "the Argon2id verifier is damaged or too expensive", f"set it anew: gatepost user passwd {name}"
                )
            argon2id = value
        elif key == "from":
            addresses = tuple(parse_pattern(part) for part in value.split(","))
        else:
            raise InvalidValue(f'"{key[:40]}" is unknown here', "write scram-sha-256=, argon2id= or from=")
    if not scram and not argon2id:
        raise InvalidValue(f'the user "{name}" has no verifier', f"set a password: gatepost user passwd {name}")
    return User(name=name, scram=scram, argon2id=argon2id, addresses=addresses)


def _parse_verifier(text: str, algorithm: str, size: int) -> ScramVerifier:
    count, *parts = text.split(":")
    if len(parts) != 3 or not (count.isascii() and count.isdigit() and len(count) <= 7):
        raise InvalidValue("a SCRAM verifier is damaged", "set the password anew: gatepost user passwd NAME")
    if not MIN_ITERATIONS <= int(count) <= MAX_ITERATIONS:
        raise InvalidValue(
            f"{count} iterations are too few or too many", f"from {MIN_ITERATIONS} to {MAX_ITERATIONS} are"
        )
    return ScramVerifier(algorithm, int(count), _decode(parts[0], 0), _decode(parts[1], size), _decode(parts[2], size))


def _decode(text: str, size: int) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (Base64Error, ValueError):
        octets = b""
    if not 8 <= len(octets) <= 64 or (size and len(octets) != size):
        raise InvalidValue(
            "base64 of another length is wanted here", "set the password anew: gatepost user passwd NAME"
        )
    return octets


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
