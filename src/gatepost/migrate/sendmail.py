"""Imports a sendmail gateway: sendmail.mc, its tables and lists of domains, into a configuration and a report.

The tables are used as they are where every line can be; class w (local-host-names) and class R (relay-domains) become domains and
networks. A domain whose mail sendmail delivered into mailboxes gets an LMTP next hop on this host, since there are none here.
Every file of the directory is told of.
"""

from __future__ import annotations

import os
import socket

from gatepost.config.nexthop import canonical, parse_next_hop
from gatepost.config.ours import parse_our_domain
from gatepost.config.values import InvalidValue, parse_fqdn, parse_listen, parse_network
from gatepost.migrate.aliases import import_aliases
from gatepost.migrate.draft import Draft
from gatepost.migrate.logins import OTHERWISE, WHY, import_logins
from gatepost.migrate.otherfiles import OF_SENDMAIL, other_files
from gatepost.migrate.places import Places, Unreadable
from gatepost.migrate.report import Report
from gatepost.migrate.sendmail_mc import PORTS, McReader, domain_of
from gatepost.migrate.sendmail_meaning import LDAP_TABLE, LDAP_TABLES
from gatepost.migrate.sendmail_rewriting import RewritingImport
from gatepost.migrate.tables import TableImport
from gatepost.routing.tables.sendmail_keys import network_of
from gatepost.routing.tables.sendmail_mailertable import MailertableTable, parse_route
from gatepost.routing.tables.source import Collector

STANDARD = "/etc/mail"
AUTHINFO_FILES = ("authinfo", "auth/client-info", "default-auth-info")
LOCAL_LMTP = "lmtp://127.0.0.1:24"
# feature -> (key of the configuration, kind, file, what is exact about its lines)
TABLES = {
    "access_db": ("access", "sendmail-access", "access", "used as sendmail-access"),
    "mailertable": ("routes", "sendmail-mailertable", "mailertable", "used as sendmail-mailertable"),
    "virtusertable": ("virtual", "sendmail-virtusertable", "virtusertable", "used as sendmail-virtusertable"),
    "domaintable": ("domaintable", "sendmail-domaintable", "domaintable", "used as sendmail-domaintable"),
    "genericstable": (
        "genericstable",
        "sendmail-genericstable",
        "genericstable",
        "used as sendmail-genericstable in a rewrite rule",
    ),
}


