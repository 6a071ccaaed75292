"""Postfix's restriction lists and access tables: rights become networks, tables become an access table of sendmail's form.

`check_client_access`, `check_sender_access` and `check_recipient_access` of tables with keys (and of networks) are written out
as one file for `access`: Connect:, From: and To: lines in the order in which Postfix would ask. Here such a table only takes
away: OK ends the checks and gives no right, as it would make an open relay of a table of senders. What judges by lists
in DNS or other servers is told as refused.
"""

from __future__ import annotations

import os
import re

from gatepost.config.errors import ConfigErrors
from gatepost.config.tables import TableData, read_table, rule_key
from gatepost.migrate import postfix_meaning as meaning
from gatepost.migrate.postfix_cf import split_list
from gatepost.migrate.postfix_sources import TYPES
from gatepost.migrate.report import Report, Result
from gatepost.routing.tables.sendmail_keys import is_client_name, network_of

TAGS = {"check_client_access": "Connect", "check_sender_access": "From", "check_recipient_access": "To"}
KEYED = ("hash", "btree", "texthash", "cdb", "lmdb", "inline")
TAKES_ARGUMENT = re.compile(r"check_\w+|reject_(rbl|rhsbl)_\w+|permit_(dnswl|rhswl)_\w+|sleep|defer_if_\w+")
ENDS_FOR_SOME = re.compile(r"permit_(mynetworks|sasl_authenticated|tls_(all_)?clientcerts|inet_interfaces)")
_CODE = re.compile(r"([45]\d\d)\s*(?:([45])\.(\d+\.\d+))?\s*(.*)", re.DOTALL)
_EXAMPLES = {"Connect": "192.0.2", "From": "user@example.org", "To": "user@example.net"}
_STATUS = re.compile(r"[45]\.(\d{1,3}\.\d{1,3})(?:\s+(.*))?", re.DOTALL)
_DEFAULT_TEXT = "Access denied"


