"""Postfix's ldap:, pgsql: and mysql: tables as `[sources.NAME]`, setting by setting; see ldap_table(5), pgsql_table(5).

`%s`, `%u` and `%d` become places, quotes around them go, because a value is bound here and not written into the query. Passwords are not
copied: a source that needs one answers nothing until its file is there, and what it cannot answer is deferred. A table with settings that
have no counterpart is refused as a whole.
"""

from __future__ import annotations

import os
import re

from gatepost.config.errors import Findings
from gatepost.config.ldapfilter import parse_filter
from gatepost.config.pieces import parse_pieces
from gatepost.config.sources import check_sources
from gatepost.config.values import InvalidValue
from gatepost.migrate.draft import Draft
from gatepost.migrate.places import Places
from gatepost.migrate.postfix_cf import Parameter, split_list
from gatepost.migrate.report import Report, Result

TYPES = {"ldap": ("ldap", "ldap"), "pgsql": ("postgresql", "sql"), "mysql": ("mysql", "sql")}
KEYS = {
    "recipients": ["address", "catch-all"],
    "virtual": ["address", "catch-all"],
    "routes": ["address", "domain", "parents", "any"],
}
_PLACES = {"s": "{key}", "u": "{local}", "d": "{domain}", "S": "{key}", "U": "{local}", "D": "{domain}", "%": "%"}
_IGNORED = (
    "version bind debuglevel dereference chase_referrals cache cache_expiry cache_size recursion_limit expansion_limit size_limit "
    "encoding charset option_file option_group retry_interval idle_interval require_result_set tls_random_file"
)
_UNUSED = frozenset(_IGNORED.split())
_PASSWORDS = ("password", "bind_pw")
_NAME = re.compile(r"[^a-z0-9_-]+")


class Unusable(Exception):
    """A setting that has no counterpart: `args` are its name, why, and what to do."""