class SendmailImport:
    """One directory."""

    def __init__(self, directory: str, hostname: str = "", copies_tables: bool = False) -> None:
        self.places = Places(directory, STANDARD)
        self.report = Report()
        self.draft = Draft(self.places.directory, copies_tables)
        self.draft.hostname = hostname
        self.seen: set[str] = set()
        self.reader = McReader(self.places, self.draft, self.report)
        self.macros = self.reader.macros
        self.routes = MailertableTable("", {})
        self.local: dict[str, str] = {}  # class w: domain -> origin

    def run(self) -> None:
        """Read everything; what was found is in `draft` and `report`."""
        mc = self._here("sendmail.mc")
        if self.places.exists(mc):
            self._see(mc)
            self.reader.read(mc)
            self.seen |= self.reader.included
        else:
            advice = "import again with the sendmail.mc that sendmail.cf was made from"
            self.report.refused(mc, 0, "sendmail.mc", "there is no such file, and sendmail.cf is not read", advice)
        self._tables()
        self._names()
        self._relay_domains()
        self._smart_host()
        self._local_domains()
        self._virtual_domains()
        self._aliases()
        self._certificates()
        self._listen()
        self._rewriting()
        self._authinfo()
        self._others()
        self._finish()

    # --- tables -----------------------------------------------------------------------------------------------------

    def _tables(self) -> None:
        for feature, (key, kind, name, note) in TABLES.items():
            call, file = self.macros.features.get(feature, (None, ""))
            path = self._here(name)
            if call is not None:
                text = next((word for word in call.argument(1).split() if word.startswith("/")), "")
                path = self.places.path(text).removesuffix(".db") if text else path
            is_there = self.places.exists(path) or self.places.exists(path + ".db")
            if call is None:
                if is_there:
                    self._see(path, path + ".db")
                    self.report.unused(
                        path, 0, name, f"sendmail.mc has no FEATURE({feature}): sendmail does not read it"
                    )
                continue
            if call.argument(1).strip().upper().startswith("LDAP"):
                why, advice = "LDAP is not imported", LDAP_TABLES.get(feature, LDAP_TABLE)
                self.report.refused(file, call.line, str(call), why, advice, call.last_line)
                continue
            if not is_there:
                advice = "import again with the file in its place, or remove the feature"
                self.report.refused(
                    file, call.line, str(call), f"{path}: there is no such file", advice, call.last_line
                )
                continue
            self._see(path, path + ".db")
            self.report.exact(file, call.line, str(call), f"{path} is used", call.last_line)
            data = TableImport(self.draft, self.report, key, kind, path).run(note)
            if key == "routes" and data is not None:
                self.routes = MailertableTable.of_data(data)
        if "access_db" in self.macros.features and not {"blacklist_recipients", "blocklist_recipients"} & set(
            self.macros.features
        ):
            call, file = self.macros.features["access_db"]
            how = (
                "without FEATURE(blocklist_recipients) sendmail does not ask the table for recipients; here it is asked"
            )
            self.report.approximated(file, call.line, str(call), how, "", call.last_line)

    # --- names, domains, networks -----------------------------------------------------------------------------------

    def _names(self) -> None:
        if not self.draft.hostname:
            mailname = self.places.path("/etc/mailname")
            name = self._line_of(mailname) if self.places.root else ""
            for candidate in (name, socket.getfqdn()):
                try:
                    self.draft.hostname = parse_fqdn(candidate)
                    break
                except InvalidValue:
                    continue
            where = mailname if name else self._here("sendmail.mc")
            if not self.draft.hostname:
                self.draft.hostname = "gateway.example.net"
            how = f"sendmail asks the system for its name; {self.draft.hostname} was taken"
            self.report.approximated(where, 0, "hostname", how, "write hostname, or import again with --hostname")
        self.local[self.draft.hostname] = "class w: the host itself"

    def _class(self, name: str, default: str, define: str = "") -> list[tuple[str, str, int]]:
        """The members of a class: from calls, and from its file."""
        members = list(self.macros.lists.get(name, ()))
        paths = [(path, file, line) for path, file, line in self.macros.files.get(name + "_FILE", ())]
        if define in self.macros.defines:
            value, file, line = self.macros.defines[define]
            text = next((word for word in value.split() if word.startswith("/")), default)
            self.report.exact(file, line, f"define({define}, {value})", "read")
            paths.append((text, file, line))
        elif default and self.places.exists(self._here(default)):
            paths.append((default, "", 0))
        for text, file, line in paths:
            path = self.places.path(text)
            try:
                content = self.places.read(path)
            except Unreadable as error:
                self.report.refused(
                    file, line, text, f"{path}: {error.args[0]}", "import again with the file in its place"
                )
                continue
            self._see(path)
            if line and define not in self.macros.defines:
                self.report.exact(file, line, f"{name}_FILE({text})", f"{path} is read")
            if not any(written.partition("#")[0].strip() for written in content.split("\n")):
                self.report.unused(path, 0, os.path.basename(path), "it lists nothing")
            for number, written in enumerate(content.split("\n"), 1):
                word = written.partition("#")[0].strip()
                if word:
                    members.append((word, path, number))
        return members

    def _relay_domains(self) -> None:
        is_exact = "relay_hosts_only" in self.macros.features
        for word, file, line in self._class("RELAY_DOMAIN", "relay-domains", "confCR_FILE"):
            network = network_of(word.lower())
            if network is None and "/" in word:
                self.report.refused(
                    file,
                    line,
                    word,
                    "sendmail has no prefix lengths: the line never matched",
                    f"write networks = [{word!r}]",
                )
                continue
            if network is not None:
                try:
                    self.draft.network(str(parse_network(str(network))))
                except InvalidValue as error:
                    self.report.refused(file, line, word, error.problem, error.advice)
                    continue
                self.report.exact(file, line, word, f"relay.networks: {network}")
                continue
            name = domain_of(word)
            if name is None:
                self.report.refused(
                    file, line, word, "it is neither a domain nor an address", "write a domain or a network"
                )
                continue
            if not (is_exact or self._is_one_organisation(name, file, line, word)):
                continue
            self.draft.domain(name.removeprefix("."), f"relay-domains:{line}")
            if not is_exact:
                self.draft.domain("." + name.removeprefix("."), f"relay-domains:{line}")
            how = "mail to the domain is taken; clients with this name in DNS may not relay: whoever answers for it could be anyone"
            self.report.approximated(file, line, word, how, "name networks of your own machines in relay.networks")
        if is_exact:
            call, file = self.macros.features["relay_hosts_only"]
            self.report.exact(
                file, call.line, str(call), "only the named domains, not what is below them", call.last_line
            )
        for own in ("127.0.0.1/32", "::1/128"):
            self.draft.network(own)
        how = "sendmail lets the host itself relay; 127.0.0.1 and ::1 are taken, other addresses of the host are not known"
        self.report.approximated(
            self._here("sendmail.mc"), 0, "the host itself", how, "add its own addresses to relay.networks"
        )

    def _is_one_organisation(self, name: str, file: str, line: int, word: str) -> bool:
        """Whether a domain with all below it may be ours; told if not."""
        try:
            parse_our_domain("." + name.removeprefix("."))
        except InvalidValue as error:
            self.report.refused(file, line, word, error.problem, error.advice)
            return False
        return True

    def _smart_host(self) -> None:
        for name in ("SMART_HOST", "confDAEMON_OPTIONS", "RELAY_MAILER_ARGS", "VIRTUSER_ERROR_FAULT"):
            if name not in self.macros.defines:
                continue
            value, file, line = self.macros.defines[name]
            text = f"define({name}, {value})"
            if name != "SMART_HOST":
                if name == "RELAY_MAILER_ARGS" and value.split()[-1:] != ["$h"]:
                    self.report.approximated(file, line, text, "its port goes to the smart host", "")
                else:
                    self.report.unused(file, line, text, "a matter of sendmail's mailers")
                continue
            hop = self._next_hop(value, file, line, text)
            if hop is None:
                continue
            self.draft.relay_next_hop = [hop]
            self.draft.origins["relay.next_hop"] = f"SMART_HOST in sendmail.mc:{line}"
            self.report.exact(file, line, text, f"relay.next_hop = {hop}")

    def _next_hop(self, value: str, file: str, line: int, text: str) -> str | None:
        collector = Collector(file)
        try:
            hop = parse_route(value, line, collector)
            arguments, _, _ = self.macros.defines.get("RELAY_MAILER_ARGS", ("", "", 0))
            port = (arguments.split() or [""])[-1]
            if port.isdigit() and value.partition(":")[0] in ("relay", value):
                host = hop.removeprefix("mx:").removeprefix("smtp://").removesuffix(":25")
                hop = canonical(parse_next_hop(f"smtp://{host}:{port}"))
        except InvalidValue as error:
            self.report.refused(file, line, text, error.problem, error.advice)
            return None
        for note in collector.notes:
            self.report.approximated(file, line, text, note.problem, note.advice)
        return hop

    def _local_domains(self) -> None:
        """Class w: what sendmail delivered into mailboxes, or passed on to a hub."""
        hub = ""
        if "LOCAL_RELAY" in self.macros.defines and "MAIL_HUB" in self.macros.defines:
            value, file, line = self.macros.defines.pop("LOCAL_RELAY")
            why = "it is for addresses without a domain, which are refused; MAIL_HUB is for the others"
            self.report.unused(file, line, f"define(LOCAL_RELAY, {value})", why)
        for name in ("LOCAL_RELAY", "MAIL_HUB", "nullclient"):
            if name == "nullclient":
                if name not in self.macros.features:
                    continue
                call, file = self.macros.features[name]
                value, line, text = call.argument(1), call.line, str(call)
            elif name in self.macros.defines:
                value, file, line = self.macros.defines[name]
                text = f"define({name}, {value})"
            else:
                continue
            hop = self._next_hop(value, file, line, text)
            if hop is not None:
                hub = hop
                self.report.exact(file, line, text, f"next_hop of the local domains = {hop}")
                if name == "nullclient":
                    self.draft.relay_next_hop = [hop]
        members = self._class("LOCAL_DOMAIN", "local-host-names", "confCW_FILE")
        for word, file, line in members:
            domain = None if word.startswith("[") else domain_of(word)
            if word.startswith("[") or word.lower() in ("localhost", "localhost.localdomain"):
                self.report.unused(
                    file, line, word, "an address literal of ours has a postmaster; localhost is no domain"
                )
                continue
            if domain is None:
                self.report.refused(file, line, word, "it is not a domain", "write its name")
                continue
            self.local.setdefault(domain, f"{os.path.basename(file)}:{line}")
            if hub:
                self.report.exact(file, line, word, f"a domain of ours, next_hop = {hub}")
            else:
                how = (
                    f"sendmail delivers into mailboxes; next_hop = {LOCAL_LMTP} is for a server with LMTP on this host"
                )
                self.report.approximated(
                    file, line, word, how, "write the next hop of the server that has the mailboxes"
                )
        for name, origin in self.local.items():
            self.draft.domain(name, origin).next_hop = [hub or LOCAL_LMTP]

    def _virtual_domains(self) -> None:
        """Domains that only the virtusertable knows, and those of the access table, are told with their tables."""
        for word, file, line in self._class("VIRTUSER_DOMAIN", ""):
            name = domain_of(word)
            if name is None:
                self.report.refused(file, line, word, "it is not a domain", "write its name")
                continue
            names = [name, "." + name] if "virtuser_entire_domain" in self.macros.features else [name]
            route = self.routes.route(name)
            for each in names:
                imported = self.draft.domain(each, f"VIRTUSER_DOMAIN {os.path.basename(file)}:{line}")
                imported.recipients = None if route else []
            if route:
                how = f"a domain of ours; what the virtusertable does not know goes to {route}, by the mailertable"
                self.report.exact(file, line, word, how)
                continue
            how = "a domain of ours; what the virtusertable does not know is refused, where sendmail passes it on"
            self.report.approximated(file, line, word, how, "name its mail server in the mailertable, if it has one")

    def _aliases(self) -> None:
        value, file, line = self.macros.defines.get("ALIAS_FILE", ("", "", 0))
        text = next((part for part in value.replace(",", " ").split() if part.startswith("/")), "/etc/mail/aliases")
        if value == "" and line:
            self.report.exact(file, line, "define(ALIAS_FILE, )", "no aliases")
            return
        candidates = [self.places.path(text), self._here("aliases"), self.places.path("/etc/aliases")]
        if not self.places.root:
            candidates = candidates[:2] if self.places.is_copy else candidates
        for path in candidates:
            if self.places.exists(path) or self.places.exists(path + ".db"):
                self._see(path, path + ".db")
                if line:
                    self.report.exact(file, line, f"define(ALIAS_FILE, {value})", f"{path} is read")
                import_aliases(path, list(self.local), self.draft, self.report)
                return
        if line:
            self.report.refused(
                file, line, f"define(ALIAS_FILE, {value})", "there is no such file", "import again with it"
            )

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        for options, file, line in self.macros.daemons:
            text = "DAEMON_OPTIONS(" + ", ".join(f"{key.upper()}={value}" for key, value in options.items()) + ")"
            address = options.get("a", "").strip("[]").removeprefix("IPv6:")
            is_six = options.get("f", "inet").lower() == "inet6"
            port = PORTS.get(options.get("p", "smtp").lower(), 0) or int(
                options["p"] if options.get("p", "").isdigit() else 0
            )
            address = address or ("::" if is_six else "0.0.0.0")
            try:
                listen = str(parse_listen(f"[{address}]:{port}" if ":" in address else f"{address}:{port}"))
            except InvalidValue as error:
                self.report.refused(file, line, text, error.problem, error.advice)
                continue
            flags = options.get("m", "")
            if port in (587, 465) or "a" in flags:
                self._submission(listen, port, file, line, text)
                continue
            self.draft.listen.append(listen)
            if set(flags) - set("EbfuS"):
                how = f"listen on {listen}; the flags {flags} have no counterpart"
                self.report.approximated(file, line, text, how)
            else:
                self.report.exact(file, line, text, f"listen on {listen}")
        if not self.draft.listen:
            self.draft.listen = ["0.0.0.0:25", "[::]:25"]
            how = "no DAEMON_OPTIONS for port 25: every address on port 25, which is sendmail's default"
            self.report.exact(self._here("sendmail.mc"), 0, "listen", how)

    def _submission(self, listen: str, port: int, file: str, line: int, text: str) -> None:
        if not self.draft.certificates:
            why = "a listener for submission needs a certificate, and there is none"
            advice = f'write [[tls.certificates]], and [[listeners]] with address = "{listen}"'
            self.report.refused(file, line, text, why, advice)
            return
        self.draft.listeners.append({"address": listen, "kind": "submissions" if port == 465 else "submission"})
        how = "a listener for submission; its users are not imported"
        self.report.approximated(file, line, text, how, "write auth.users_file")

    def _certificates(self) -> None:
        pair = [self.macros.defines.get(name) for name in ("confSERVER_CERT", "confSERVER_KEY")]
        if not any(pair):
            return
        paths = [self.places.path(found[0]) if found else "" for found in pair]
        is_there = all(path and self.places.exists(path) for path in paths)
        if is_there:
            self.draft.certificates.append((paths[0], paths[1], "confSERVER_CERT"))
        for name, found in zip(("confSERVER_CERT", "confSERVER_KEY"), pair, strict=True):
            if found is None:
                continue
            value, file, line = found
            text = f"define({name}, {value})"
            if is_there:
                self.report.exact(file, line, text, "[[tls.certificates]]")
            else:
                advice = "write [[tls.certificates]] once certificate and key are in their places"
                self.report.refused(file, line, text, "the certificate or its key is not there", advice)

    def _rewriting(self) -> None:
        RewritingImport(self.macros, self.draft, self.report, self._class, self.local).run()
        for list_name in ("LDAPROUTE_DOMAIN", "LDAPROUTE_EQUIVALENT"):
            for word, path, number in self._class(list_name, ""):
                self.report.refused(
                    path,
                    number,
                    f"{list_name}({word})",
                    "LDAP is not imported",
                    'write [sources.NAME] with type = "ldap"',
                )

    def _authinfo(self) -> None:
        why = WHY
        advices = {name: import_logins(self._here(name), self.draft, self.report) for name in AUTHINFO_FILES}
        used = [name for name, advice in advices.items() if not advice]
        there = [name for name in AUTHINFO_FILES if self.places.exists(self._here(name))]
        if "authinfo" in self.macros.features:
            call, file = self.macros.features["authinfo"]
            if used:
                self.report.exact(file, call.line, str(call), "delivery.credentials_file", call.last_line)
            else:
                advice = advices[there[0]] if there else OTHERWISE
                self.report.refused(file, call.line, str(call), why, advice, call.last_line)
        for name, advice in advices.items():
            path = self._here(name)
            if name in used:
                self._see(path, path + ".db")
                continue
            if not (self.places.exists(path) or self.places.exists(path + ".db")):
                continue
            self._see(path, path + ".db")
            try:
                content = self.places.read(path) if self.places.exists(path) else ""
            except Unreadable as error:
                self.report.refused(path, 0, name, error.args[0], "see who may read it")
                continue
            for number, line in enumerate(content.split("\n"), 1):
                if line.strip() and not line.startswith("#"):
                    key = line.split(None, 1)[0]
                    self.report.refused(path, number, f"{key} ***", why, advice)
            if not content:
                self.report.refused(path + ".db", 0, name, why, advice)

    def _others(self) -> None:
        """Every other file of the directory."""
        for path, short, why in other_files(self.places.directory, self.seen, OF_SENDMAIL):
            self.report.unused(path, 0, short, why or "nothing in sendmail.mc names it")

    def _finish(self) -> None:
        """What has no next hop of its own goes to the smart host, as all that sendmail relays."""
        for domain in self.draft.domains.values():
            if not domain.next_hop and domain.recipients is None:
                domain.next_hop = list(self.draft.relay_next_hop)

    def _here(self, name: str) -> str:
        return os.path.join(self.places.directory, name)

    def _see(self, *paths: str) -> None:
        self.seen.update(paths)

    def _line_of(self, path: str) -> str:
        try:
            return self.places.read(path).split("\n")[0].strip()
        except Unreadable:
            return ""