class RestrictionImport:
    """All restriction lists of one main.cf, gathered into one access table."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows: dict[str, str] = {}  # "Tag:key" -> value of sendmail's form
        self.permits_networks = False
        self.verifies_recipients = False
        self._exempt = ""  # the restriction of the list under way behind which some clients are not asked any more
        self.has_guard = False  # reject_unauth_destination or defer_unauth_destination

    def take(
        self, name: str, value: str, file: str, line: int, last_line: int, classes: dict[str, str], path_of: object
    ) -> None:
        """One list: each restriction is told of at the lines of its parameter."""
        self._exempt = ""
        self._words(name, value, file, line, last_line, classes, path_of)

    def _words(
        self, name: str, value: str, file: str, line: int, last_line: int, classes: dict[str, str], path_of: object
    ) -> bool:
        """A list or a class in one; whether nothing behind it is asked."""
        words = split_list(value)
        index = 0
        is_ended = only_warns = False
        while index < len(words):
            word = words[index].strip("{}")
            argument = ""
            if TAKES_ARGUMENT.fullmatch(word) and index + 1 < len(words):
                index += 1
                argument = words[index]
            index += 1
            text = f"{name}: {word} {argument}".rstrip()
            if word == "warn_if_reject":
                only_warns = True
                continue
            if is_ended or only_warns:
                self._left_out(text, word, argument, only_warns, file, line, last_line, path_of)
                only_warns = False
                continue
            is_ended = self._restriction(text, word, argument, file, line, last_line, classes, path_of)
            if ENDS_FOR_SOME.fullmatch(word):
                self._exempt = self._exempt or word
        return is_ended

    def _left_out(
        self, text: str, word: str, argument: str, warns: bool, file: str, line: int, last_line: int, path_of: object
    ) -> None:
        """What Postfix does not ask for, or only to warn."""
        if word in TAGS and argument.startswith("/") or ":/" in argument:
            path_of(argument.removeprefix("proxy:").rpartition(":")[2])  # type: ignore[operator]
        if warns:
            how = "behind warn_if_reject it only writes to the log, and is left out"
            self.report.approximated(file, line, text, how, "add it when it is meant to refuse", last_line)
        else:
            self.report.unused(file, line, text, "nothing behind permit or reject is asked", last_line)

    def _restriction(
        self,
        text: str,
        word: str,
        argument: str,
        file: str,
        line: int,
        last_line: int,
        classes: dict[str, str],
        path_of: object,
    ) -> bool:
        """Whether nothing behind it is asked."""
        if word in TAGS:
            self._table(text, TAGS[word], argument, file, line, last_line, path_of)
        elif word in meaning.RESTRICTIONS:
            self.permits_networks |= word == "permit_mynetworks"
            self.verifies_recipients |= word == "reject_unverified_recipient"
            self.has_guard |= word in ("reject_unauth_destination", "defer_unauth_destination")
            result, note, advice = meaning.RESTRICTIONS[word]
            self.report.add(file, line, text, Result(result), note, advice, last_line)
        elif word in classes:
            self.report.exact(file, line, text, "a class of restrictions, taken with its own line", last_line)
            return self._words(word, classes[word], file, line, last_line, {}, path_of)
        else:
            for pattern, result, note, advice in meaning.RESTRICTION_FAMILIES:
                if pattern.fullmatch(word):
                    self.report.add(file, line, text, Result(result), note, advice, last_line)
                    return False
            if ":" in word:  # a bare table is check_client_access in smtpd_client_restrictions
                self.report.refused(
                    file, line, text, "a table without its check_", "write check_client_access or another", last_line
                )
                return False
            self.report.refused(
                file, line, text, "this restriction is not known here", "see access(5) for what it does", last_line
            )
        return word in ("permit", "reject", "defer")

    # --- tables -----------------------------------------------------------------------------------------------------

    def _table(self, text: str, tag: str, argument: str, file: str, line: int, last_line: int, path_of: object) -> None:
        kind, _, name = argument.removeprefix("proxy:").partition(":")
        if kind not in (*KEYED, "cidr", "static"):
            why, advice = "it is not read", "write the lines as keys in the access table"
            if kind in ("regexp", "pcre"):
                why = "patterns over clients and senders are not imported"
            elif kind in TYPES:
                why = "an access table that is asked over the network is asked for keys with tags, which this one does not have"
                advice = (
                    f'write access = ["{TYPES[kind][1]}:NAME"] with a [sources.NAME] that has keys such as '
                    f'"{tag.lower()}:{_EXAMPLES[tag]}", and values in sendmail\'s form'
                )
            self.report.refused(file, line, text, f"{kind}: {why}", advice, last_line)
            return
        path = name if kind in ("inline", "static") else path_of(name)  # type: ignore[operator]
        if self._exempt:
            how = f"taken into the access table, line by line; behind {self._exempt} Postfix does not ask it for those, here all are asked"
            self.report.approximated(file, line, text, how, "take out what should not hold for them", last_line)
        else:
            self.report.exact(file, line, text, "taken into the access table, line by line", last_line)
        try:
            data = read_table(f"{kind}:{path}")
        except ConfigErrors as errors:
            for error in errors:
                self.report.refused(error.file, error.line, os.path.basename(path), error.problem, error.advice)
            return
        assert data is not None
        shown = data.files[0] if data.files else file
        if kind == "static":
            self._row(tag, "", data.rules[0][1], file, line, text)
            return
        rows = [(key, value, data.lines.get(key, 0)) for key, value in data.entries.items()]
        if kind == "cidr":
            rows = self._cidr_rows(data, shown)
        for key, value, number in rows:
            self._row(tag, key, value, shown, number, f"{key} {value}")

    def _cidr_rows(self, data: TableData, shown: str) -> list[tuple[str, str, int]]:
        rows = []
        depth = 0
        for index, rule in enumerate(data.rules):
            number = data.lines.get(rule_key(index), 0)
            depth += {"if": 1, "endif": -1}.get(rule[0], 0)
            if rule[0] != "rule" or rule[1] or depth:
                why = "negated networks, if, and what stands in it are not imported"
                text = " ".join(part for part in rule if part and part != "rule")
                self.report.refused(shown, number, text, why, "write plain networks in the access table")
                continue
            rows.append((rule[2], rule[3], number))
        return rows

    def _row(self, tag: str, key: str, value: str, file: str, line: int, text: str) -> None:
        converted = convert_action(value)
        if isinstance(converted, tuple):
            self.report.refused(file, line, text, *converted)
            return
        if key == "<>":
            self.report.unused(file, line, text, "the null reverse-path is always taken (RFC 5321 4.5.5)")
            return
        place = _key_of(tag, key)
        if f"{tag}:{place}" in self.rows:
            self.report.unused(file, line, text, "an earlier table or line has said something of this key")
            return
        self.rows[f"{tag}:{place}"] = converted
        if value.strip().upper() in ("OK", "PERMIT") or value.strip().isdigit():
            how = "it ends the checks, and gives no right to relay"
            self.report.approximated(file, line, text, how, "name networks in relay.networks if it was meant to")
        elif tag == "Connect" and "/" not in place and is_client_name(place.lower()):
            how = "by the name of a client, which is looked up, and back; if DNS gives no answer the client is put off, where Postfix goes on"
            self.report.approximated(file, line, text, how, "name the network of the client")
        elif value.split()[0].upper() == "DEFER_IF_PERMIT":
            how = "put off at once, also where a later restriction would refuse"
            self.report.approximated(file, line, text, how)
        else:
            self.report.exact(file, line, text, "in the access table")

    def text(self) -> str:
        """The access table."""
        width = max((len(key) for key in self.rows), default=0)
        return "".join(f"{key:<{width}}\t{value}\n" for key, value in self.rows.items())


def convert_action(value: str) -> str | tuple[str, str]:
    """A value of access(5) in sendmail's form; or why not, and what instead."""
    text = value.strip()
    word, _, rest = text.partition(" ")
    word = word.upper()
    rest = " ".join(rest.split())
    if word in ("OK", "PERMIT", "DUNNO") or word.isdigit() and len(word) != 3:
        return "SKIP" if word == "DUNNO" else "OK"
    if word == "REJECT":
        return _error(550, rest, "") or "REJECT"
    if word == "DEFER_IF_REJECT":
        return "what a later restriction would refuse is refused, not put off", "write 450 to put it off in any case"
    if word in ("DEFER", "DEFER_IF_PERMIT"):
        return _error(450, rest, "Try again later")
    if word == "DISCARD":
        return "DISCARD"
    coded = _coded(text)
    if coded:
        return coded
    if word == "HOLD":
        return f"QUARANTINE:{rest or 'held by an access table'}"
    if word in ("INFO", "WARN", "STRIP"):
        return f"{word} writes to a log and decides nothing", "remove it: every refusal is an event"
    if word in ("FILTER", "REDIRECT", "BCC", "PREPEND", "REPLACE"):
        return f"{word} is not imported", "see docs/migration.md for what takes its place"
    return f'"{text}" is no action that is known here', "write OK, REJECT, DISCARD or 550 text"


def _error(code: int, text: str, default: str) -> str:
    """The reply with an optional text, which may begin with an enhanced status code; empty if there is nothing to say."""
    match = _STATUS.fullmatch(text)
    detail, words = (match[1], match[2] or default or _DEFAULT_TEXT) if match else ("7.1", text or default)
    return f"ERROR:{code // 100}.{detail}:{code} {words}" if words else ""


def _coded(text: str) -> str:
    match = _CODE.fullmatch(text)
    if match is None:
        return ""
    code, detail, words = match.group(1), match.group(3) or "7.1", match.group(4).strip()
    return f"ERROR:{code[0]}.{detail}:{code} {words or _DEFAULT_TEXT}"


def _key_of(tag: str, key: str) -> str:
    """The key in sendmail's form."""
    plain = key.lower()
    if tag == "Connect":
        if "/" in plain or network_of(plain) is not None:
            return plain if ":" not in plain else f"IPv6:{plain}"
        if ":" in plain:
            return f"IPv6:{plain.strip('[]')}"
    return plain
