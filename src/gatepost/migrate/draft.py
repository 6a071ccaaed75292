"""The configuration that an import is writing: values with where they come from, the text, and that it loads.

The text is TOML with a comment beside each key. What is written has been through `load_config` and the relay proof; where a
value of the old server is out of the range of ours it has been cut to it before, and told in the report.
"""

from __future__ import annotations

import json
import os

import msgspec

from gatepost.config import rules
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.policy.proof import prove

HEAD = (
    "# Imported from {source} by `gatepost import`. Read migration-report.txt, then: gatepost check --config {path}\n"
)
FILE_HEAD = "# Made by `gatepost import` from {source}.\n"


class ImportedDomain(msgspec.Struct):
    """A domain that the old server took mail for."""

    next_hop: list[str] = []  # empty: what the tables of routes say, else MX
    recipients: list[str] | None = None
    recipients_file: str = ""
    origin: str = ""


class Draft:
    """Collects what the importers find."""

    def __init__(self, source: str, copies_tables: bool = False) -> None:
        self.source = source
        self.copies_tables = copies_tables  # beside the configuration, instead of naming the old server's files
        self.hostname = ""
        self.listen: list[str] = []
        self.listeners: list[dict[str, object]] = []
        self.spool = "/var/spool/gatepost"
        self.postmaster = ""
        self.domains: dict[str, ImportedDomain] = {}
        self.networks: list[str] = []
        self.relay_next_hop: list[str] = []
        self.tables: dict[str, list[str]] = {}  # key of the configuration -> names of tables
        self.rewrite_rules: list[dict[str, object]] = []
        self.sources: dict[str, dict[str, object]] = {}
        self.tls_policies: list[dict[str, object]] = []
        self.values: dict[str, tuple[object, str]] = {}  # "section.key" -> (value, origin)
        self.certificates: list[tuple[str, str, str]] = []  # certificate, key, origin
        self.files: dict[str, str] = {}  # name below the output directory -> text
        self.origins: dict[str, str] = {}

    def domain(self, name: str, origin: str = "") -> ImportedDomain:
        """The domain of this name, made if it is not there yet."""
        return self.domains.setdefault(name, ImportedDomain(origin=origin))

    def table(self, key: str, name: str, origin: str = "") -> None:
        """One more table for a key of the configuration."""
        if name not in self.tables.setdefault(key, []):
            self.tables[key].append(name)
        self.origins.setdefault(key, origin)

    def network(self, text: str) -> None:
        """One more network that may relay."""
        if text not in self.networks:
            self.networks.append(text)

    def number(self, key: str, value: float, origin: str = "") -> float:
        """Set a number, cut to the range of its key; returns what was set."""
        low, high = rules.RANGES[key]
        cut = min(max(value, low), high)
        is_seconds = key.endswith("_s") and not key.endswith("bytes_s")
        self.values[key] = (float(cut) if is_seconds else int(cut), origin)
        return cut

    def settle_order(self) -> list[tuple[str, str]]:
        """Bring numbers that belong together into order; returns (key, how) of those that were moved for it."""
        defaults = msgspec.to_builtins(Config(hostname="", listen=[], spool="", domains={}))
        moved = []
        for smaller, larger, why in rules.ORDERED:
            low, high = (self._number_of(key, defaults) for key in (smaller, larger))
            if low <= high:
                continue
            key, value = (smaller, high) if smaller not in self.values else (larger, low)
            was_set = self.number(key, value, "so that it fits what was imported")
            moved.append((key, f"{key} = {was_set:.15g}: {why}"))
        return moved

    def _number_of(self, key: str, defaults: dict[str, dict[str, float]]) -> float:
        if key in self.values:
            return float(self.values[key][0])  # type: ignore[arg-type]
        section, _, name = key.partition(".")
        return float(defaults[section][name])

    def text_of(self, path: str) -> str:
        """The TOML text."""
        lines = [HEAD.format(source=self.source, path=path), f"hostname = {_toml(self.hostname)}"]
        lines += [f"listen = {_toml(self.listen)}", f"spool = {_toml(self.spool)}"]
        if self.postmaster:
            lines.append(f"postmaster = {_toml(self.postmaster)}")
        for key, names in self.tables.items():
            lines.append(f"{key} = {_toml(names)}{_comment(self.origins.get(key, ''))}")
        for key, (value, origin) in sorted(self.values.items()):
            if "." not in key:
                lines.append(f"{key} = {_toml(value)}{_comment(origin)}")
        for name, domain in self.domains.items():
            lines += ["", f"[domains.{_toml(name)}]{_comment(domain.origin)}"]
            if domain.next_hop or not self.tables.get("routes"):
                lines.append(f"next_hop = {_toml(domain.next_hop or ['mx'])}")
            if domain.recipients is not None:
                lines.append(f"recipients = {_toml(domain.recipients)}")
            if domain.recipients_file:
                lines.append(f"recipients_file = {_toml(domain.recipients_file)}")
        lines += ["", "[relay]", f"networks = {_toml(self.networks)}"]
        if self.relay_next_hop:
            lines.append(f"next_hop = {_toml(self.relay_next_hop)}{_comment(self.origins.get('relay.next_hop', ''))}")
        sections = sorted({key.partition(".")[0] for key in self.values if "." in key})
        for section in sections:
            lines += ["", f"[{section}]"]
            for key, (value, origin) in sorted(self.values.items()):
                if key.startswith(section + "."):
                    lines.append(f"{key.partition('.')[2]} = {_toml(value)}{_comment(origin)}")
        for rule in self.rewrite_rules:
            lines += ["", "[[rewrite.rules]]", *(f"{key} = {_toml(value)}" for key, value in rule.items())]
        for certificate, key_file, origin in self.certificates:
            lines += ["", f"[[tls.certificates]]{_comment(origin)}"]
            lines += [f"certificate_file = {_toml(certificate)}", f"key_file = {_toml(key_file)}"]
        for policy in self.tls_policies:
            lines += ["", "[[tls.policies]]", *(f"{key} = {_toml(value)}" for key, value in policy.items())]
        for name, source in self.sources.items():
            lines += ["", f"[sources.{name}]"]
            lines += [f"# {value}" if key == "#" else f"{key} = {_toml(value)}" for key, value in source.items()]
        for listener in self.listeners:
            lines += ["", "[[listeners]]", *(f"{key} = {_toml(value)}" for key, value in listener.items())]
        return "\n".join(lines) + "\n"

    def write(self, directory: str) -> list[str]:
        """Write the files; returns what `gatepost check` would say against them: empty is good. Raises OSError."""
        os.makedirs(directory, mode=0o755, exist_ok=True)
        path = os.path.join(directory, "gatepost.toml")
        for name, text in {**self.files, "gatepost.toml": self.text_of(path)}.items():
            write_file(os.path.join(directory, name), text)
        return problems_of(path)


def problems_of(path: str) -> list[str]:
    """What is wrong with a written configuration: errors of loading it, sessions that relay without a right."""
    try:
        config = load_config(path)
    except ConfigErrors as errors:
        return [str(error) for error in errors]
    proof = prove(config)
    return [] if proof.holds else proof.lines()


def write_file(path: str, text: str) -> None:
    """Write a file whole or not at all, readable by its owner and group only."""
    aside = f"{path}.{os.getpid()}.new"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    with open(descriptor, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _comment(origin: str) -> str:
    return f"  # {origin}" if origin else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML basic string
