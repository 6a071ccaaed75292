"""What rewriting does, for the commands that show it beforehand: the engine with its secrets, paths, and the header of a message."""

from __future__ import annotations

import time

import msgspec

from gatepost.config.rewritevalues import MAX_SECRETS_BYTES, is_rewriting, parse_secrets
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts
from gatepost.policy.rewriting import REVERSE_PATH, RewriteFailed, Rewriting, Rewritten, SrsError, split_header
from gatepost.routing.rewrite import Change
from gatepost.routing.table import TableUnavailable
from gatepost.safeopen import read_regular

NO_SECRETS = "the secrets of SRS cannot be read here: return addresses are neither made nor turned back in this preview"


class Preview(msgspec.Struct, kw_only=True):
    """What becomes of the reverse-path and the header of one mail transaction."""

    reverse_path: list[Change] = []
    header: list[dict[str, str]] = []
    hidden: int = 0
    kept: list[dict[str, str]] = []
    broken: list[dict[str, object]] = []
    notes: list[str] = []

    def text(self) -> list[str]:
        """For people."""
        lines = [
            _said("reverse-path", change.before, change.after, change.rule, change.is_shadow)
            for change in self.reverse_path
        ]
        lines += [_said(f"header {one['field']}", one["before"], one["after"], one["rule"]) for one in self.header]
        if self.hidden:
            lines.append(f"header Received: {self.hidden} of inside hosts are hidden, and count all the same")
        lines += [f"header {one['field']}: stays as it is: {one['reason']}" for one in self.kept]
        for one in self.broken:
            fields = ", ".join(one["fields"])  # type: ignore[arg-type]
            lines.append(f"WARNING: the DKIM signature of {one['domain']} covers {fields}, and will not hold any more")
        return ["rewriting:", *(f"  {line}" for line in lines + self.notes)] if lines or self.notes else []


def prepare(engine: Engine, config: Config) -> str:
    """Give the engine the secrets of SRS, if they can be read here; else what is to be said of it."""
    path = config.rewrite.srs.secrets_file
    if not is_rewriting(config) or config.rewrite.srs.domain is None or path is None:
        return ""
    try:
        engine.rewriting = Rewriting(config, parse_secrets(read_regular(path, MAX_SECRETS_BYTES)), engine.answers)
    except (OSError, ValueError):
        return NO_SECRETS
    return ""


def rewrite_reverse_path(rewriting: Rewriting, facts: Facts, path: Address | None) -> Rewritten | str:
    """What MAIL makes of it, or why it cannot."""
    if path is None:
        return Rewritten(Address("", "", ""))
    try:
        return rewriting.path(REVERSE_PATH, facts, path)
    except (RewriteFailed, TableUnavailable) as error:
        return str(error.args[0])


def preview_end(
    preview: Preview, rewriting: Rewriting, facts: Facts, reverse_path: str, domains: list[str], content: bytes | None
) -> str:
    """Add what happens between DATA and the end; returns why the message would be put off, empty if it would not."""
    try:
        after = rewriting.forwarded(reverse_path, domains, facts.now_s or time.time())
    except SrsError as error:
        preview.notes.append(f"reverse-path: stays as it is: {error.args[0]}")
    else:
        if after != reverse_path:
            preview.reverse_path.append(Change("srs", reverse_path, after))
    if content is None or not rewriting.touches_header(facts):
        return ""
    try:
        done = rewriting.header(facts, split_header(content)[0])
    except (RewriteFailed, TableUnavailable) as error:
        return str(error.args[0])
    preview.header = [msgspec.structs.asdict(change) for change in done.changes]
    preview.kept = [msgspec.structs.asdict(kept) for kept in done.kept]
    preview.broken = [{"domain": domain, "fields": fields} for domain, fields in done.broken]
    preview.hidden = done.hidden
    return ""


def _said(where: str, before: str, after: str, rule: str, is_shadow: bool = False) -> str:
    would = "would become" if is_shadow else "becomes"
    return f"{where}: <{before}> {would} <{after}> by {'the shadow rule' if is_shadow else 'the rule'} {rule}"
