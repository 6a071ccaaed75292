"""Postfix's address rewriting as `[[rewrite.rules]]`: canonical maps, masquerading, generic maps, and Received fields that header_checks drops.

In the order of Postfix's cleanup(8): sender or recipient map, common map, masquerading; then what smtp(8) does. Paths are rewritten for
all mail, header fields for the clients of local_header_rewrite_clients, unless remote_header_rewrite_domain is set.
"""

from __future__ import annotations

import re

from gatepost.config.values import InvalidValue, parse_domain
from gatepost.migrate.places import Unreadable
from gatepost.migrate.postfix_cf import split_list
from gatepost.migrate.postfix_domains import DomainPart
from gatepost.migrate.report import Result

PARTS = {
    "envelope_sender": "reverse-path",
    "envelope_recipient": "forward-path",
    "header_sender": "header-senders",
    "header_recipient": "header-recipients",
}
# map -> (its parameter of classes, their default, name of the rules)
CANONICAL = {
    "sender_canonical_maps": ("sender_canonical_classes", "envelope_sender, header_sender", "sender canonical"),
    "recipient_canonical_maps": (
        "recipient_canonical_classes",
        "envelope_recipient, header_recipient",
        "recipient canonical",
    ),
    "canonical_maps": ("canonical_classes", ", ".join(PARTS), "canonical"),
}
MASQUERADE_CLASSES = "envelope_sender, header_sender, header_recipient"
BOTH = ["outbound", "inbound"]
THIS_HOST = ["127.0.0.0/8", "::1/128"]
_HIDES_RECEIVED = re.compile(r"(.)\^?\(?received\b.*\1\w*\s+(?:IGNORE|STRIP)\b", re.IGNORECASE)