class SourceImport:
    """One file of settings."""

    def __init__(self, kind: str, path: str, settings: list[Parameter], places: Places) -> None:
        self.kind = kind
        self.path = path
        self.places = places
        self.settings = {setting.name: setting for setting in settings}
        self.told: dict[str, tuple[Result, str]] = {}  # setting -> (result, note)
        self.source: dict[str, object] = {"type": TYPES[kind][0]}

    def run(self, use: str, draft: Draft, report: Report) -> str | None:
        """The name of the table, with its source in the draft; None if it is not one that can be asked here."""
        if use not in KEYS:
            return None
        try:
            self._ldap() if self.kind == "ldap" else self._sql()
            self.source["keys"] = KEYS[use]
            self._times_and_formats(use)
            self._check()
        except Unusable as bad:
            name, why, advice = bad.args
            for setting in self.settings.values():
                is_it = setting.name == name
                self._report(report, setting, Result.REFUSED, why if is_it else f"{name}: {why}", advice)
            if name not in self.settings:
                report.refused(self.path, 0, os.path.basename(self.path), f"{name}: {why}", advice)
            return None
        name = self._name(draft)
        secret = next((key for key in _PASSWORDS if key in self.settings), "")
        if secret:
            self.source["#"] = f'password_file = "{name}.password"  # write the password there, mode 0600'
        draft.sources[name] = self.source
        for setting in self.settings.values():
            result, note = self.told.get(
                setting.name, (Result.UNUSED, "the gateway has its own way, which needs no setting")
            )
            if setting.name == secret:
                advice = f"write it into a file with mode 0600, and name that as password_file of [sources.{name}]"
                self._report(report, setting, Result.REFUSED, "passwords are not copied", advice)
            else:
                self._report(report, setting, result, note)
        return f"{TYPES[self.kind][1]}:{name}"

    def _report(self, report: Report, setting: Parameter, result: Result, note: str, advice: str = "") -> None:
        shown = "***" if setting.name in _PASSWORDS else setting.value
        report.add(self.path, setting.line, f"{setting.name} = {shown}", result, note, advice, setting.last_line)

    def _name(self, draft: Draft) -> str:
        stem = os.path.basename(self.path).removesuffix(".cf").removesuffix(".ldap").lower()
        name = plain = _NAME.sub("-", stem).strip("-_")[:50] or self.kind
        number = 2
        while name in draft.sources and draft.sources[name] != self.source:
            name, number = f"{plain}-{number}", number + 1
        return name

    # --- settings ---------------------------------------------------------------------------------------------------

    def _value(self, name: str, key: str = "", result: Result = Result.EXACT, note: str = "") -> str:
        """The value of a setting, which is told as `key`."""
        if name not in self.settings:
            return ""
        self.told[name] = (result, note or key)
        return self.settings[name].value.strip()

    def _ldap(self) -> None:
        port = self._value("server_port", "servers")
        has_tls = self._value("start_tls", "StartTLS always").lower() in ("yes", "true", "1")
        servers = []
        for word in split_list(self._value("server_host", "servers")) or ["localhost"]:
            if word.startswith("ldapi:"):
                raise Unusable(
                    "server_host", "a socket in the file system, and no role may open one", "let it listen on TCP"
                )
            plain = word if "://" in word else f"ldap://{word}" + (f":{port}" if port else "")
            servers.append(plain.replace("//localhost", "//127.0.0.1"))
        self.source["servers"] = servers
        self._transport_security(has_tls or all(text.startswith("ldaps:") for text in servers), "server_host")
        self.source["base"] = self._value("search_base", "base")
        if not self.source["base"]:
            raise Unusable("search_base", "there is none", "write base in [sources]")
        scope = self._value("scope", "scope")
        if scope:
            self.source["scope"] = scope
        self.source["filter"] = self._filled("query_filter", "(mailacceptinggeneralid=%s)", is_quoted=False)
        for name in ("special_result_attribute", "leaf_result_attribute", "terminal_result_attribute"):
            if self._value(name):
                raise Unusable(
                    name, "entries that name other entries are not followed", "let one search give the answer"
                )
        self.source["attribute"] = self._value("result_attribute", "attribute") or "maildrop"
        if "," in str(self.source["attribute"]) or " " in str(self.source["attribute"]):
            raise Unusable("result_attribute", "several attributes", "write the one that holds the answer")
        if self._value("bind").lower() == "sasl":
            raise Unusable("bind", "SASL is not used towards LDAP", "give the gateway a DN with a password")
        user = self._value("bind_dn", "user")
        if user:
            self.source["user"] = user

    def _sql(self) -> None:
        servers = []
        for word in split_list(self._value("hosts", "servers")) or ["localhost"]:
            plain = word.removeprefix("inet:")
            if plain.startswith(("unix:", "/", "postgresql:")):
                raise Unusable(
                    "hosts", f'"{word}" is not a host', "let the server listen on TCP, and write HOST or HOST:PORT"
                )
            servers.append("127.0.0.1" + plain[9:] if plain.startswith("localhost") else plain)
        self.source["servers"] = servers
        self._transport_security(False, "hosts")
        self.source["database"] = self._value("dbname", "database")
        self.source["user"] = self._value("user", "user")
        if "query" not in self.settings and "table" in self.settings:
            parts = [
                self._value(name, "query") for name in ("select_field", "table", "where_field", "additional_conditions")
            ]
            self.source["query"] = f"SELECT {parts[0]} FROM {parts[1]} WHERE {parts[2]} = {{key}} {parts[3]}".strip()
        else:
            self.source["query"] = self._filled("query", "", is_quoted=True)

    def _transport_security(self, has_tls: bool, name: str) -> None:
        is_here = all("127.0.0.1" in str(server) or "[::1]" in str(server) for server in list(self.source["servers"]))  # type: ignore[call-overload]
        if is_here and not has_tls:
            self.source["tls"] = "none"
        elif not has_tls:
            self.told[name] = (
                Result.APPROXIMATED,
                'servers; TLS with a verified certificate is required (tls = "none" takes that back)',
            )
        for key in ("tls_ca_cert_file", "tls_CAfile"):
            path = self.places.path(self._value(key, "ca_file")) if key in self.settings else ""
            if path and self.places.exists(path):
                self.source["ca_file"] = path
            elif path:
                self.told[key] = (Result.APPROXIMATED, "it is not there: the authorities of the system are taken")

    def _filled(self, name: str, default: str, *, is_quoted: bool) -> str:
        """A query with places: `'%s'` is `{key}`."""
        text = self._value(name, "filter" if name == "query_filter" else name) or default
        if not text:
            raise Unusable(name, "there is none", "write it in [sources]")
        if "{" in text or "}" in text:
            raise Unusable(name, "it has braces", "write the query in [sources] by hand")
        parts = re.split(r"(%.)", text)
        for index in range(1, len(parts), 2):
            place = _PLACES.get(parts[index][1])
            if place is None:
                raise Unusable(
                    name, f"{parts[index]} has no counterpart", "write the query with {key}, {local}, {domain}"
                )
            parts[index] = place
        joined = "".join(parts)
        if is_quoted:
            joined = re.sub(r"'(\{(?:key|local|domain)\})'", r"\1", joined)
            if re.search(r"'[^']*\{(?:key|local|domain)\}[^']*'", joined):
                raise Unusable(name, "a place within a longer text in quotes", "join the parts in SQL: '@' || {domain}")
        return joined

    def _times_and_formats(self, use: str) -> None:
        wait = self._value("timeout", "timeout_s")
        if wait.isdigit():
            self.source["timeout_s"] = min(15.0, max(0.1, float(wait)))
        form = self._value("result_format", "as it is") or self._value("result_filter", "as it is")
        if form and form != "%s" and use != "recipients":
            raise Unusable("result_format", "the answer is taken as it is", "let the query build the answer")
        if self._value("domain"):
            self.told["domain"] = (Result.APPROXIMATED, "every domain of ours is asked for, not only these")
        if use != "recipients":
            for name in ("query", "select_field"):
                if name in self.told:
                    self.told[name] = (
                        Result.APPROXIMATED,
                        "query; of several rows the first counts, Postfix takes all",
                    )
        for name in self.settings:
            if name in _UNUSED:
                self.told.setdefault(name, (Result.UNUSED, "the gateway has its own way, which needs no setting"))
            elif name.startswith("tls_") and name not in self.told:
                self.told[name] = (Result.APPROXIMATED, "certificates are verified; see [sources]")

    def _check(self) -> None:
        """What `gatepost check` would say against the source."""
        for key, parse in (("filter", parse_filter), ("query", parse_pieces)):
            if key in self.source:
                try:
                    parse(str(self.source[key]))
                except InvalidValue as refused:
                    raise Unusable(
                        "query_filter" if key == "filter" else key, refused.problem, refused.advice
                    ) from None
        findings = Findings("", None)  # type: ignore[arg-type]
        check_sources({"sources": {"x": dict(self.source)}}, (), findings)
        for error in findings.errors:
            name = {"filter": "query_filter", "base": "search_base", "servers": "hosts", "database": "dbname"}.get(
                error.key.rpartition(".")[2], error.key.rpartition(".")[2]
            )
            raise Unusable(name, error.problem, error.advice)
