"""Postfix's parameters that are a switch, a list of hosts or a socket here: extensions, proxies, authentication, versions of TLS.

Who may say who the client is (XCLIENT, XFORWARD, the PROXY protocol) is taken by address only, never by name.
"""

from __future__ import annotations

import ipaddress
import os
import re

from gatepost.config.authvalues import parse_dovecot
from gatepost.config.values import InvalidValue, parse_domain, parse_network
from gatepost.migrate.postfix_cf import split_list
from gatepost.migrate.postfix_state import PostfixState
from gatepost.migrate.report import Result

# keyword of EHLO -> switch; "": it has none, and is not offered without reason
KEYWORDS = {
    "8bitmime": "smtp.eightbitmime", "chunking": "smtp.chunking", "dsn": "smtp.dsn", "enhancedstatuscodes": "smtp.enhancedstatuscodes",
    "pipelining": "smtp.pipelining", "size": "smtp.size", "smtputf8": "smtp.smtputf8", "etrn": "", "vrfy": "", "silent-discard": "",
    "xclient": "", "xforward": "", "starttls": "-", "auth": "-",
}  # fmt: skip
PEERS = {
    "smtpd_authorized_xclient_hosts": "smtp.xclient_from",
    "smtpd_authorized_xforward_hosts": "smtp.xforward_from",
    "smtpd_forbid_bare_newline_exclusions": "smtp.repair_networks",
}
# name -> (value: (result, note)); what is asked for is what the gateway does anyhow
ALWAYS: dict[str, dict[str, str]] = {
    "disable_vrfy_command": {"yes": "VRFY tells nothing"},
    "strict_rfc821_envelopes": {"yes": "paths are parsed by RFC 5321"},
    "smtpd_helo_required": {"yes": "MAIL without EHLO or HELO is refused"},
    "smtpd_forbid_bare_newline": {"normalize": "", "yes": "", "reject": "a bare LF or CR is refused"},
    "smtpd_forbid_unauth_pipelining": {"yes": "whoever talks out of turn is refused"},
    "smtp_always_send_ehlo": {"yes": "EHLO is sent, HELO where it is not known"},
    "allow_percent_hack": {"no": "an address with % is never a route"},
    "swap_bangpath": {"no": "an address with ! is never a route"},
    "allow_untrusted_routing": {"no": "such addresses are refused from strangers"},
    "smtpd_delay_open_until_valid_rcpt": {"yes": "nothing is written before a valid recipient"},
    "enable_long_queue_ids": {"yes": "ids are never used again"},
    "smtpd_peername_lookup": {"no": "names of clients decide nothing"},
}
OWN_SOCKET = "/run/dovecot/auth-client"


