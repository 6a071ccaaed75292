"""master.cf: which services listen, as what, and what their -o options change.

smtpd on a port for the world is a listener of ours; on 587 and 465 one for submission. What takes mail back from a content
filter, and transports that run programs, are refused. Everything else is a part of Postfix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.config.values import InvalidValue, parse_address, parse_listen
from gatepost.migrate.postfix_cf import Service, split_list
from gatepost.migrate.report import Result

if TYPE_CHECKING:
    from gatepost.migrate.postfix import PostfixImport

PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465, "urd": 465}
OWN_COMMANDS = frozenset(
    [
        "pickup",
        "cleanup",
        "qmgr",
        "nqmgr",
        "oqmgr",
        "tlsmgr",
        "trivial-rewrite",
        "bounce",
        "verify",
        "flush",
        "proxymap",
        "smtp",
        "showq",
        "error",
        "discard",
        "local",
        "virtual",
        "lmtp",
        "anvil",
        "scache",
        "postlogd",
        "tlsproxy",
        "dnsblog",
        "smtpd",
        "qmqpd",
        "spawn",
    ]
)
# Options of smtpd that ours does anyhow: name -> (values, note)
SAME: dict[str, tuple[tuple[str, ...], str]] = {
    "smtpd_tls_security_level": (("encrypt", "may"), "submission asks for TLS"),
    "smtpd_tls_wrappermode": (("yes", "no"), "TLS from the first octet on 465"),
    "smtpd_tls_auth_only": (("yes",), "passwords never go in clear"),
    "smtpd_reject_unlisted_recipient": (("yes",), "an unknown recipient is refused"),
    "syslog_name": ((), "the name in Postfix's log"),
}
NEAR_OPTIONS = {
    "smtpd_sasl_auth_enable": "clients authenticate as [auth] says; users are not imported",
    "smtpd_sasl_type": "clients authenticate as [auth] says; users are not imported",
    "smtpd_sasl_path": "clients authenticate as [auth] says; users are not imported",
    "smtpd_client_restrictions": "who has authenticated may send to every domain, from his own addresses",
    "smtpd_relay_restrictions": "who has authenticated may send to every domain, from his own addresses",
    "smtpd_recipient_restrictions": "who has authenticated may send to every domain, from his own addresses",
    "smtpd_helo_restrictions": "a HELO name decides nothing here",
    "smtpd_sender_restrictions": "who has authenticated sends from his own addresses; other checks of senders are for all listeners",
    "milter_macro_daemon_name": "filters are not imported",
}
_OWN_RIGHTS = ("smtpd_client_restrictions", "smtpd_relay_restrictions", "smtpd_recipient_restrictions")


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except InvalidValue:
        return False
    return True


class ServiceImport:
    """The services of one master.cf."""

    def __init__(self, importer: PostfixImport, services: list[Service]) -> None:
        self.importer = importer
        self.services = services
        self.report = importer.report
        self.file = importer.master

    def run(self) -> None:
        """Tell of each, and set what listens."""
        self._authentication()
        for service in self.services:
            if service.kind == "inet" and service.command in ("smtpd", "postscreen"):
                self._listener(service)
            elif service.command == "pipe":
                why = "it runs a program"
                advice = "let the program take mail by LMTP over TCP, if a table names this transport"
                self._add(service, service.text, Result.REFUSED, why, advice)
            elif service.kind == "inet" and service.command in ("qmqpd", "spawn"):
                self._add(
                    service, service.text, Result.REFUSED, "there is no such service here", "see docs/migration.md"
                )
            elif service.command in OWN_COMMANDS or service.kind in ("unix", "fifo", "pass", "unix-dgram"):
                self._part(service)
            else:
                self._add(service, service.text, Result.REFUSED, "this service is not known here", "see master(5)")
        if not self.importer.draft.listen:
            self.importer.draft.listen = self._addresses(25) or ["0.0.0.0:25", "[::]:25"]
            how = f"no smtpd listens on port 25; {', '.join(self.importer.draft.listen)} was taken"
            self.report.approximated(self.file, 0, "listen", how, "write listen")

    def _authentication(self) -> None:
        """Dovecot's socket, where a service names it and main.cf does not."""
        for service in self.services:
            options = service.options
            if service.command != "smtpd" or "auth.dovecot" in self.importer.draft.values:
                continue
            if options.get("smtpd_sasl_type") == "dovecot" and "smtpd_sasl_path" in options:
                self.importer.dovecot(options["smtpd_sasl_path"])

    def _part(self, service: Service) -> None:
        """A part of Postfix itself; a transport of its own name with options is a route of its own."""
        if service.command in ("smtp", "lmtp") and service.name not in ("smtp", "relay", "lmtp") and service.options:
            why = "a transport with settings of its own is not imported"
            advice = "write the next hop in the tables that name it, and its settings in [delivery] or [[tls.policies]]"
            self._add(service, service.text, Result.REFUSED, why, advice)
            return
        self._add(service, service.text, Result.UNUSED, "a process of Postfix")

    def _listener(self, service: Service) -> None:
        host, _, port_text = service.name.rpartition(":")
        port = PORTS.get(port_text.lower(), 0) or int(port_text if port_text.isdigit() else 0)
        host = host.strip("[]")
        if not port:
            self._add(
                service, service.text, Result.REFUSED, f'"{port_text}" is not a port that is known', "write the number"
            )
            return
        if host in ("127.0.0.1", "::1", "localhost") and "content_filter" in service.options:
            why = "it takes mail back from a content filter"
            self._add(service, service.text, Result.REFUSED, why, "name the filter among the scanners")
            return
        addresses = [self._join(host, port)] if host else self._addresses(port)
        good = []
        for address in addresses:
            try:
                good.append(str(parse_listen(address)))
            except InvalidValue as error:
                self._add(service, service.text, Result.REFUSED, error.problem, error.advice)
        if not good:
            return
        if port in (587, 465) and not self.importer.draft.certificates:
            why = "a listener for submission needs a certificate, and there is none"
            advice = f'write [[tls.certificates]], and [[listeners]] with address = "{good[0]}"'
            self._add(service, service.text, Result.REFUSED, why, advice)
        elif port in (587, 465) and not self.importer.permits_logins(service.options):
            why = "who has authenticated may not relay there, and may here"
            advice = f'write [[listeners]] with address = "{good[0]}" if that is meant'
            self._add(service, service.text, Result.REFUSED, why, advice)
        elif port in (587, 465):
            kind = "submissions" if port == 465 else "submission"
            self.importer.draft.listeners += [{"address": address, "kind": kind} for address in good]
            if "auth.dovecot" in self.importer.draft.values:
                self._add(service, service.text, Result.EXACT, "a listener for submission, with Dovecot's users")
            else:
                how = "a listener for submission; its users are not imported"
                self._add(service, service.text, Result.APPROXIMATED, how, "write auth.users_file, or auth.dovecot")
        else:
            self.importer.draft.listen += [address for address in good if address not in self.importer.draft.listen]
            self._add(service, service.text, Result.EXACT, f"listen on {', '.join(good)}")
        for name, value in service.options.items():
            self._option(service, name, value)

    def _option(self, service: Service, name: str, value: str) -> None:
        text = f"{service.name} -o {name}={value}"
        words = split_list(value)
        if name in _OWN_RIGHTS and words in (
            ["permit_sasl_authenticated", "reject"],
            ["permit_sasl_authenticated,reject"],
        ):
            self._add(service, text, Result.EXACT, "on a submission listener only who has authenticated is served")
            return
        if name == "smtpd_upstream_proxy_protocol" and value:
            why = "Postfix believes whoever connects; here the load balancers are named by their addresses"
            self._add(service, text, Result.REFUSED, why, "write proxy_from in [[listeners]], or smtp.proxy_from")
            return
        if name == "smtpd_sasl_path" and "auth.dovecot" in self.importer.draft.values:
            self._add(service, text, Result.EXACT, "auth.dovecot")
            return
        if name in SAME and (not SAME[name][0] or value in SAME[name][0]):
            self._add(service, text, Result.EXACT, SAME[name][1])
        elif name in NEAR_OPTIONS:
            self._add(service, text, Result.APPROXIMATED, NEAR_OPTIONS[name])
        else:
            why = "an option of one service is not imported"
            self._add(service, text, Result.REFUSED, why, "write it for all in the configuration, or as a rule")

    def _addresses(self, port: int) -> list[str]:
        """Where a service without an address listens: inet_interfaces and inet_protocols."""
        parameters = self.importer.parameters
        protocols = split_list(parameters.value("inet_protocols")) or ["all"]
        versions = [v for v, name in ((4, "ipv4"), (6, "ipv6")) if name in protocols or "all" in protocols]
        found = []
        for word in split_list(parameters.value("inet_interfaces")) or ["all"]:
            plain = word.strip("[]")
            if plain == "all":
                found += [{4: "0.0.0.0", 6: "::"}[version] for version in versions]
            elif plain in ("loopback-only", "localhost"):
                found += [{4: "127.0.0.1", 6: "::1"}[version] for version in versions]
            elif _is_address(plain):
                found.append(plain)
            else:
                why = f'"{word}" is a name, and does not say what is bound'
                self.importer.tell("inet_interfaces", Result.REFUSED, why, "write the addresses in listen")
        return [self._join(address, port) for address in dict.fromkeys(found)]

    @staticmethod
    def _join(address: str, port: int) -> str:
        plain = {"localhost": "127.0.0.1"}.get(address, address)
        return f"[{plain}]:{port}" if ":" in plain else f"{plain}:{port}"

    def _add(self, service: Service, text: str, result: Result, note: str, advice: str = "") -> None:
        self.report.add(self.file, service.line, text, result, note, advice, service.last_line)
