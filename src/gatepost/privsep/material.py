"""Certificates, keys and authorities: read by the supervisor, handed to the roles that need them as sealed memory, one descriptor each.

No role can open a key file, and none gets what another one needs: pairs and the authorities of clients go to receivers, the
authorities of servers and logins for them to deliverers. Nothing is parsed here. What was read is kept until a generation has started with its
successor, so that a bad new file costs nothing.
"""

from __future__ import annotations

import fcntl
import os

from gatepost.config.authvalues import auth_files
from gatepost.config.credentialsfile import credential_files, unruled_next_hops
from gatepost.config.introspection import introspection_files
from gatepost.config.rewritevalues import rewrite_files
from gatepost.config.schema import Config
from gatepost.config.sources import source_files
from gatepost.config.tlsdemands import verifies_servers
from gatepost.config.tlsvalues import SYSTEM_CA_FILE
from gatepost.privsep.memorylock import LockedFile
from gatepost.safeopen import LinkInPath, read_regular

MAX_FILE_BYTES = 4 * 1024 * 1024
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

STS_LEVELS = ("best", "sts")

Signature = tuple[tuple[str, int, int, int], ...]


class MaterialError(OSError):
    """A file cannot be read; the text says which, why, and what to do."""


def receiver_files(config: Config) -> list[tuple[str, ...]]:
    """The files of each descriptor of a receiver, in order: pairs, authorities of clients, users and keys of tokens, secrets."""
    pairs: list[tuple[str, ...]] = [(row.certificate_file, row.key_file) for row in config.tls.certificates]
    authorities: list[tuple[str, ...]] = [(row.ca_file,) for row in config.relay.certificates]
    return pairs + authorities + [(path,) for path in (*auth_files(config.auth), *rewrite_files(config))]


def resolver_files(config: Config) -> list[tuple[str, ...]]:
    """The files of each descriptor of a resolver: the authorities by which web servers are verified, if it asks any; sources; introspection."""
    return [*web_files(config), *source_files(config), *((path,) for path in introspection_files(config))]


def web_files(config: Config) -> list[tuple[str, ...]]:
    """Those of the authorities of strangers' web servers."""
    return [(config.tls.ca_file or SYSTEM_CA_FILE,)] if asks_web_servers(config) else []


def asks_web_servers(config: Config) -> bool:
    """Whether the resolver speaks HTTPS: for policies, and to post reports."""
    return fetches_policies(config) or config.tls.reports.contact is not None


def fetches_policies(config: Config) -> bool:
    """Whether MTA-STS policies are looked for at all."""
    tls = config.tls
    return tls.sts.enabled and any(
        level in STS_LEVELS for level in (tls.outbound, *(row.level for row in tls.policies))
    )


def deliverer_files(config: Config) -> list[tuple[str, ...]]:
    """The files of each descriptor of a deliverer: one for each distinct file of authorities, then of logins."""
    return [(path,) for path in authority_files(config) + credential_files(config)]


def authority_files(config: Config) -> list[str]:
    """The distinct files of authorities by which servers are verified, in a stable order."""
    files = _needed_authorities(config)
    if fetches_policies(config):
        files.add(config.tls.ca_file or SYSTEM_CA_FILE)
    return sorted(files)


def _needed_authorities(config: Config) -> set[str]:
    tls = config.tls
    general = tls.ca_file or SYSTEM_CA_FILE
    files = {row.ca_file or general for row in tls.policies if row.level == "verify" and not row.fingerprints}
    if tls.outbound == "verify" or unruled_next_hops(config) or verifies_servers(config):
        files.add(general)
    return files


class Material:
    """What one configuration needs; raises MaterialError."""

    def __init__(self, config: Config) -> None:
        self.signature = look_at(config)
        self._receiver: list[int] = []
        self._deliverer: list[int] = []
        self._resolver: list[int] = []
        self._locked: list[LockedFile] = []  # what may be secret
        users = config.auth.users_file  # made by the first `gatepost user add`
        try:
            for files in receiver_files(config):
                data = b"\n".join(read_material(path, optional=path == users) for path in files)
                self._receiver.append(_seal(data))
                self._locked.append(LockedFile(self._receiver[-1], len(data)))
            for files in deliverer_files(config):
                self._deliverer.append(_seal(b"\n".join(read_authorities(config, path) for path in files)))
            for files in web_files(config):
                self._resolver.append(_seal(b"\n".join(read_authorities(config, path) for path in files)))
            for files in resolver_files(config)[len(web_files(config)) :]:
                data = b"\n".join(read_material(path) for path in files)
                self._resolver.append(_seal(data))
                self._locked.append(LockedFile(self._resolver[-1], len(data)))
        except MaterialError:
            self.close()
            raise

    def descriptors(self, role: str) -> list[int]:
        """What a role gets behind the other descriptors of its Start."""
        if role == "receiver":
            return list(self._receiver)
        return list({"deliverer": self._deliverer, "resolver": self._resolver}.get(role, ()))

    def close(self) -> None:
        for locked in self._locked:
            locked.close()
        for descriptor in self._receiver + self._deliverer + self._resolver:
            os.close(descriptor)
        self._receiver, self._deliverer, self._resolver = [], [], []


def read_authorities(config: Config, path: str) -> bytes:
    """Those of the system need not be there for MTA-STS: it is off without them, which the resolver says. Raises MaterialError."""
    try:
        return read_material(path)
    except MaterialError:
        if config.tls.ca_file is not None or path in _needed_authorities(config):
            raise
        return b""


def look_at(config: Config) -> Signature:
    """What tells whether a file has changed."""
    found = []
    for path in sorted(
        {path for files in receiver_files(config) + deliverer_files(config) + resolver_files(config) for path in files}
    ):
        try:
            status = os.stat(path)
        except OSError:
            found.append((path, 0, 0, 0))
        else:
            found.append((path, status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def read_material(path: str, *, optional: bool = False) -> bytes:
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
    except LinkInPath:
        raise MaterialError(f"{path} is a symbolic link, or lies behind one; write {os.path.realpath(path)}") from None
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return b""
        raise MaterialError(f"{path} cannot be read ({error.strerror}); correct the path or the permissions") from None
    if len(data) > MAX_FILE_BYTES:
        raise MaterialError(f"{path} is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    return data


def _seal(data: bytes) -> int:
    descriptor = os.memfd_create("material", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


class Materials:
    """The material of each configuration that a role may still be started with."""

    def __init__(self) -> None:
        self._held: list[tuple[Config, Material]] = []
        self._refused: Signature | None = None  # files as they were when they were last tried

    def add(self, config: Config) -> None:
        """Read what a configuration needs; raises MaterialError."""
        self._refused = look_at(config)
        self._held.append((config, Material(config)))

    def keep(self, config: Config) -> None:
        """Only this configuration goes on."""
        for held, material in self._held:
            if held is not config:
                material.close()
        self._held = [(held, material) for held, material in self._held if held is config]

    def of(self, config: Config, role: str) -> list[int]:
        """The descriptors for a role of this configuration."""
        return next((material.descriptors(role) for held, material in self._held if held is config), [])

    def have_changed(self, config: Config) -> bool:
        """Whether a file is another one now than when it was last read, or tried in vain."""
        now = look_at(config)
        used = next((material.signature for held, material in self._held if held is config), None)
        return now not in (used, self._refused)