class RewritingPart(DomainPart):
    """Canonical maps, masquerading, generic maps, header_checks."""

    def _rewriting(self) -> None:
        scope = self._header_scope()
        for name, (classes, default, rule) in CANONICAL.items():
            if self.parameters.is_written(name) and self.parameters.value(name).strip():
                tables = self._rewrite_tables(name, "used in a rewrite rule")
                parts = self._parts(classes, default)
                if tables:
                    self._rules(rule, parts, {"tables": tables, "repeat": True}, scope)
        self._masquerading(scope)
        if self.parameters.is_written("smtp_generic_maps") and self.parameters.value("smtp_generic_maps").strip():
            tables = self._rewrite_tables("smtp_generic_maps", "used in a rewrite rule")
            if tables:
                parts = ["reverse-path", "header-senders", "header-recipients"]
                self.draft.rewrite_rules.append(
                    {"name": "generic", "directions": BOTH, "parts": parts, "tables": tables}
                )
                how = "forward-paths are not rewritten by it, since that would change where the mail goes here"
                self.tell("smtp_generic_maps", Result.APPROXIMATED, how)
        for name in ("header_checks", "smtp_header_checks"):
            if self.parameters.is_written(name):
                self._header_checks(name)

    def _header_scope(self) -> dict[str, object]:
        """For which mail header fields are rewritten, as keys of a rule."""
        if self.parameters.is_written("remote_header_rewrite_domain") and self.parameters.value(
            "remote_header_rewrite_domain"
        ):
            how = "header fields of all mail are rewritten; addresses without a domain are not completed"
            self.tell("remote_header_rewrite_domain", Result.APPROXIMATED, how)
            self.tell("local_header_rewrite_clients", Result.UNUSED, "remote_header_rewrite_domain is set")
            return {"directions": BOTH}
        words = split_list(self.parameters.value("local_header_rewrite_clients") or "permit_inet_interfaces")
        if any(word in ("static:all", "static:ok") for word in words):
            self.tell("local_header_rewrite_clients", Result.EXACT, "header fields of all mail are rewritten")
            return {"directions": BOTH}
        if {"permit_mynetworks", "permit_sasl_authenticated"} & set(words):
            known = {"permit_mynetworks", "permit_sasl_authenticated", "permit_inet_interfaces"}
            result = Result.EXACT if set(words) <= known else Result.APPROXIMATED
            note = 'header fields of outbound mail are rewritten: directions = ["outbound"]'
            self.tell("local_header_rewrite_clients", result, note)
            return {"directions": ["outbound"]}
        note = "header fields of mail from this host by its loopback addresses are rewritten"
        advice = 'take "networks" out of the rewrite rules to do it for all outbound mail'
        self.tell("local_header_rewrite_clients", Result.APPROXIMATED, note, advice)
        return {"directions": BOTH, "networks": THIS_HOST}

    def _parts(self, name: str, default: str) -> list[str]:
        words = split_list(self.parameters.value(name) if self.parameters.is_written(name) else default)
        parts = [PARTS[word] for word in words if word in PARTS]
        unknown = [word for word in words if word not in PARTS]
        if unknown:
            self.tell(name, Result.REFUSED, f"{', '.join(unknown)}: there is no such class", "see postconf(5)")
        else:
            self.tell(name, Result.EXACT, f"parts = {', '.join(parts)}")
        return parts

    def _rules(self, name: str, parts: list[str], what: dict[str, object], scope: dict[str, object]) -> None:
        """One rule for the paths, one for the header, since they hold for other mail."""
        of_paths = [part for part in parts if part.endswith("path")]
        of_header = [part for part in parts if part.startswith("header")]
        if of_paths:
            self.draft.rewrite_rules.append({"name": name, "directions": BOTH, "parts": of_paths, **what})
        if of_header:
            self.draft.rewrite_rules.append({"name": f"{name}, header", **scope, "parts": of_header, **what})

    def _rewrite_tables(self, name: str, note: str) -> list[str]:
        tables = self._tables("rewrite", name, note, self.origin())
        self.draft.tables.pop("rewrite", None)
        return tables

    def _masquerading(self, scope: dict[str, object]) -> None:
        names = ("masquerade_domains", "masquerade_exceptions", "masquerade_classes")
        if not self.parameters.is_written("masquerade_domains"):
            for name in names[1:]:
                self.tell(name, Result.UNUSED, "masquerade_domains is not set")
            return
        users = split_list(self.parameters.value(names[1])) if self.parameters.is_written(names[1]) else []
        self.tell(names[1], Result.EXACT, "except_users")
        parts = self._parts(names[2], MASQUERADE_CLASSES)
        stays: list[str] = []  # the first word that fits decides
        for word in split_list(self.parameters.value(names[0])):
            try:
                domain = parse_domain(word.removeprefix("!"))
            except InvalidValue as error:
                self.tell(names[0], Result.REFUSED, error.problem, error.advice, f"masquerade_domains: {word}")
                continue
            if not word.startswith("!"):
                what: dict[str, object] = {"domains": [f".{domain}"], "to_domain": domain}
                if stays:
                    what["except_domains"] = list(stays)
                if users:
                    what["except_users"] = users
                self._rules(f"masquerade {domain}", parts, what, scope)
            stays += [domain, f".{domain}"]
        self.tell(names[0], Result.EXACT, "[[rewrite.rules]] with to_domain")

    def _header_checks(self, name: str) -> None:
        """Lines that drop Received fields; all others are refused, each by itself."""
        why, advice = "headers are not searched", "see docs/migration.md for what takes its place"
        hides = False
        for word in split_list(self.parameters.value(name)):
            kind, _, argument = word.partition(":")
            if kind not in ("regexp", "pcre") or not argument.startswith("/"):
                self.tell(name, Result.REFUSED, f'"{word}" is not read', advice, f"{name}: {word}")
                continue
            path = self.places.path(argument)
            self.seen.add(path)
            try:
                lines = self.places.read(path).split("\n")
            except Unreadable as error:
                self.tell(name, Result.REFUSED, f"{path}: {error.args[0]}", "import again with the file in its place")
                continue
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                if _HIDES_RECEIVED.match(line.strip()):
                    hides = True
                    how = (
                        "Received fields of clients in relay.networks are hidden on outbound mail; each leaves its date"
                    )
                    self.report.approximated(path, number, line, how, "see rewrite.hide_received")
                else:
                    self.report.refused(path, number, line, why, advice)
        if hides and self.draft.networks:
            self.draft.values["rewrite.hide_received"] = (
                list(self.draft.networks),
                f"{name} main.cf:{self.line_of(name)}",
            )
            self.tell(name, Result.APPROXIMATED, "what drops Received fields becomes rewrite.hide_received")
        elif name not in self.told:
            empty = not self.parameters.value(name).strip()
            self.tell(
                name, Result.EXACT if empty else Result.REFUSED, "not set" if empty else why, "" if empty else advice
            )
