"""Postfix's TLS parameters: certificates, levels, authorities; policies by domain and passwords are told and not taken."""

from __future__ import annotations

import re

from gatepost.migrate.draft import Draft
from gatepost.migrate.logins import WHY, import_logins
from gatepost.migrate.postfix_cf import split_list
from gatepost.migrate.postfix_policies import import_policy
from gatepost.migrate.postfix_state import PostfixState
from gatepost.migrate.report import Report, Result
from gatepost.migrate.tables import TableImport
from gatepost.routing.tables.postfix_text import split_key

_STS = re.compile(r"sts|tlspol|:8461\b|:8642\b", re.IGNORECASE)  # postfix-mta-sts-resolver, postfix-tlspol


class TlsPart(PostfixState):
    """What is said of TLS."""

    def _tls(self) -> None:
        self._certificate()
        level = self.parameters.value("smtpd_tls_security_level")
        if self.parameters.is_written("smtpd_tls_security_level"):
            if level == "encrypt" and self.draft.certificates:
                self.draft.values["tls.require"] = (True, "smtpd_tls_security_level")
                self.tell("smtpd_tls_security_level", Result.EXACT, "tls.require = true")
            elif level == "may" and not self.draft.certificates:
                self.tell(
                    "smtpd_tls_security_level",
                    Result.APPROXIMATED,
                    "without a certificate no TLS is offered",
                    "write [[tls.certificates]]",
                )
            elif level == "encrypt":
                why = "without a certificate no TLS can be required"
                self.tell("smtpd_tls_security_level", Result.REFUSED, why, "write [[tls.certificates]] and tls.require")
            else:
                self.tell("smtpd_tls_security_level", Result.EXACT, "TLS is offered if there is a certificate")
        outbound = self.parameters.value("smtp_tls_security_level")
        if self.parameters.is_written("smtp_tls_security_level"):
            levels = {
                "none": "none",
                "may": "opportunistic",
                "encrypt": "encrypt",
                "verify": "verify",
                "secure": "verify",
                "dane": "dane",
                "dane-only": "dane-only",
                "": "opportunistic",
            }
            if outbound in levels:
                self.draft.values["tls.outbound"] = (levels[outbound], "smtp_tls_security_level")
                self.tell("smtp_tls_security_level", Result.EXACT, f"tls.outbound = {levels[outbound]}")
            else:
                self.draft.values["tls.outbound"] = ("opportunistic", "smtp_tls_security_level")
                self.tell(
                    "smtp_tls_security_level", Result.APPROXIMATED, f"{outbound}: opportunistic was taken", "see [tls]"
                )
        ca_file = self.parameters.value("smtp_tls_CAfile")
        if self.parameters.is_written("smtp_tls_CAfile"):
            path = self.places.path(ca_file) if ca_file else ""
            if path and self.places.exists(path):
                self.draft.values["tls.ca_file"] = (path, "smtp_tls_CAfile")
                self.tell("smtp_tls_CAfile", Result.EXACT, "tls.ca_file")
            else:
                self.tell("smtp_tls_CAfile", Result.APPROXIMATED, "the authorities of the system are taken")
        if self.parameters.is_written("smtp_tls_policy_maps"):
            self._policies()
        if self.parameters.is_written("smtpd_tls_auth_only"):
            self.tell("smtpd_tls_auth_only", Result.EXACT, "passwords never go in clear")
        self._logins()

    def _logins(self) -> None:
        """smtp_sasl_*: logins for other servers, where Postfix would use them."""
        name = "smtp_sasl_password_maps"
        enabled = self.parameters.value("smtp_sasl_auth_enable").strip() == "yes"
        if self.parameters.is_written("smtp_sasl_auth_enable") and not enabled:
            self.tell("smtp_sasl_auth_enable", Result.EXACT, "no logins for other servers")
        if not self.parameters.is_written(name):
            return
        path = self.places.path(self.parameters.value(name).partition(":")[2])
        advice = (
            import_logins(path, self.draft, self.report) if enabled else "take it out, or set smtp_sasl_auth_enable"
        )
        if not advice:
            self.seen.update((path, path + ".db"))
            self.tell(name, Result.EXACT, f"delivery.credentials_file = {path}")
            self.tell("smtp_sasl_auth_enable", Result.EXACT, "logins go to the hosts that have one")
            if self.parameters.value("smtp_sasl_security_options").strip() in ("noanonymous", ""):
                self.tell(
                    "smtp_sasl_security_options", Result.EXACT, "ANONYMOUS is not known; passwords go inside TLS only"
                )
            return
        why = WHY if enabled else "smtp_sasl_auth_enable is not set: Postfix does not use them either"
        self.tell(name, Result.REFUSED, why, advice)
        self._note_files(name, why, advice, is_secret=True)

    def _certificate(self) -> None:
        names = ("smtpd_tls_cert_file", "smtpd_tls_key_file")
        if self.parameters.is_written("smtpd_tls_chain_files"):
            files = [self.places.path(word) for word in split_list(self.parameters.value("smtpd_tls_chain_files"))]
            if len(files) == 1 and self.places.exists(files[0]):
                self.draft.certificates.append((files[0], files[0], "smtpd_tls_chain_files"))
                self.tell("smtpd_tls_chain_files", Result.EXACT, "[[tls.certificates]]")
            else:
                self.tell(
                    "smtpd_tls_chain_files",
                    Result.REFUSED,
                    "not one file with key and chain",
                    "write [[tls.certificates]]",
                )
        if not any(self.parameters.is_written(name) for name in names):
            return
        values = [self.parameters.value(name) for name in names]
        values[1] = values[1] or values[0]
        paths = [self.places.path(value) for value in values if value]
        is_there = len(paths) == 2 and all(self.places.exists(path) for path in paths)
        if is_there:
            self.draft.certificates.append((paths[0], paths[1], "smtpd_tls_cert_file"))
        for name in names:
            if is_there:
                self.tell(name, Result.EXACT, "[[tls.certificates]]")
            else:
                self.tell(
                    name,
                    Result.REFUSED,
                    "the certificate or its key is not there",
                    "write [[tls.certificates]] once they are",
                )

    def _policies(self) -> None:
        """smtp_tls_policy_maps: tables line by line, a daemon for MTA-STS by what the gateway does itself."""
        name = "smtp_tls_policy_maps"
        advice = "write [[tls.policies]] with domains and level"
        for word in split_list(self.parameters.value(name)):
            kind, _, argument = word.removeprefix("proxy:").partition(":")
            if kind == "socketmap" and _STS.search(argument):
                level = "best" if self.parameters.value("smtp_tls_security_level") in ("dane", "dane-only") else "sts"
                self.draft.values["tls.outbound"] = (level, name)
                how = f'policies by MTA-STS are fetched by the gateway itself: tls.outbound = "{level}"'
                self.tell(name, Result.EXACT, how, text=f"{name}: {word}")
                continue
            path = self.places.path(argument)
            self.seen.update((path, path + ".db", path + ".cdb", path + ".lmdb"))
            table = TableImport(Draft(""), self.report, "", "texthash", path, joins_lines=True)
            if kind not in ("hash", "btree", "texthash", "cdb", "lmdb") or not table.load():
                self.tell(name, Result.REFUSED, f'"{word}" is not read', advice, f"{name}: {word}")
                continue
            for first, last, text in table.constructs():
                import_policy(table.shown, first, last, text, self.places, self.draft, self.report)
            self.tell(name, Result.EXACT, "[[tls.policies]], line by line", text=f"{name}: {word}")
        if not self.parameters.value(name).strip():
            self.tell(name, Result.EXACT, "none")

    def _note_files(self, name: str, why: str, advice: str, is_secret: bool = False) -> None:
        """Tell of each line of the tables of a parameter that is not taken."""
        for word in split_list(self.parameters.value(name)):
            path = self.places.path(word.removeprefix("proxy:").partition(":")[2])
            self.seen.update((path, path + ".db"))
            table = TableImport(Draft(""), Report(), "", "texthash", path, joins_lines=True)
            if not self.places.exists(path) or not table.load():
                continue
            for first, last, text in table.constructs():
                shown = f"{split_key(text)[0]} ***" if is_secret else text
                self.report.refused(path, first, shown, why, advice, last)
