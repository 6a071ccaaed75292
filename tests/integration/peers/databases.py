"""OpenLDAP, PostgreSQL and MariaDB as directories of recipients, each private to a test: on a free port, as a user of its own.

Each knows the rows it is given, as (address, value); `halt` and `start` again keep them. TLS is on where a certificate is given.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from certificates import key_of
from integration.peers.packages import require
from integration.peers.process import PeerProcess, take_port

PASSWORD = "correct horse 'battery\" staple"


class Database(PeerProcess):
    """What the three have in common: a user, a directory of its own, a port."""

    user = ""

    def __init__(self, rows: Mapping[str, str], certificate: Path | None = None) -> None:
        home = Path(tempfile.mkdtemp(prefix="gatepost-peer-"))  # that of a test is closed to other users
        home.chmod(0o755)
        super().__init__(home)
        self.is_own_directory = True
        self.port = take_port()
        self.rows = dict(rows)
        self.data = self.directory / "data"
        self.certificate = None if certificate is None else self.own_copy(certificate)

    def own_copy(self, certificate: Path) -> Path:
        """The certificate and its key where only this server reads them."""
        copies = [Path(shutil.copy(one, self.directory)) for one in (certificate, key_of(certificate))]
        for one in copies:
            self.give(one, 0o600)
        return copies[0]

    def give(self, path: Path, mode: int = 0o700) -> None:
        """Make a path the server's own."""
        path.chmod(mode)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def as_user(self, *command: str) -> list[str]:
        """A command as the user of the server, where the tests run as root."""
        if os.geteuid() != 0:
            return list(command)
        entry = pwd.getpwnam(self.user)
        return [
            "setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--inh-caps=-all", *command,
        ]  # fmt: skip

    def run_as_user(self, *command: str, text: str = "") -> None:
        done = subprocess.run(
            self.as_user(*command), input=text, capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def is_ready(self) -> bool:
        return listens(self.port)


class OpenLdap(Database):
    """slapd with `mail` and `description` of each row below ou=people,dc=example,dc=test; StartTLS on `port`, TLS on `tls_port`."""

    user = "openldap"
    base = "ou=people,dc=example,dc=test"
    bind_name = "cn=gatepost,dc=example,dc=test"

    def __init__(self, rows: Mapping[str, str], certificate: Path | None = None) -> None:
        require("slapd")
        super().__init__(rows, certificate)
        self.tls_port = take_port()

    def is_ready(self) -> bool:
        """It opens one port after the other."""
        return listens(self.port) and (self.certificate is None or listens(self.tls_port))

    def configure(self) -> list[str]:
        config = self.directory / "slapd.conf"
        if not self.data.exists():
            self.data.mkdir()
            self.give(self.data)
            config.write_text(self._config())
            self.give(config, 0o600)
            self.run_as_user(require("slapadd"), "-f", str(config), text=self._entries())
        urls = f"ldap://127.0.0.1:{self.port}/" + (
            f" ldaps://127.0.0.1:{self.tls_port}/" if self.certificate is not None else ""
        )
        return self.as_user(require("slapd"), "-d", "0", "-h", urls, "-f", str(config))

    def _config(self) -> str:
        tls = ""
        if self.certificate is not None:
            tls = f"TLSCertificateFile {self.certificate}\nTLSCertificateKeyFile {key_of(self.certificate)}\n"
        quoted = PASSWORD.replace('"', '\\"')
        return (
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n"
            "include /etc/ldap/schema/inetorgperson.schema\n"
            f"modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {self.directory}/data/pid\n{tls}"
            "require bind\n"
            f'database mdb\nsuffix "dc=example,dc=test"\nrootdn "{self.bind_name}"\nrootpw "{quoted}"\n'
            f"directory {self.data}\nmaxsize 10485760\naccess to * by * none\n"
        )

    def _entries(self) -> str:
        text = (
            "dn: dc=example,dc=test\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: x\n\n"
            f"dn: {self.base}\nobjectClass: organizationalUnit\nou: people\n\n"
        )
        for number, (address, value) in enumerate(self.rows.items()):
            described = f"description: {value}\n" if value else ""
            text += (
                f"dn: cn=p{number},{self.base}\nobjectClass: inetOrgPerson\ncn: p{number}\nsn: x\nmail: {address}\n"
                f"{described}\n"
            )
        return text


class PostgreSql(Database):
    """PostgreSQL with the table people(address, value) in the database "mail"."""

    user = "postgres"

    def __init__(self, rows: Mapping[str, str], certificate: Path | None = None) -> None:
        require("pg_ctlcluster")
        self.programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        super().__init__(rows, certificate)

    def configure(self) -> list[str]:
        if not self.data.exists():
            self._create()
        tls = []
        if self.certificate is not None:
            tls = [
                "-c",
                "ssl=on",
                "-c",
                f"ssl_cert_file={self.certificate}",
                "-c",
                f"ssl_key_file={key_of(self.certificate)}",
            ]
        return self.as_user(
            str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1",
            "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=20", "-c", "shared_buffers=2MB", *tls,
        )  # fmt: skip

    def is_ready(self) -> bool:
        """It asks for a password; while it recovers, it listens already, and answers every client with an error."""
        wanted = b"\0\3\0\0user\0gatepost\0database\0mail\0\0"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall((4 + len(wanted)).to_bytes(4) + wanted)
            return sock.recv(1) == b"R"
        return False

    def halt(self, timeout_s: float = 60.0) -> None:
        """A fast shutdown: the one that SIGTERM asks for waits for its clients."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
        super().halt(timeout_s)

    def _create(self) -> None:
        self.data.mkdir()
        self.give(self.data)
        password = self.directory / "password"
        password.write_text(PASSWORD + "\n")
        self.give(password, 0o600)
        self.run_as_user(
            str(self.programs / "initdb"), "-D", str(self.data), "-A", "scram-sha-256", "-U", "postgres", "-N",
            "--no-locale", "-E", "UTF8", f"--pwfile={password}",
        )  # fmt: skip
        rows = ", ".join(f"({quoted(address)}, {quoted(value)})" for address, value in self.rows.items())
        for database, statements in (
            ("postgres", [f"CREATE ROLE gatepost LOGIN PASSWORD {quoted(PASSWORD)}", "CREATE DATABASE mail"]),
            ("mail", [
                "CREATE TABLE people (address text, value text)", f"INSERT INTO people VALUES {rows}",
                "GRANT SELECT ON people TO gatepost",
            ]),
        ):  # fmt: skip
            self.run_as_user(
                str(self.programs / "postgres"), "--single", "-j", "-D", str(self.data), database,
                text=";\n\n".join(statements) + ";\n\n",
            )  # fmt: skip


class MariaDb(Database):
    """MariaDB with the table people(address, value) in the database "mail"."""

    user = "mysql"

    def __init__(self, rows: Mapping[str, str], certificate: Path | None = None) -> None:
        require("mariadbd")
        super().__init__(rows, certificate)

    def configure(self) -> list[str]:
        if not self.data.exists():
            self._create()
        tls = []
        if self.certificate is not None:
            tls = [f"--ssl-cert={self.certificate}", f"--ssl-key={key_of(self.certificate)}"]
        return self.as_user(
            require("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--socket={self.data}/s", f"--pid-file={self.data}/pid", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=8M", "--character-set-server=utf8mb4", f"--init-file={self.directory}/init.sql", *tls,
        )  # fmt: skip

    def _create(self) -> None:
        self.data.mkdir()
        self.give(self.data)
        self.run_as_user(
            require("mariadb-install-db"), "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal",
            "--skip-test-db", "--innodb-log-file-size=4M",
        )  # fmt: skip
        rows = ",\n".join(f"({quoted(address)}, {quoted(value)})" for address, value in self.rows.items())
        init = self.directory / "init.sql"
        init.write_text(
            "CREATE DATABASE IF NOT EXISTS mail;\n"
            "CREATE TABLE IF NOT EXISTS mail.people (address VARCHAR(320) PRIMARY KEY, value TEXT) COLLATE utf8mb4_unicode_ci;\n"
            f"INSERT IGNORE INTO mail.people VALUES {rows};\n"
            f"CREATE USER IF NOT EXISTS gatepost@'127.0.0.1' IDENTIFIED BY {quoted(PASSWORD)};\n"
            "GRANT SELECT ON mail.people TO gatepost@'127.0.0.1';\n"
        )
        self.give(init, 0o600)

    def is_ready(self) -> bool:
        """Its greeting is version 10; an error packet says that it is not ready."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            return sock.recv(16)[4:5] == b"\x0a"
        return False


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20):
        return True
    return False


def quoted(text: str) -> str:
    """A literal of SQL; the tests' texts have no backslash."""
    return "'" + text.replace("'", "''") + "'"
