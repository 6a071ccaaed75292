"""Certificates for tests, made with the openssl command: an authority, and what it signs. `make(directory)` makes the usual ones."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("rsa:2048",)


def openssl(*arguments: str) -> bytes:
    """Run the command."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Authority:
    """A certification authority in a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.name = name
        self.file = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", *EC, "-nodes", "-keyout", str(self._key), "-out", str(self.file), "-days", "30",
            "-subj", f"/CN=Test {name}", "-addext", "basicConstraints=critical,CA:TRUE",
        )  # fmt: skip

    def issue(
        self, name: str, names: Sequence[str], *, algorithm: Sequence[str] = EC, days: int = 20, usage: str = ""
    ) -> Path:
        """`name`.pem and `name`.key for these subject alternative names ("DNS:x", "IP:1.2.3.4"); returns the certificate."""
        base = self.directory / name
        key, request, extensions = (str(base.with_suffix(end)) for end in (".key", ".csr", ".ext"))
        openssl("req", "-newkey", *algorithm, "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        text = f"subjectAltName={','.join(names)}\n" + (f"extendedKeyUsage={usage}\n" if usage else "")
        Path(extensions).write_text(text)
        certificate = base.with_suffix(".pem")
        openssl(
            "x509", "-req", "-in", request, "-CA", str(self.file), "-CAkey", str(self._key), "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-out", str(certificate),
        )  # fmt: skip
        Path(key).chmod(0o600)
        certificate.chmod(0o644)
        return certificate


def key_of(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def fingerprint(certificate: Path) -> str:
    """SHA-256, lower-case hexadecimal."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def pem_pair(certificate: Path) -> bytes:
    """Certificate and key in one text."""
    return certificate.read_bytes() + key_of(certificate).read_bytes()


def config_rows(*certificates: Path) -> str:
    """`[[tls.certificates]]` for a configuration."""
    return "".join(
        f'[[tls.certificates]]\ncertificate_file = "{one}"\nkey_file = "{key_of(one)}"\n' for one in certificates
    )
