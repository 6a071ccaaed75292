"""Imports a Postfix gateway: main.cf, master.cf and the tables they name, into a configuration and a report.

Tables are used as they are where every line can be. Address classes become domains: relay_domains with relay_recipient_maps,
virtual aliases and mailboxes, and mydestination, whose mail gets an LMTP next hop on this host, since there are no mailboxes here.
Every parameter, every service with each -o, and every line of the tables is told of.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket

from gatepost.config.values import InvalidValue, parse_fqdn, parse_network
from gatepost.migrate import postfix_meaning as meaning
from gatepost.migrate.otherfiles import OF_POSTFIX, other_files
from gatepost.migrate.places import Unreadable
from gatepost.migrate.postfix_cf import Parameter, Parameters, parse_main, parse_master, split_list
from gatepost.migrate.postfix_domains import FILE_KINDS
from gatepost.migrate.postfix_rewriting import RewritingPart
from gatepost.migrate.postfix_services import ServiceImport
from gatepost.migrate.postfix_switches import SwitchPart
from gatepost.migrate.postfix_tls import TlsPart
from gatepost.migrate.report import Result
from gatepost.migrate.sendmail_mc import parse_time
from gatepost.routing.tables.postfix_text import split_key

_RESTRICTION_LISTS = (
    "smtpd_client_restrictions smtpd_helo_restrictions smtpd_sender_restrictions smtpd_relay_restrictions "
    "smtpd_recipient_restrictions smtpd_data_restrictions smtpd_end_of_data_restrictions smtpd_etrn_restrictions"
)
RESTRICTION_LISTS = tuple(_RESTRICTION_LISTS.split())


class PostfixImport(RewritingPart, TlsPart, SwitchPart):
    """One directory."""

    def run(self) -> None:
        """Read everything; what was found is in `draft` and `report`."""
        try:
            found, bad = parse_main(self.places.read(self.main))
        except Unreadable as error:
            self.report.refused(self.main, 0, "main.cf", error.args[0], "see who may read it")
            found, bad = [], []
        for first, last, text in bad:
            self.report.refused(self.main, first, text, "it is not a parameter", "write: name = value", last)
        self.parameters = Parameters(found)
        for parameter in found:
            if self.parameters.written[parameter.name] is not parameter:
                why = "a later line sets the same parameter, which counts"
                self.report.unused(
                    self.main, parameter.line, f"{parameter.name} = {parameter.value}", why, parameter.last_line
                )
        self._hostname()
        self._networks()
        self._classes_of_addresses()
        self._routes()
        self._virtual()
        self._rewriting()
        self._restrictions()
        self._tls()
        self._switches()
        self._numbers()
        self._services()
        self._rest()
        self._others()

    # --- names and networks -----------------------------------------------------------------------------------------

    def _hostname(self) -> None:
        written = self.parameters.is_written("myhostname")
        mailname = ""
        if self.places.root:
            try:
                mailname = self.places.read(self.places.path("/etc/mailname")).split("\n")[0].strip()
            except Unreadable:
                mailname = ""
        candidates = [self.hostname, self.parameters.value("myhostname") if written else "", mailname, socket.getfqdn()]
        for candidate in candidates:
            try:
                self.draft.hostname = parse_fqdn(candidate)
                break
            except InvalidValue:
                continue
        self.draft.hostname = self.draft.hostname or "gateway.example.net"
        self.parameters.extra["myhostname"] = self.draft.hostname
        if written and self.parameters.value("myhostname").strip().rstrip(".").lower() != self.draft.hostname:
            why = f"it is not the full name of a host, or --hostname says another; {self.draft.hostname} was taken"
            self.tell("myhostname", Result.APPROXIMATED, why, "write hostname, or import again with --hostname")
        elif written:
            self.tell("myhostname", Result.EXACT, f"hostname = {self.draft.hostname}")
        else:
            how = f"Postfix asks the system for its name; {self.draft.hostname} was taken"
            self.report.approximated(self.main, 0, "myhostname", how, "write hostname, or import again with --hostname")
        self.tell("myorigin", Result.UNUSED, "an address without a domain is refused; submission completes it")
        if self.parameters.is_written("smtpd_banner"):
            banner = self.parameters.value("smtpd_banner").split()
            is_plain = banner[:1] == [self.draft.hostname]
            note = "the greeting is the host name and nothing else"
            self.tell(
                "smtpd_banner",
                Result.APPROXIMATED if is_plain else Result.REFUSED,
                note,
                "" if is_plain else "write smtp.banner_name",
            )
        if self.parameters.is_written("smtp_helo_name"):
            try:
                self.draft.values["delivery.helo_name"] = (
                    parse_fqdn(self.parameters.value("smtp_helo_name")),
                    "smtp_helo_name",
                )
                self.tell("smtp_helo_name", Result.EXACT, "delivery.helo_name")
            except InvalidValue as error:
                self.tell("smtp_helo_name", Result.REFUSED, error.problem, error.advice)

    def _networks(self) -> None:
        for name in ("127.0.0.1/32", "::1/128"):
            if not self.parameters.is_written("mynetworks"):
                self.draft.network(name)
        if not self.parameters.is_written("mynetworks"):
            style = self.parameters.value("mynetworks_style")
            if style == "host":
                how = "the host itself: 127.0.0.1 and ::1; other addresses of the host are not known"
                self.report.approximated(
                    self.main,
                    self.line_of("mynetworks_style"),
                    f"mynetworks_style = {style}",
                    how,
                    "write relay.networks",
                )
            else:
                why = f"mynetworks_style = {style} trusts networks that only the host knows, which may be those of strangers"
                self.report.refused(
                    self.main,
                    self.line_of("mynetworks_style"),
                    f"mynetworks_style = {style}",
                    why,
                    "write relay.networks",
                )
            self.told.add("mynetworks_style")
            return
        self.tell("mynetworks_style", Result.UNUSED, "mynetworks is written")
        refused: list[tuple[str, str, str]] = []
        excluded: list[str] = []
        for word in split_list(self.parameters.value("mynetworks")):
            plain = word.removeprefix("!").replace("[", "").replace("]", "")
            if plain.startswith("/") or plain.partition(":")[0] in FILE_KINDS:
                refused.extend(self._network_file(word, plain))
                continue
            try:
                network = str(parse_network(plain))
            except InvalidValue as error:
                refused.append((word, error.problem, error.advice))
                continue
            if word.startswith("!"):
                excluded.append(network)
            else:
                self.draft.network(network)
        self.draft.networks = _without(self.draft.networks, excluded)
        parameter = self.parameters.written["mynetworks"]
        for word, problem, advice in refused:
            self.report.refused(self.main, parameter.line, f"mynetworks: {word}", problem, advice, parameter.last_line)
        note = "relay.networks; an exclusion counts wherever it stands" if excluded else "relay.networks"
        self.tell("mynetworks", Result.APPROXIMATED if excluded else Result.EXACT, note)

    def _network_file(self, word: str, plain: str) -> list[tuple[str, str, str]]:
        """Networks in a file: one on each line, or the keys of a cidr: or other table."""
        kind, _, name = plain.partition(":") if not plain.startswith("/") else ("", "", plain)
        path = self.places.path(name)
        if kind not in ("", "cidr", "hash", "texthash", "btree", "cdb", "lmdb"):
            return [(word, "patterns are no networks", "write relay.networks")]
        path = path if self.places.exists(path) else path + {"hash": ".db", "btree": ".db"}.get(kind, "")
        try:
            text = self.places.read(path)
        except Unreadable as error:
            return [(word, f"{path}: {error.args[0]}", "import again with the file in its place")]
        self.seen.add(path)
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = split_key(line.strip())[0]
            try:
                self.draft.network(str(parse_network(key)))
            except InvalidValue as error:
                self.report.refused(path, number, line, error.problem, error.advice)
                continue
            self.report.exact(path, number, line, "relay.networks")
        return []

    # --- policy -----------------------------------------------------------------------------------------------------

    def _restrictions(self) -> None:
        classes = {}
        for name in split_list(self.parameters.value("smtpd_restriction_classes")):
            if self.parameters.is_written(name):
                classes[name] = self.parameters.value(name)
                self.tell(name, Result.EXACT, "a class of restrictions, taken where it is named")
        if self.parameters.is_written("smtpd_restriction_classes"):
            self.tell("smtpd_restriction_classes", Result.EXACT, f"classes: {', '.join(classes)}")

        def path_of(text: str) -> str:
            path = self.places.path(text)
            self.seen.update((path, path + ".db", path + ".cdb", path + ".lmdb"))
            return path

        for name in RESTRICTION_LISTS:
            if not self.parameters.is_written(name):
                continue
            self.told.add(name)
            parameter = self.parameters.written[name]
            value = self.parameters.value(name)
            if name == "smtpd_etrn_restrictions":
                self.tell(name, Result.EXACT, "ETRN is refused")
                continue
            if not value.strip():
                self.tell(name, Result.EXACT, "no restriction")
            self.restrictions.take(name, value, self.main, parameter.line, parameter.last_line, classes, path_of)
        if self.restrictions.rows:
            head = f"# Made by `gatepost import` from the access tables of {self.main}.\n"
            self.draft.files["access"] = head + self.restrictions.text()
            self.draft.table("access", "sendmail-access:access", "from check_*_access")
        lists = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
        if all(self.parameters.is_written(name) for name in lists) and not self.restrictions.has_guard:
            why = "no list holds reject_unauth_destination: it relays for the whole world"
            line = self.line_of("smtpd_relay_restrictions")
            self.report.refused(
                self.main, line, "smtpd_relay_restrictions", why, "nothing is needed: only rights relay here"
            )
        if not self.restrictions.permits_networks and self.parameters.is_written("smtpd_relay_restrictions"):
            how = "permit_mynetworks is not among the restrictions: relay.networks stays empty"
            self.draft.networks = []
            self.report.approximated(
                self.main, self.line_of("smtpd_relay_restrictions"), "mynetworks", how, "write relay.networks"
            )

    # --- numbers, services, the rest --------------------------------------------------------------------------------

    def _numbers(self) -> None:
        for name, (key, factor) in meaning.NUMBERS.items():
            if not self.parameters.is_written(name):
                continue
            value = self.parameters.value(name).strip()
            if not value.isdigit():
                self.tell(name, Result.REFUSED, f'"{value}" is not a number', f"write {key}")
            elif int(value) == 0:
                self.tell(name, Result.APPROXIMATED, "0 means no limit to Postfix; the default is kept", f"write {key}")
            else:
                self._set(name, key, float(int(value) * factor))
        for name, (key, unit) in meaning.TIMES.items():
            if not self.parameters.is_written(name):
                continue
            value = self.parameters.value(name).strip()
            seconds = parse_time(value, unit)
            if seconds is None:
                self.tell(name, Result.REFUSED, f'"{value}" is not a time', f"write {key}")
            elif seconds == 0 and key != "queue.delay_notice_s":
                self.tell(name, Result.APPROXIMATED, "0 means none to Postfix; the default is kept", f"write {key}")
            else:
                self._set(name, key, seconds)

    def _set(self, name: str, key: str, value: float) -> None:
        was_set = self.draft.number(key, value, f"{name} main.cf:{self.line_of(name)}")
        if was_set == value:
            self.tell(name, Result.EXACT, f"{key} = {was_set:.15g}")
        else:
            self.tell(name, Result.APPROXIMATED, f"{key} = {was_set:.15g}, the nearest there is")

    def _services(self) -> None:
        for name in ("inet_interfaces", "inet_protocols", "proxy_interfaces"):
            self.tell(name, Result.EXACT if name != "proxy_interfaces" else Result.UNUSED, "listen")
        try:
            services, bad = parse_master(self.places.read(self.master))
        except Unreadable as error:
            self.report.refused(self.master, 0, "master.cf", error.args[0], "import again with the file in its place")
            services, bad = [], []
        for first, last, text in bad:
            self.report.refused(self.master, first, text, "it is not a service", "see master(5)", last)
        ServiceImport(self, services).run()

    def _rest(self) -> None:
        """Every parameter that nothing above has told of."""
        for name in self.parameters.written:
            self.parameters.value(name)  # notes which parameters others name
        # relayhost is for all that is not delivered here (trivial-rewrite(8))
        for domain in self.draft.domains.values():
            if not domain.next_hop and domain.recipients != []:
                domain.next_hop = list(self.draft.relay_next_hop)
        self._call_ahead()
        for name, parameter in self.parameters.written.items():
            if name in self.told:
                continue
            if name in meaning.UNUSED:
                self.tell(name, Result.UNUSED, meaning.UNUSED[name])
                continue
            self._by_family(name, parameter)

    def _by_family(self, name: str, parameter: Parameter) -> None:
        for pattern, result, note, advice in meaning.FAMILIES:
            if not pattern.fullmatch(name):
                continue
            if result == "refused" and not self.parameters.value(name).strip():
                self.tell(name, Result.EXACT, "not set")
            else:
                self.tell(name, Result(result), note, advice)
                if result == "refused":
                    self._note_files(name, note, advice)
            return
        if name in self.parameters.referenced:
            self.tell(name, Result.EXACT, "its value stands where other lines name it")
        else:
            self.tell(name, Result.REFUSED, "this parameter is not known here", "see postconf(5) for what it does")

    def _others(self) -> None:
        """Every other file of the directory."""
        written = " ".join(parameter.value for parameter in self.parameters.written.values())
        for path, short, why in other_files(self.places.directory, self.seen, OF_POSTFIX):
            if not why and re.search(rf"{re.escape(os.path.basename(path))}(?![\w.-])", written):
                why = "what names it is not imported"
            self.report.unused(path, 0, short, why or "nothing in main.cf or master.cf names it")


def _without(networks: list[str], excluded: list[str]) -> list[str]:
    """The networks less the excluded ones."""
    kept = [ipaddress.ip_network(text) for text in networks]
    for text in excluded:
        hole = ipaddress.ip_network(text)
        rest: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for network in kept:
            if network.version != hole.version or not network.overlaps(hole):
                rest.append(network)
            elif hole.subnet_of(network) and hole != network:  # type: ignore[arg-type]
                rest.extend(network.address_exclude(hole))  # type: ignore[arg-type]
        kept = rest
    return [str(network) for network in kept]
