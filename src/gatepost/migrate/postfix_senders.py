"""sender_dependent_relayhost_maps and sender_dependent_default_transport_maps as `sender_routes`.

Postfix asks the first for the address and for `@domain`, and takes its values for hosts; a bare domain as a key is never found there, and
would be found here, so that it is left out.
"""

from __future__ import annotations

from gatepost.migrate.draft import Draft
from gatepost.migrate.report import Report
from gatepost.migrate.tables import TableImport
from gatepost.routing.tables.postfix_text import split_key


class SenderRouteImport(TableImport):
    """One table of next hops by reverse-path; `is_host`: its values are hosts, not transports."""

    def __init__(self, draft: Draft, report: Report, kind: str, path: str, is_host: bool) -> None:
        super().__init__(draft, report, "sender_routes", kind, path, joins_lines=True)
        self.is_host = is_host

    def prepare(self) -> set[int]:
        """Leave out what Postfix would never ask for; hosts get their transport in front."""
        left_out: set[int] = set()
        if self.kind in ("regexp", "pcre"):
            return left_out
        for first, last, text in self.constructs():
            key, value = split_key(text)
            if "@" not in key and key != "<>":
                self.report.unused(self.shown, first, text, "Postfix asks for user@domain and @domain only", last)
                left_out |= self.comment_out(first, last)
            elif self.is_host and first == last and value and not value.startswith("["):
                self.is_copy = True
                self.lines[first - 1] = f"{key}\tsmtp:{value}"
        return left_out