class SwitchPart(PostfixState):
    """What is said of extensions, proxies and authentication."""

    def _switches(self) -> None:
        self._keywords()
        for name, key in PEERS.items():
            if self.parameters.is_written(name):
                self._peers(name, key)
        for name, notes in ALWAYS.items():
            value = self.parameters.value(name).strip().lower() if self.parameters.is_written(name) else ""
            if value and value in notes:
                self.tell(name, Result.EXACT, notes[value] or "a bare LF or CR is refused, which is stricter")
        for name in ("smtpd_upstream_proxy_protocol", "postscreen_upstream_proxy_protocol"):
            if self.parameters.value(name).strip() if self.parameters.is_written(name) else "":
                why = "Postfix believes whoever connects; here the load balancers are named by their addresses"
                self.tell(name, Result.REFUSED, why, 'write smtp.proxy_from = ["10.0.0.5/32"]')
        self._authentication()
        self._tls_versions()
        self._addresses()

    def _keywords(self) -> None:
        name = "smtpd_discard_ehlo_keywords"
        if self.parameters.is_written("smtputf8_enable"):
            is_on = self.parameters.value("smtputf8_enable").strip().lower() == "yes"
            if not is_on:
                self.draft.values["smtp.smtputf8"] = (False, "smtputf8_enable")
            self.tell("smtputf8_enable", Result.EXACT, f"smtp.smtputf8 = {str(is_on).lower()}")
        if not self.parameters.is_written(name):
            return
        words = [word.lower() for word in split_list(self.parameters.value(name))]
        kept = [word for word in words if KEYWORDS.get(word, "-") == "-"]
        keys = [KEYWORDS[word] for word in words if KEYWORDS.get(word, "") not in ("", "-")]
        for key in keys:
            self.draft.values[key] = (False, name)
        if kept:
            why = f"{', '.join(kept)}: there is no switch for it in all sessions"
            self.tell(
                name,
                Result.REFUSED,
                why,
                "STARTTLS is offered with a certificate, AUTH with users on submission listeners",
            )
        else:
            self.tell(name, Result.EXACT, ", ".join(f"{key} = false" for key in keys) or "not offered anyhow")

    def _peers(self, name: str, key: str) -> None:
        """Hosts by address; names are refused."""
        words = split_list(self.parameters.value(name))
        found: list[str] = []
        refused: list[str] = []
        for word in words:
            if word in ("$mynetworks", "permit_mynetworks"):
                continue
            try:
                found.append(str(parse_network(word.replace("[", "").replace("]", ""))))
            except InvalidValue:
                refused.append(word)
        wide = [text for text in found if ipaddress.ip_network(text).num_addresses > 1 << 24]
        if refused or wide:
            why = f"{', '.join(refused or wide)}: only addresses of single hosts and small networks are believed"
            self.tell(name, Result.REFUSED, why, f"write {key} with their addresses")
        elif found:
            self.draft.values[key] = (found, name)
            self.tell(name, Result.EXACT, f"{key} = {', '.join(found)}")
        else:
            self.tell(name, Result.EXACT, "nobody")

    # --- authentication ---------------------------------------------------------------------------------------------

    def _authentication(self) -> None:
        written = self.parameters.is_written
        if written("smtpd_sasl_local_domain") and self.parameters.value("smtpd_sasl_local_domain").strip():
            try:
                domain = parse_domain(self.parameters.value("smtpd_sasl_local_domain").strip())
                self.draft.values["auth.default_domain"] = (domain, "smtpd_sasl_local_domain")
                self.tell("smtpd_sasl_local_domain", Result.EXACT, f"auth.default_domain = {domain}")
            except InvalidValue as error:
                self.tell("smtpd_sasl_local_domain", Result.REFUSED, error.problem, error.advice)
        type_ = self.parameters.value("smtpd_sasl_type").strip() or "cyrus"
        path = self.parameters.value("smtpd_sasl_path").strip()
        if type_ == "dovecot" and path:
            self.dovecot(path)
        is_on = written("smtpd_sasl_auth_enable") and self.parameters.value("smtpd_sasl_auth_enable").strip() == "yes"
        if written("smtpd_sasl_auth_enable") and not is_on:
            self.tell("smtpd_sasl_auth_enable", Result.EXACT, "AUTH is offered on submission listeners only")
        elif is_on and not self.permits_logins({}):
            why = "who has authenticated may not relay there, and may here"
            self.tell("smtpd_sasl_auth_enable", Result.REFUSED, why, "write auth.on_edge = true if that is meant")
        elif is_on and "auth.dovecot" in self.draft.values:
            self.draft.values["auth.on_edge"] = (True, "smtpd_sasl_auth_enable")
            self.tell("smtpd_sasl_auth_enable", Result.EXACT, "auth.on_edge = true, inside TLS")

    def permits_logins(self, options: dict[str, str]) -> bool:
        """Whether who has authenticated may relay, with these options of a service."""
        names = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions", "smtpd_client_restrictions")
        values = [options.get(name) or self.parameters.value(name) for name in names]
        return any("permit_sasl_authenticated" in split_list(value) for value in values)

    def dovecot(self, path: str) -> None:
        """Dovecot's socket; one below Postfix's queue directory, which the user of Postfix owns, is not opened."""
        queue = self.parameters.value("queue_directory") or "/var/spool/postfix"
        kind, _, rest = path.partition(":") if path.startswith(("inet:", "unix:")) else ("unix", "", path)
        is_theirs = kind == "unix" and os.path.join(queue, rest).startswith(queue + "/")
        text = f"unix:{OWN_SOCKET}" if is_theirs else f"{kind}:{rest.replace('localhost:', '127.0.0.1:')}"
        try:
            self.draft.values["auth.dovecot"] = (parse_dovecot(text), "smtpd_sasl_path")
        except InvalidValue as error:
            self.tell("smtpd_sasl_path", Result.REFUSED, error.problem, error.advice)
            return
        self.tell("smtpd_sasl_type", Result.EXACT, "auth.dovecot")
        how = f'auth.dovecot = "{text}"; PLAIN and LOGIN inside TLS'
        advice = "see docs/auth.md for who must be able to use the socket"
        if is_theirs:
            how += "; the directory there belongs to Postfix's user, who could put another socket in its place"
            advice = f"let Dovecot listen at {OWN_SOCKET} too, and see docs/auth.md for who must be able to use it"
        self.tell("smtpd_sasl_path", Result.APPROXIMATED, how, advice)

    # --- TLS, addresses ---------------------------------------------------------------------------------------------

    def _tls_versions(self) -> None:
        for name in ("smtpd_tls_mandatory_protocols", "smtpd_tls_protocols"):
            if not self.parameters.is_written(name):
                continue
            text = self.parameters.value(name)
            lowest = re.search(r">=\s*(TLSv1\.[23])\b", text)
            excluded = {word.strip("!") for word in re.split(r"[\s,:]+", text) if word.startswith("!")}
            is_least_two = {"TLSv1", "TLSv1.1"} <= excluded
            if lowest and lowest[1] == "TLSv1.3" or is_least_two and "TLSv1.2" in excluded:
                self.draft.values["tls.min_version"] = ("1.3", name)
                self.tell(name, Result.EXACT, 'tls.min_version = "1.3"')
            elif lowest or is_least_two:
                self.tell(name, Result.EXACT, "TLS 1.2 is the oldest version here")
            else:
                self.tell(name, Result.APPROXIMATED, "TLS 1.2 is the oldest version here (RFC 8996)")
        for name in ("smtpd_tls_ask_ccert", "smtpd_tls_req_ccert"):
            if (
                self.parameters.is_written(name)
                and self.parameters.value(name).strip() == "yes"
                and self.draft.certificates
            ):
                self.draft.values["tls.client_certificates"] = (True, name)
                if name == "smtpd_tls_ask_ccert":
                    self.tell(name, Result.EXACT, "tls.client_certificates = true")
                else:
                    how = "tls.client_certificates = true: asked for, not required"
                    self.tell(name, Result.APPROXIMATED, how, "give rights by [[relay.certificates]]")

    def _addresses(self) -> None:
        name = "smtp_address_preference"
        if self.parameters.is_written(name):
            value = self.parameters.value(name).strip()
            if value == "ipv6":
                self.draft.values["delivery.prefer_ipv6"] = (True, name)
            exact = value in ("ipv4", "ipv6")
            note = f"delivery.prefer_ipv6 = {str(value == 'ipv6').lower()}"
            self.tell(name, Result.EXACT if exact else Result.APPROXIMATED, note)
        for name, usual in (("disable_dns_lookups", "no"), ("smtp_host_lookup", "dns")):
            if not self.parameters.is_written(name):
                continue
            if usual in split_list(self.parameters.value(name).lower()):
                self.tell(name, Result.EXACT, "hosts and MX records are looked up in the DNS")
            else:
                why = "names of hosts are looked up in the DNS, and nowhere else"
                self.tell(name, Result.REFUSED, why, "write next hops by their addresses")
        if self.parameters.is_written("smtp_tls_wrappermode"):
            if self.parameters.value("smtp_tls_wrappermode").strip() == "yes":
                why = "towards other servers TLS begins with STARTTLS"
                self.tell("smtp_tls_wrappermode", Result.REFUSED, why, "name the smart host with port 587")
            else:
                self.tell("smtp_tls_wrappermode", Result.EXACT, "STARTTLS")
        for name in ("smtp_bind_address", "smtp_bind_address6"):
            if self.parameters.is_written(name) and self.parameters.value(name).strip():
                why = "outgoing connections take the address that the routes of the system give them"
                self.tell(name, Result.REFUSED, why, "ip route replace default ... src ADDRESS")
