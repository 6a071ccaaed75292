"""Postfix's address classes as domains: relay_domains, mydestination, virtual mailboxes and aliases, with the tables of their
recipients, their routes and their virtual addresses.

Tables are used as they are where every line can be; what is asked over the network is told, setting by setting.
"""

from __future__ import annotations

import os

from gatepost.config import rules
from gatepost.config.ours import parse_our_domain
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.migrate.aliases import import_aliases
from gatepost.migrate.draft import Draft
from gatepost.migrate.places import Unreadable
from gatepost.migrate.postfix_cf import parse_main, split_list
from gatepost.migrate.postfix_senders import SenderRouteImport
from gatepost.migrate.postfix_sources import TYPES, SourceImport
from gatepost.migrate.postfix_state import PostfixState
from gatepost.migrate.report import Report, Result
from gatepost.migrate.tables import TableImport
from gatepost.routing.tables.postfix_text import split_key
from gatepost.routing.tables.postfix_transport import BadTransport, parse_transport

LOCAL_LMTP = "lmtp://127.0.0.1:24"
FILE_KINDS = ("hash", "btree", "texthash", "cdb", "lmdb", "cidr", "regexp", "pcre", "inline", "static")
PLAIN_KINDS = {"dbm": "hash", "sdbm": "hash"}
REMOTE = {
    "ldap": "write an LDAP table, with the server, base and filter of that file",
    "mysql": "write an SQL table, with the server, database and query of that file",
    "pgsql": "write an SQL table, with the server, database and query of that file",
    "sqlite": 'write "sqlite:PATH#TABLE" with a table of keys and values',
    "memcache": "there is no such table",
    "socketmap": "there is no such table",
    "tcp": "there is no such table",
    "nis": "there is no such table",
    "unix": "the users of this host are not recipients: list those that exist",
    "environ": "there is no such table",
    "pipemap": "there is no such table",
    "unionmap": "name the tables one by one",
    "randmap": "write several next hops for the domain",
    "fail": "there is no such table",
    "internal": "there is no such table",
}


