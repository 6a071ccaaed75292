"""Reads a sendmail.mc: each call by its row in `sendmail_meaning.py` or by a method here; m4 is never executed.

What the file defines is kept in `Macros` for the importer of the directory (`sendmail.py`), which knows the tables. Conditions are
decided by what the file itself has defined; what cannot be decided is told as refused, with its lines.
"""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

from gatepost.config.values import InvalidValue, parse_domain, parse_fqdn
from gatepost.migrate import sendmail_meaning as meaning
from gatepost.migrate.draft import Draft
from gatepost.migrate.m4 import Call, Text, parse_m4
from gatepost.migrate.places import Places, Unreadable
from gatepost.migrate.report import Report

# Names whose definition is told of when all of them are known
_HUBS = ("SMART_HOST", "MAIL_HUB", "LOCAL_RELAY", "RELAY_MAILER_ARGS", "confCW_FILE", "confCR_FILE")
_PARTS = ("ALIAS_FILE", "confDAEMON_OPTIONS", "VIRTUSER_ERROR_FAULT")
TOLD_LATER = frozenset((*_HUBS, *_PARTS, "confSERVER_CERT", "confSERVER_KEY"))
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TIME = re.compile(r"(\d+)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
PORTS = {"smtp": 25, "submission": 587, "msa": 587, "smtps": 465, "submissions": 465, "24": 24}
MAX_INCLUDES = 20
_LATER = (
    "access_db mailertable virtusertable domaintable genericstable authinfo nullclient relay_hosts_only allmasquerade "
    "masquerade_envelope masquerade_entire_domain limited_masquerade"
)
LATER = frozenset(_LATER.split())  # features that the importer of the directory tells of, with the table they name
_LISTED = (
    "LOCAL_DOMAIN RELAY_DOMAIN VIRTUSER_DOMAIN GENERICS_DOMAIN MASQUERADE_DOMAIN MASQUERADE_EXCEPTION EXPOSED_USER "
    "LDAPROUTE_DOMAIN LDAPROUTE_EQUIVALENT"
)
LISTED_CALLS = tuple(_LISTED.split())


class Macros:
    """What a sendmail.mc said, as far as the rest of the import needs it."""

    def __init__(self) -> None:
        self.defines: dict[str, tuple[str, str, int]] = {}  # name -> (value, file, line)
        self.features: dict[str, tuple[Call, str]] = {}
        self.lists: dict[str, list[tuple[str, str, int]]] = {name: [] for name in LISTED_CALLS}
        self.files: dict[str, list[tuple[str, str, int]]] = {}  # name of a *_FILE call -> paths
        self.daemons: list[tuple[dict[str, str], str, int]] = []
        self.masquerade_as = ("", "", 0)


class McReader:
    """One sendmail.mc with what it includes."""

    def __init__(self, places: Places, draft: Draft, report: Report) -> None:
        self.places = places
        self.draft = draft
        self.report = report
        self.macros = Macros()
        self.included: set[str] = set()
        self._includes = 0

    def read(self, path: str) -> None:
        """Read a file and all it includes."""
        try:
            text = self.places.read(path)
        except Unreadable as error:
            self.report.refused(path, 0, "sendmail.mc", error.args[0], "see who may read it")
            return
        self._walk(path, parse_m4(text))

    def _walk(self, path: str, found: list[Call | Text]) -> None:
        is_diverted, section = False, ""
        for part in found:
            if isinstance(part, Text):
                self._text(path, part, is_diverted, section)
                continue
            if part.name == "divert":
                is_diverted = part.argument(0) == "-1"
                section = "" if is_diverted or part.argument(0) == "0" else section
            if part.name in meaning.RAW_SECTIONS:
                section = part.name
            if part.name == "MAILER_DEFINITIONS":
                section = ""
            self._call(path, part)

    def _text(self, path: str, text: Text, is_diverted: bool, section: str) -> None:
        if is_diverted or text.text.lstrip().startswith("#"):
            return
        if section:
            why, advice = "rules and settings of sendmail.cf are not executed", _advice_of_rule(section, text.text)
            self.report.refused(path, text.line, text.text, f"{why} ({section})", advice)
        elif text.text.strip(" \t`',;."):
            self.report.unused(path, text.line, text.text, "text outside of every macro")

    # --- calls ------------------------------------------------------------------------------------------------------

    def _call(self, path: str, call: Call) -> None:
        handler = self._HANDLERS.get(call.name)
        if handler is not None:
            handler(self, path, call)
        elif call.name in LISTED_CALLS:
            self._listed(path, call)
        elif call.name.removesuffix("_FILE") in LISTED_CALLS:
            self.macros.files.setdefault(call.name, []).append((_path_of(call.argument(0)), path, call.line))
        elif call.name in meaning.CALLS_UNUSED:
            self._unused(path, call, meaning.CALLS_UNUSED[call.name])
        elif call.name in meaning.RAW_SECTIONS:
            if call.arguments:
                why = "rules and settings of sendmail.cf are not executed"
                self._refused(path, call, why, _advice_of_rule(call.name))
            else:
                self._unused(path, call, "what stands below it is told line by line")
        elif call.name == "unfinished":
            self._refused(path, call, "a quote or parenthesis is not closed: nothing behind it can be read", "close it")
        else:
            self._refused(path, call, "this macro is not known here", "look in sendmail's cf/README for what it does")

    def _define(self, path: str, call: Call) -> None:
        name, value = call.argument(0), call.argument(1)
        self._overtaken(name, "a later line defines it again, which counts")
        named = [word for word in _WORD.findall(value) if word in self.macros.defines and word != name]
        is_made = bool(named) or len(call.arguments) > 1 and not call.arguments[1].is_plain
        if not (is_made and name in TOLD_LATER):
            self.macros.defines[name] = (value, path, call.line)
        if is_made and name not in meaning.UNUSED and name not in meaning.NO:
            self._refused(path, call, "its value is made by m4, which is not executed", "write the value itself")
            return
        origin = f"{name} in {os.path.basename(path)}:{call.line}"
        if name in meaning.NUMBERS:
            self._number(path, call, name, value, origin)
        elif name in meaning.TIMES:
            self._time(path, call, name, value, origin)
        elif name in meaning.UNUSED:
            self._unused(path, call, meaning.UNUSED[name])
        elif name in meaning.NEAR:
            self._near(path, call, *meaning.NEAR[name])
        elif name in meaning.NO:
            self._refused(path, call, *meaning.NO[name])
        elif name in self._DEFINES:
            self._DEFINES[name](self, path, call, value)
        elif name.startswith("_"):
            self._unused(path, call, "a switch inside of sendmail's macros")
        else:
            self._refused(path, call, "this name is not known here", "look in sendmail's cf/README for what it does")

    def _number(self, path: str, call: Call, name: str, value: str, origin: str) -> None:
        key, factor = meaning.NUMBERS[name]
        if not value.isdigit():
            self._refused(path, call, f'"{value}" is not a number', f"write {key}")
        elif int(value) == 0:
            top = self.draft.number(key, float("inf"), origin)
            self._near(path, call, f"0 means no limit to sendmail; {key} = {top:.15g}, the largest there is")
        else:
            self._set(path, call, key, float(int(value) * factor), origin)

    def _time(self, path: str, call: Call, name: str, value: str, origin: str) -> None:
        key, unit, is_exact = meaning.TIMES[name]
        seconds = parse_time(value, unit)
        if seconds is None:
            self._refused(path, call, f'"{value}" is not a time', f"write {key}")
        elif seconds == 0:
            self._near(path, call, "0 means no limit to sendmail; the default is kept", f"write {key}")
        else:
            self._set(path, call, key, seconds, origin, is_exact)

    def _set(self, path: str, call: Call, key: str, value: float, origin: str, is_exact: bool = True) -> None:
        was_set = self.draft.number(key, value, origin)
        if was_set != value:
            self._near(path, call, f"{key} = {was_set:.15g}, the nearest there is")
        elif is_exact:
            self._exact(path, call, f"{key} = {was_set:.15g}")
        else:
            self._near(path, call, f"{key} = {was_set:.15g}, for every command")

    # --- defines with a meaning of their own ------------------------------------------------------------------------

    def _domain_name(self, path: str, call: Call, value: str) -> None:
        try:
            self.draft.hostname = parse_fqdn(value.replace("$w.", "").replace("$m", ""))
        except InvalidValue as error:
            self._refused(path, call, error.problem, "write hostname")
            return
        self._exact(path, call, "hostname")

    def _privacy(self, path: str, call: Call, value: str) -> None:
        flags = {flag.strip().lower() for flag in value.replace(" ", ",").split(",") if flag.strip()}
        ours = {"novrfy", "noexpn", "goaway", "noverb", "authwarnings", "restrictqrun", "restrictmailq"}
        ours |= {"restrictexpand", "needmailhelo", "needexpnhelo", "needvrfyhelo", "public", "noetrn", "noreceipts"}
        if "noreceipts" in flags:
            self.draft.values["smtp.dsn"] = (False, "noreceipts in confPRIVACY_FLAGS")
        other = sorted(flags - ours)
        if other:
            self._near(
                path,
                call,
                f"{', '.join(other)} has no counterpart; VRFY and EXPN tell nothing, the queue is the operator's",
            )
        else:
            self._exact(path, call, "VRFY and EXPN tell nothing, the queue is the operator's alone")

    def _min_free(self, path: str, call: Call, value: str) -> None:
        if value.isdigit():
            self._set(path, call, "queue.min_free_bytes", int(value) * 4096.0, "confMIN_FREE_BLOCKS")
        else:
            self._refused(path, call, f'"{value}" is not a number', "write queue.min_free_bytes")

    def _children(self, path: str, call: Call, value: str) -> None:
        if value.isdigit() and int(value):
            self.draft.number("smtp.max_connections", int(value), "confMAX_DAEMON_CHILDREN")
            per_client = min(100, int(value))
            self.draft.number("smtp.max_connections_per_client", per_client, "confMAX_DAEMON_CHILDREN")
            self._near(path, call, f"smtp.max_connections = {value}: connections, not processes")
        else:
            self._unused(path, call, "0 means no limit")

    def _throttle(self, path: str, call: Call, value: str) -> None:
        if value.isdigit() and int(value):
            how = "who guesses recipients waits for each reply to RCPT, longer with each guess, and is sent away in the end"
            self._near(path, call, how, "see smtp.max_unknown_recipients")
        else:
            self._unused(path, call, "0 means none")

    def _hub(self, path: str, call: Call, value: str) -> None:
        """Taken over with the local domains by the importer of the directory, which tells of it."""

    def _certificate(self, path: str, call: Call, value: str) -> None:
        """Told when both halves are known, at the end."""

    # --- other calls ------------------------------------------------------------------------------------------------

    def _undefine(self, path: str, call: Call) -> None:
        self._overtaken(call.argument(0), "a later line undefines it")
        self.macros.defines.pop(call.argument(0), None)
        self._exact(path, call, "not set")

    def _overtaken(self, name: str, why: str) -> None:
        """Tell of a definition that would have been told of at the end, and counts no more."""
        if name in TOLD_LATER and name in self.macros.defines:
            value, path, line = self.macros.defines.pop(name)
            self.report.unused(path, line, f"define({name}, {value})", why)

    def _feature(self, path: str, call: Call) -> None:
        name = call.argument(0)
        self.macros.features[name] = (call, path)
        if name in meaning.FEATURES_EXACT:
            self._exact(path, call, meaning.FEATURES_EXACT[name])
        elif name in meaning.FEATURES_UNUSED:
            self._unused(path, call, meaning.FEATURES_UNUSED[name])
        elif name in meaning.FEATURES_NEAR:
            self._near(path, call, *meaning.FEATURES_NEAR[name])
        elif name in meaning.FEATURES_NO:
            self._refused(path, call, *meaning.FEATURES_NO[name])
        elif name == "greet_pause":
            pause = call.argument(1)
            seconds = int(pause) / 1000 if pause.isdigit() else 0.0
            self._set(path, call, "smtp.greeting_delay_s", seconds, "FEATURE(greet_pause)")
        elif name not in LATER:
            self._refused(path, call, "this feature is not known here", "look in sendmail's cf/README for what it does")

    def _listed(self, path: str, call: Call) -> None:
        for word in call.argument(0).split():
            self.macros.lists[call.name].append((word, path, call.line))

    def _masquerade_as(self, path: str, call: Call) -> None:
        self.macros.masquerade_as = (call.argument(0), path, call.line)

    def _daemon(self, path: str, call: Call) -> None:
        options = {}
        for part in call.argument(0).split(","):
            key, _, value = part.partition("=")
            options[key.strip().lower()[:1]] = value.strip()
        self.macros.daemons.append((options, path, call.line))

    def _mailer(self, path: str, call: Call) -> None:
        why = meaning.MAILERS.get(call.argument(0))
        if why is None:
            self._refused(path, call, "this mailer is not known here", "deliver by SMTP, LMTP over TCP or Maildir")
        elif why:
            self._unused(path, call, why)
        else:
            self._exact(path, call, "mail is sent by SMTP")

    def _filter(self, path: str, call: Call) -> None:
        self._refused(
            path, call, "filters are not imported", f'name the filter "{call.argument(0)}" among the scanners'
        )

    def _auth_mechanisms(self, path: str, call: Call) -> None:
        how = "who has authenticated may send to every domain, from his own addresses only; users are not imported"
        self._near(
            path,
            call,
            how,
            "write them with gatepost user, and name the file as auth.users_file; or name Dovecot's socket",
        )

    def _client(self, path: str, call: Call) -> None:
        options = {part.partition("=")[0].strip().lower()[:1] for part in call.argument(0).split(",")}
        if "a" in options:
            why = "outgoing connections take the address that the routes of the system give them"
            self._refused(path, call, why, "ip route replace default via GATEWAY src ADDRESS")
        else:
            self._unused(path, call, "outgoing connections have no other settings")

    def _dane(self, path: str, call: Call, value: str) -> None:
        if value.strip().lower() in ("true", "t", "y", "yes", "always", "secure"):
            self.draft.values["tls.outbound"] = ("dane", "confDANE")
            self._exact(path, call, 'tls.outbound = "dane"')
        else:
            self._exact(path, call, "not set")

    def _include(self, path: str, call: Call) -> None:
        name = call.argument(0)
        if name.startswith("/usr/share/sendmail"):
            self._unused(path, call, "sendmail's own macros")
            return
        self._includes += 1
        inner = self.places.path(name)
        try:
            text = self.places.read(inner)
        except Unreadable as error:
            self._refused(
                path, call, f"{inner}: {error.args[0]}", "import again with the file in its place, or remove the line"
            )
            return
        if self._includes > MAX_INCLUDES:
            self._refused(path, call, "too many files are included", "write them into one")
            return
        self.included.add(inner)
        self._exact(path, call, f"{inner} is read")
        self._walk(inner, parse_m4(text))

    def _ifdef(self, path: str, call: Call) -> None:
        name = call.argument(0)
        is_defined = name in self.macros.defines
        chosen = 1 if is_defined else 2
        self._near(path, call, f"taken as {'defined' if is_defined else 'not defined'}; m4 is not executed", "")
        if chosen < len(call.arguments):
            body = call.arguments[chosen]
            self._walk(path, parse_m4(body.text, body.line))

    def _ifelse(self, path: str, call: Call) -> None:
        arguments = call.arguments
        if len(arguments) >= 3 and arguments[0].is_plain and arguments[1].is_plain:
            chosen = 2 if arguments[0].text == arguments[1].text else 3
            if len(arguments) <= 4:
                self._near(path, call, "decided by its plain text; m4 is not executed")
                if chosen < len(arguments):
                    self._walk(path, parse_m4(arguments[chosen].text, arguments[chosen].line))
                return
        self._refused(path, call, "the condition is not decided: m4 is not executed", "write what it yields")

    # --- telling ----------------------------------------------------------------------------------------------------

    def _exact(self, path: str, call: Call, note: str) -> None:
        self.report.exact(path, call.line, str(call), note, call.last_line)

    def _near(self, path: str, call: Call, how: str, advice: str = "") -> None:
        self.report.approximated(path, call.line, str(call), how, advice, call.last_line)

    def _refused(self, path: str, call: Call, why: str, advice: str) -> None:
        self.report.refused(path, call.line, str(call), why, advice, call.last_line)

    def _unused(self, path: str, call: Call, why: str) -> None:
        self.report.unused(path, call.line, str(call), why, call.last_line)

    _DEFINES: ClassVar[dict[str, Any]] = {
        "confDOMAIN_NAME": _domain_name,
        "confHELO_NAME": _domain_name,
        "confPRIVACY_FLAGS": _privacy,
        "confMIN_FREE_BLOCKS": _min_free,
        "confMAX_DAEMON_CHILDREN": _children,
        "confBAD_RCPT_THROTTLE": _throttle,
        "confDANE": _dane,
        "confSERVER_CERT": _certificate,
        "confSERVER_KEY": _certificate,
        **dict.fromkeys((*_HUBS, *_PARTS), _hub),
    }
    _HANDLERS: ClassVar[dict[str, Any]] = {
        "define": _define,
        "undefine": _undefine,
        "FEATURE": _feature,
        "MAILER": _mailer,
        "MASQUERADE_AS": _masquerade_as,
        "DAEMON_OPTIONS": _daemon,
        "INPUT_MAIL_FILTER": _filter,
        "MAIL_FILTER": _filter,
        "TRUST_AUTH_MECH": _auth_mechanisms,
        "CLIENT_OPTIONS": _client,
        "include": _include,
        "sinclude": _include,
        "ifdef": _ifdef,
        "ifelse": _ifelse,
    }


def parse_time(text: str, unit: str) -> float | None:
    """Seconds of sendmail's times, `1h30m`, `5d`, `30`; None if it is none."""
    total, end = 0.0, 0
    for match in _TIME.finditer(text.strip()):
        if match.start() != end:
            return None
        total += int(match.group(1)) * _SECONDS[match.group(2) or unit]
        end = match.end()
    return total if end == len(text.strip()) and end else None


def domain_of(text: str) -> str | None:
    """A domain in canonical form, with its dot in front kept; None if it is none."""
    try:
        return "." + parse_domain(text[1:]) if text.startswith(".") else parse_domain(text)
    except InvalidValue:
        return None


def _path_of(text: str) -> str:
    """The path in `-o /etc/mail/relay-domains %[^\\#]`."""
    return next((word for word in text.split() if word.startswith("/")), text)


def _advice_of_rule(section: str, text: str = "") -> str:
    if re.match(r"K\S+\s+(?:ldap|ldapx)\b", text):
        return 'write [sources.NAME] with type = "ldap", its servers, base and filter, and name it as a table'
    if re.match(r"K\S+\s+(?:hash|btree|dbm|cdb|text|macro|regex|sequence|dns|arith|program|socket)\b", text):
        return "write what its rules do with it as a table of recipients, routes or virtual addresses"
    if section in ("LOCAL_NET_CONFIG", "LOCAL_RULE_0"):
        return "write a route in a table of routes"
    if "TLS" in section:
        return "write [[tls.policies]]"
    return "write what it is for as a rule of [[relay.rules]], an access table or a route"
