"""sendmail's masquerading and genericstable as `[[rewrite.rules]]`.

As its rule sets MasqHdr and MasqEnv have it: names in class N stay, then the genericstable, whose answer is final, then exposed users,
then masquerading. sendmail knows no direction: the rules hold for all mail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gatepost.migrate.draft import Draft
from gatepost.migrate.report import Report, Result
from gatepost.migrate.sendmail_mc import Macros, domain_of

Members = list[tuple[str, str, int]]  # word, file, line
FEATURES = {
    "masquerade_envelope": 'the rules have the part "reverse-path"',
    "masquerade_entire_domain": "the rules hold below their domains too",
    "limited_masquerade": "local host names are not masqueraded",
    "allmasquerade": 'the rules have the part "header-recipients"',
}
BOTH = ["outbound", "inbound"]
UNQUALIFIED = "an address without a domain stays as it is; sendmail completes it"


class RewritingImport:
    """What one sendmail.mc says of it. `members` reads a class, `local` is class w."""

    def __init__(
        self,
        macros: Macros,
        draft: Draft,
        report: Report,
        members: Callable[[str, str], Members],
        local: Iterable[str],
    ) -> None:
        self.macros = macros
        self.draft = draft
        self.report = report
        self.members = members
        self.local = list(local)

    def run(self) -> None:
        """Add the rules to the draft."""
        name, file, line = self.macros.masquerade_as
        target = domain_of(name) if name else None
        has_generics = bool(self.draft.tables.get("genericstable"))
        parts = ["header-senders"]
        if "masquerade_envelope" in self.macros.features:
            parts.insert(0, "reverse-path")
        if "allmasquerade" in self.macros.features:
            parts.append("header-recipients")
        kept = self._class("MASQUERADE_EXCEPTION", "except_domains", is_used=target is not None or has_generics)
        kept += [f".{domain}" for domain in kept]
        self._generics(parts, kept)
        if name and target is None:
            self.report.refused(file, line, f"MASQUERADE_AS({name})", "it is not a domain", "write its name")
        elif target is not None:
            self.report.approximated(
                file, line, f"MASQUERADE_AS({name})", f"a rewrite rule with to_domain; {UNQUALIFIED}"
            )
        domains = self._class("MASQUERADE_DOMAIN", "domains of the rewrite rule", is_used=target is not None)
        users = self._users(target is not None)
        for feature, note in FEATURES.items():
            if feature in self.macros.features:
                call, path = self.macros.features[feature]
                used = target is not None or (has_generics and feature in ("masquerade_envelope", "allmasquerade"))
                result = Result.EXACT if used else Result.UNUSED
                self.report.add(
                    path, call.line, str(call), result, note if used else "nothing is masqueraded", "", call.last_line
                )
        if target is None:
            return
        if "limited_masquerade" not in self.macros.features:
            domains += [*self.local, self.draft.hostname]
        if "masquerade_entire_domain" in self.macros.features:
            domains += [f".{domain}" for domain in domains]
        domains = [domain for domain in dict.fromkeys(domains) if domain and domain != target]
        if domains:
            rule: dict[str, object] = {"name": "masquerade", "directions": BOTH, "parts": parts, "domains": domains}
            if kept:
                rule["except_domains"] = kept
            if users:
                rule["except_users"] = users
            self.draft.rewrite_rules.append(rule | {"to_domain": target})

    def _generics(self, parts: list[str], kept: list[str]) -> None:
        tables = self.draft.tables.pop("genericstable", [])
        below = "generics_entire_domain" in self.macros.features
        domains = self._class(
            "GENERICS_DOMAIN", "domains of the rewrite rule", "generics-domains", is_used=bool(tables)
        )
        domains.append(self.draft.hostname)
        if below:
            domains += [f".{domain}" for domain in domains]
        if tables:
            rule: dict[str, object] = {"name": "generics", "directions": BOTH, "parts": parts}
            rule |= {"domains": list(dict.fromkeys(domains)), "tables": tables, "stop": True}
            if kept:
                rule["except_domains"] = kept
            self.draft.rewrite_rules.append(rule)

    def _class(self, name: str, note: str, file: str = "", *, is_used: bool) -> list[str]:
        found = []
        for word, path, line in self.members(name, file):
            domain = domain_of(word)
            if not is_used:
                self.report.unused(path, line, f"{name}({word})", "nothing is rewritten with it")
            elif domain is None:
                self.report.refused(path, line, f"{name}({word})", "it is not a domain", "write its name")
            else:
                found.append(domain)
                self.report.exact(path, line, f"{name}({word})", note)
        return found

    def _users(self, is_used: bool) -> list[str]:
        found = []
        for word, path, line in self.members("EXPOSED_USER", ""):
            if is_used:
                found.append(word)
                self.report.exact(path, line, f"EXPOSED_USER({word})", "except_users")
            else:
                self.report.unused(path, line, f"EXPOSED_USER({word})", "nothing is masqueraded")
        return found