class DomainPart(PostfixState):
    """The domains, and where their mail goes."""

    # --- address classes --------------------------------------------------------------------------------------------

    def _classes_of_addresses(self) -> None:
        relay_hop = self._hop_of("relay_transport", "relay")
        matches = self.parameters.value("parent_domain_matches_subdomains")
        is_written = self.parameters.is_written("parent_domain_matches_subdomains")
        with_below = not is_written or "relay_domains" in split_list(matches)
        if is_written:
            note = "names below relay_domains are ours too" if with_below else "only names that are listed are ours"
            self.tell("parent_domain_matches_subdomains", Result.EXACT, note)
        self._domains("relay_domains", relay_hop, "relay_recipient_maps", with_below=with_below)
        local_hop = self._local_hop()
        local = self._domains("mydestination", local_hop, "", with_below=False)
        self._local_recipients(local)
        virtual_hop = self._hop_of("virtual_transport", "virtual")
        if self.parameters.is_written("virtual_mailbox_domains"):
            self._domains(
                "virtual_mailbox_domains", virtual_hop or [LOCAL_LMTP], "virtual_mailbox_maps", with_below=False
            )
        self.told.update(("virtual_mailbox_maps", "relay_recipient_maps"))
        if not self.draft.domains:
            self.draft.domain(self.draft.hostname, "the host itself").next_hop = [LOCAL_LMTP]
            how = f"no domain is listed; the host itself was taken, with next_hop = {LOCAL_LMTP}"
            self.report.approximated(self.main, self.line_of("mydestination"), "mydestination", how, "list the domains")

    def _domains(self, name: str, next_hop: list[str], recipients: str, with_below: bool) -> list[str]:
        """The domains of a list, with their next hop and the tables of their recipients."""
        value = self.parameters.value(name) if self.parameters.is_written(name) or name == "mydestination" else ""
        names, problems = self._names(name, value)
        tables = self._tables("recipients", recipients, "used for the recipients that exist") if recipients else []
        for domain in names:
            imported = self.draft.domain(domain, f"{name} main.cf:{self.line_of(name)}")
            imported.next_hop = imported.next_hop or list(next_hop)
            if tables:
                imported.recipients = (imported.recipients or []) + [
                    table for table in tables if table not in (imported.recipients or [])
                ]
            if with_below and not domain.startswith("."):
                try:
                    parse_our_domain("." + domain)
                except InvalidValue as error:
                    problems.append((domain, error.problem, error.advice))
                    continue
                below = self.draft.domain("." + domain, f"{name} main.cf:{self.line_of(name)}")
                below.next_hop, below.recipients = list(imported.next_hop), imported.recipients
        parameter = self.parameters.written.get(name)
        for word, problem, advice in problems if parameter else []:
            assert parameter is not None
            self.report.refused(self.main, parameter.line, f"{name}: {word}", problem, advice, parameter.last_line)
        if name == "mydestination":
            if self.parameters.is_written(name) or names:
                how = f"Postfix delivers into mailboxes; next_hop = {', '.join(next_hop)}"
                line = self.line_of(name)
                if names:
                    self.report.approximated(
                        self.main,
                        line,
                        f"{name} = {value}",
                        how,
                        "write the next hop of the server that has the mailboxes",
                        parameter.last_line if parameter else 0,
                    )
                else:
                    self.tell(name, Result.EXACT, "no local domain")
        elif parameter is not None:
            note = f"domains{' and what is below them' if with_below else ''}: {', '.join(names) or 'none'}"
            self.tell(name, Result.EXACT, note)
        self.told.add(name)
        return names

    def _names(self, name: str, value: str) -> tuple[list[str], list[tuple[str, str, str]]]:
        """Domain names of a list, also out of the files and tables it names."""
        names: list[str] = []
        problems: list[tuple[str, str, str]] = []
        for word in split_list(value):
            if word.startswith("!"):
                problems.append((word, "a name cannot be taken out of a list", "leave it out of the list"))
                continue
            if word.startswith("/") or ":" in word:
                names.extend(self._names_of_file(word, problems))
                continue
            if word.rstrip(".").lower() in ("localhost", "localhost.localdomain") or word.lower().startswith(
                "localhost."
            ):
                continue
            try:
                names.append(parse_our_domain(word))
            except InvalidValue as error:
                problems.append((word, error.problem, error.advice))
        return list(dict.fromkeys(names)), problems

    def _names_of_file(self, word: str, problems: list[tuple[str, str, str]]) -> list[str]:
        kind, _, name = word.partition(":") if not word.startswith("/") else ("", "", word)
        if kind not in ("", "hash", "btree", "texthash", "cdb", "lmdb", "inline"):
            problems.append((word, f'"{kind}:" is not read for names', "list the domains in [domains]"))
            return []
        path = self.places.path(name)
        taken = TableImport(Draft(""), Report(), "", kind or "texthash", path, joins_lines=bool(kind))
        lines: list[tuple[int, str]]
        if kind == "":
            try:
                text = self.places.read(path)
            except Unreadable as error:
                problems.append((word, f"{path}: {error.args[0]}", "import again with the file in its place"))
                return []
            lines = [(number, line) for number, line in enumerate(text.split("\n"), 1)]
        elif taken.load():
            lines = [(number, text) for number, _, text in taken.constructs()]
        else:
            problems.append((word, f"{path}: it cannot be read", "import again with the file in its place"))
            return []
        self.seen.update((path, path + ".db"))
        names = []
        for number, line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = split_key(line.strip())[0]
            if "@" in key:  # virtual_alias_domains = $virtual_alias_maps, the default, written out
                self.report.unused(taken.shown, number, line, "Postfix asks this list for domains only")
                continue
            try:
                names.append(parse_our_domain(key))
                self.report.exact(taken.shown, number, line, "a domain of ours")
            except InvalidValue as error:
                self.report.refused(taken.shown, number, line, error.problem, error.advice)
        return names

    def _local_hop(self) -> list[str]:
        for name in ("mailbox_transport", "local_transport", "fallback_transport"):
            if not self.parameters.is_written(name):
                continue
            value = self.parameters.value(name)
            if value.partition(":")[0] == "local":
                self.tell(name, Result.UNUSED, "no mail is delivered into mailboxes here")
                continue
            hop = self._transport(name, value)
            if hop:
                return hop
        return [LOCAL_LMTP]

    def _hop_of(self, name: str, default: str) -> list[str]:
        """The next hop that a transport of main.cf gives; [] for one without a host."""
        value = self.parameters.value(name)
        if not self.parameters.is_written(name) or value in (default, f"{default}:"):
            self.tell(name, Result.EXACT, "as by default")
            return []
        return self._transport(name, value) or []

    def _transport(self, name: str, value: str) -> list[str]:
        try:
            hop, note = parse_transport(value)
        except BadTransport as error:
            self.tell(name, Result.REFUSED, *error.args)
            return []
        if note is not None:
            self.tell(name, Result.APPROXIMATED, note.problem, note.advice)
        else:
            self.tell(name, Result.EXACT, f"next_hop = {hop or 'mx'}")
        return hop.split(",") if hop and not hop.startswith("error:") else []

    def _local_recipients(self, domains: list[str]) -> None:
        """Aliases of the local domains; who else exists the next hop knows."""
        for name in ("alias_maps", "alias_database"):
            if not self.parameters.is_written(name):
                continue
            if name == "alias_database" and self.parameters.is_written("alias_maps"):
                self.tell(name, Result.UNUSED, "alias_maps is what is read")
                continue
            for word in split_list(self.parameters.value(name)):
                kind, _, path_text = word.removeprefix("proxy:").partition(":")
                path = self.places.path(path_text)
                if not domains:
                    continue
                if kind not in ("hash", "btree", "texthash", "dbm"):
                    self._refuse_kind(name, kind, word)
                    continue
                if not (self.places.exists(path) or self.places.exists(path + ".db")):
                    why = f"{path}: there is no such file"
                    self.tell(name, Result.REFUSED, why, "import again with the file in its place")
                    continue
                self.seen.update((path, path + ".db"))
                import_aliases(path, domains, self.draft, self.report)
                self.tell(name, Result.EXACT, f"aliases: {path}")
            if not domains or not self.parameters.value(name).strip():
                self.tell(name, Result.UNUSED, "there is no local domain")
        value = self.parameters.value("local_recipient_maps")
        if self.parameters.is_written("local_recipient_maps") and not value.strip():
            self.tell("local_recipient_maps", Result.EXACT, "every local part is taken")
        elif domains:
            how = "the users of this host are not read: every local part is taken, and the next hop refuses what it has not"
            line = self.line_of("local_recipient_maps")
            self.report.approximated(self.main, line, "local_recipient_maps", how, "list the recipients")
            self.told.add("local_recipient_maps")

    # --- tables -----------------------------------------------------------------------------------------------------

    def _tables(self, key: str, name: str, note: str, origin: str = "") -> list[str]:
        """The tables that a parameter names, taken over; their names in the configuration."""
        if not self.parameters.is_written(name):
            return []
        self.told.add(name)
        found: list[str] = []
        if not self.parameters.value(name).strip():
            self.tell(name, Result.EXACT, "none")
        for word in split_list(self.parameters.value(name)):
            plain = word.removeprefix("proxy:")
            kind, _, argument = plain.partition(":")
            kind = PLAIN_KINDS.get(kind, kind)
            if kind not in FILE_KINDS or not argument:
                found.extend(self._remote(key, name, plain))
                continue
            found.extend(self._table(key, name, kind, argument, note, origin))
        return found

    def _table(self, key: str, name: str, kind: str, argument: str, note: str, origin: str = "") -> list[str]:
        if kind in ("inline", "static"):
            self.tell(name, Result.EXACT, f"{key}: {kind} table")
            if key != "recipients":
                self.draft.table(key, f"{kind}:{argument}")
            return [f"{kind}:{argument}"]
        path = self.places.path(argument)
        self.seen.update((path, path + ".db", path + ".cdb", path + ".lmdb"))
        before = {table for tables in self.draft.tables.values() for table in tables}
        if key == "sender_routes":
            is_host = name == "sender_dependent_relayhost_maps"
            table: TableImport = SenderRouteImport(self.draft, self.report, kind, path, is_host)
        else:
            table = TableImport(self.draft, self.report, key, kind, path, joins_lines=True)
        table.origin = origin
        if key == "virtual":
            table.is_marker = _is_domain_marker
        data = table.run(note)
        if data is None:
            self.tell(name, Result.REFUSED, f"{path} cannot be used", "see its own lines")
            return []
        self.tell(name, Result.EXACT, f"{key}: {table.shown}")
        if key == "routes":
            self.routes = {**data.entries, **self.routes}
        if key == "virtual":
            for domain in table.markers:
                self._alias_domain(domain, f"{os.path.basename(path)}")
        named = [entry for entry in self.draft.tables.get(key, ()) if entry not in before] or [table.name]
        if key == "recipients":
            self.draft.tables.pop("recipients", None)
        return named

    def _remote(self, key: str, name: str, word: str) -> list[str]:
        """A table that is asked over the network: a source; its name in the configuration, or none."""
        kind, _, argument = word.partition(":")
        if kind not in TYPES or not argument:
            self._refuse_kind(name, kind, word)
            return []
        path = self.places.path(argument)
        self.seen.add(path)
        try:
            settings, _ = parse_main(self.places.read(path))
        except Unreadable as error:
            why = f"{path}: {error.args[0]}"
            self.tell(name, Result.REFUSED, why, "import again with the file in its place", f"{name}: {word}")
            return []
        table = SourceImport(kind, path, settings, self.places).run(key, self.draft, self.report)
        if table is None:
            self.tell(name, Result.REFUSED, f"{path} cannot be asked here", "see its own lines", f"{name}: {word}")
            return []
        if key != "recipients":
            self.draft.table(key, table)
        self.tell(name, Result.EXACT, f"{key}: {table}, asked over the network", text=f"{name}: {word}")
        return [table]

    def _refuse_kind(self, name: str, kind: str, word: str) -> None:
        """A table of a kind that does not exist here, or not for this use."""
        self.told.add(name)
        advice = REMOTE.get(kind, "write the table as a file")
        self.tell(name, Result.REFUSED, f'"{kind}:" is not read by the import', advice, f"{name}: {word}")

    # --- routes, virtual addresses ----------------------------------------------------------------------------------

    def _routes(self) -> None:
        self._tables("routes", "transport_maps", "used as a table of routes")
        for name in ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps"):
            if self._tables("sender_routes", name, "used as a table of routes by sender"):
                how = "sender_routes: for mail to domains that are not ours; a table of routes by recipient comes first"
                self.tell(name, Result.APPROXIMATED if name.endswith("transport_maps") else Result.EXACT, how)
        if self.parameters.is_written("relayhost"):
            value = self.parameters.value("relayhost").strip()
            if not value:
                self.tell("relayhost", Result.EXACT, "no smart host")
            elif hop := self._default_hop():
                self.draft.relay_next_hop = hop
                self.tell("relayhost", Result.UNUSED, "default_transport names a host, which comes first")
            else:
                hop = self._transport("relayhost", f"smtp:{value}")
                self.draft.relay_next_hop = hop
                self.draft.origins["relay.next_hop"] = f"relayhost main.cf:{self.line_of('relayhost')}"
        if not self.draft.relay_next_hop:
            self.draft.relay_next_hop = self._default_hop()

    def _default_hop(self) -> list[str]:
        """The host of default_transport: postconf(5) has it come before relayhost."""
        is_written = self.parameters.is_written("default_transport")
        hop = self._hop_of("default_transport", "smtp") if is_written else []
        if hop:
            self.draft.origins["relay.next_hop"] = f"default_transport main.cf:{self.line_of('default_transport')}"
        return hop

    def _virtual(self) -> None:
        names: list[str] = []
        if self.parameters.is_written("virtual_alias_domains"):
            value = self.parameters.value("virtual_alias_domains")
            names, problems = self._names("virtual_alias_domains", value)
            for word, problem, advice in problems:
                self.tell("virtual_alias_domains", Result.REFUSED, problem, advice, f"virtual_alias_domains: {word}")
            self.tell("virtual_alias_domains", Result.EXACT, f"domains: {', '.join(names) or 'none'}")
        for name in ("virtual_alias_maps", "virtual_maps"):
            self._tables("virtual", name, "used as a table of virtual addresses", self.origin())
        for domain in names:
            self._alias_domain(domain, f"virtual_alias_domains main.cf:{self.line_of('virtual_alias_domains')}")
        if self.parameters.is_written("recipient_delimiter"):
            self._delimiter(self.parameters.value("recipient_delimiter"))

    def _call_ahead(self) -> None:
        """reject_unverified_recipient: who has a domain without a list is asked for its recipients."""
        for name, domain in self.draft.domains.items() if self.restrictions.verifies_recipients else ():
            if domain.recipients is not None or domain.recipients_file:
                continue
            route = self.routes.get(name, "")
            if route.startswith(("smtp://", "lmtp://")):
                domain.recipients = [f"call-ahead:{route}"]
            elif not route or route.startswith("mx"):
                domain.next_hop = [route] if route else domain.next_hop
                domain.recipients = ["call-ahead:next-hop"]

    def _delimiter(self, value: str) -> None:
        good = [character for character in value if character in rules.CHOICES["detail_separator"]]
        if not value.strip():
            self.tell("recipient_delimiter", Result.EXACT, "none")
        elif not good:
            self.tell("recipient_delimiter", Result.REFUSED, "no such separator is known", "write detail_separator")
        else:
            self.draft.values["detail_separator"] = (good[0], "recipient_delimiter")
            result = Result.EXACT if len(value) == 1 else Result.APPROXIMATED
            self.tell("recipient_delimiter", result, f"detail_separator = {good[0]}")

    def _alias_domain(self, domain: str, origin: str) -> None:
        """A domain in which only virtual addresses exist."""
        imported = self.draft.domain(domain, origin)
        if imported.recipients is None and not imported.next_hop:
            imported.recipients = []


def _is_domain_marker(key: str) -> str | None:
    """The domain, if a key of virtual_alias_maps is one: `example.net anything` makes it a virtual alias domain."""
    if "@" in key or "." not in key:
        return None
    try:
        return parse_domain(key)
    except InvalidValue:
        return None
