"""From a TOML file to a `Config`, or all that is wrong with it at once.

The only reader of configuration files. Runs in the supervisor and the command line, never in a role that talks to the
network: those get `encode_config`'s bytes, in which the contents of the recipients files are already merged, so that they
need no file. Paths in the file are relative to the directory of the file.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import pwd
import re
import tomllib

import msgspec

from gatepost.config import rules
from gatepost.config.authvalues import check_auth
from gatepost.config.callahead import check_call_ahead
from gatepost.config.catchall import check_catch_alls
from gatepost.config.credentialsfile import check_credentials
from gatepost.config.encoded import decode_config, encode_config
from gatepost.config.errors import ConfigError, ConfigErrors, Findings, KeyPath
from gatepost.config.exceptions import read_exceptions
from gatepost.config.fields import Walker
from gatepost.config.handover import too_large as check_size
from gatepost.config.listening import check_listening
from gatepost.config.maildirfiles import check_maildir
from gatepost.config.nexthop import NextHopError, parse_next_hops
from gatepost.config.pools import check_pools
from gatepost.config.positions import key_lines
from gatepost.config.proxies import check_proxies
from gatepost.config.recipients import read_recipients
from gatepost.config.relayrules import read_rules, split_rules
from gatepost.config.rewritevalues import USE, check_rewrite, rewrite_tables
from gatepost.config.schema import Config, Domain
from gatepost.config.sources import check_sources
from gatepost.config.tables import LoadedConfig, TableData, read_table, rights_of, table_key, too_large
from gatepost.config.tlsvalues import check_tls
from gatepost.safeopen import LinkInPath, read_regular

__all__ = ["ConfigErrors", "decode_config", "encode_config", "load_config"]

MAX_CONFIG_BYTES = 64 * 1024 * 1024
LINK_PROBLEM = "it, or a directory above it, is a symbolic link"
MOST_ADDRESSES = {4: 16 << 24, 6: 16 << 112}  # of all networks that may relay: sixteen /8, sixteen /16

_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_SYNTAX_ADVICE = (
    ("Cannot overwrite", "a key or table may be written once only: remove one of the two"),
    ("Cannot declare", "a key or table may be written once only: remove one of the two"),
    ("Invalid value", 'put text in double quotes: key = "text"'),
    ("Expected '='", 'write key = "text"; comments begin with #'),
    ("Unclosed array", 'close the list: key = ["one", "two"]'),
    ("Expected newline or end of document", "write one key on each line, and text in double quotes"),
    ("Illegal character", "close the quotes on the same line"),
)


def load_config(path: str) -> Config:
    """The configuration in a file, recipients files merged; raises ConfigErrors with every error."""
    path = os.path.abspath(path)
    text = _read_text(path)
    table = _parse_toml(path, text)
    findings = Findings(path, key_lines(text))
    config = _Loader(findings, os.path.dirname(path)).build(table)
    if config is None or (errors := check_size(config, path)):
        raise ConfigErrors(findings.errors if config is None else errors)
    return config


class _Loader:
    """Builds one Config; every error goes to `findings`."""

    def __init__(self, findings: Findings, directory: str) -> None:
        self.findings = findings
        self.walker = Walker(findings, directory)
        self.tables: dict[str, TableData] = {}

    def build(self, table: dict[str, object]) -> Config | None:
        short = {key: table[key] for key in rules.SHORT_KEYS if key in table}
        rest = {key: value for key, value in table.items() if key not in rules.SHORT_KEYS}
        exceptions = rest.pop("exceptions", [])
        listed = rest.pop("domains", None) if isinstance(rest.get("domains"), (list, str)) else None
        for key in rules.MANDATORY:
            if key not in table:
                advice = f"add a line such as: {rules.EXAMPLES[key]}"
                self.findings.errors.append(ConfigError(self.findings.file, 1, key, "this key is missing", advice))
        rest, rules_written = split_rules(rest)
        values = self.walker.section(Config, rest, (), "")
        today = datetime.datetime.now(datetime.UTC).date()
        values["exceptions"] = read_exceptions(exceptions, self.findings, self.walker.directory, today)
        defaults = self._short_values(short)
        if listed is not None:
            values["domains"] = self._listed_domains(listed)
        domains = values.get("domains")
        if isinstance(domains, dict):
            values["domains"] = self._finish_domains(domains, table, defaults)
            if not domains and not self.findings.errors:
                self.findings.add(("domains",), "no domain is listed", 'write domains = ["example.net"]')
        relay = values.get("relay")
        if isinstance(relay, dict) and "next_hop" in relay:
            relay["next_hop"] = self._next_hops(relay["next_hop"], ("relay", "next_hop"))
        if isinstance(relay, dict) and rules_written is not None:
            relay["rules"] = read_rules(rules_written, self.walker, self._next_hops)
        tables = self.tables = self._read_tables(values)
        self._take_rights(values, tables, defaults)
        self._check_across(values)
        if self.findings.errors:
            return None
        return msgspec.structs.replace(msgspec.convert(values, LoadedConfig), tables=tables)

    def _read_tables(self, values: dict[str, object]) -> dict[str, TableData]:
        """Every table in a file that the configuration names, once for each use."""
        named: dict[tuple[str, str], KeyPath] = {}
        for key in rules.TABLE_KEYS:
            for name in values.get(key) or []:  # type: ignore[attr-defined]
                named.setdefault((key, name), (key,))
        for name, place in rewrite_tables(values):
            named.setdefault((USE, name), place)
        domains = values.get("domains")
        for domain, of_domain in domains.items() if isinstance(domains, dict) else ():
            for entry in of_domain.get("recipients") or ():
                if ":" in entry:
                    named.setdefault(("recipients", entry), ("domains", domain, "recipients"))
        tables: dict[str, TableData] = {}
        for (use, name), path in named.items():
            try:
                data = read_table(name, use)
            except ConfigErrors as bad:
                self._note_errors(bad, path)
                continue
            if data is not None:
                tables[table_key(use, name)] = data
        self.findings.errors.extend(too_large(tables))
        check_sources(values, named.items(), self.findings)
        return tables

    def _note_errors(self, bad: ConfigErrors, path: KeyPath) -> None:
        """Errors with a line as they are; one of a whole file at the key that names the file."""
        for error in bad:
            if error.line:
                self.findings.errors.append(error)
            else:
                self.findings.add(path, f'"{error.file}": {error.problem}', error.advice)

    def _take_rights(
        self, values: dict[str, object], tables: dict[str, TableData], defaults: dict[str, object]
    ) -> None:
        """RELAY in access tables becomes networks and domains of the configuration: one algebra, one proof."""
        for name in values.get("access") or []:  # type: ignore[attr-defined]
            data = tables.get(table_key("access", name))
            if data is None:
                continue
            rights = rights_of(data)
            relay = values.setdefault("relay", {})
            domains = values.get("domains")
            if isinstance(relay, dict) and rights.networks:
                relay["networks"] = list(dict.fromkeys([*relay.get("networks", []), *rights.networks]))
            if not isinstance(domains, dict):
                continue
            next_hop = relay.get("next_hop", ["mx"]) if isinstance(relay, dict) else ["mx"]
            if "next_hop" in defaults:
                next_hop = self._next_hops(defaults["next_hop"], ("next_hop",))
            for domain in rights.domains:
                domains.setdefault(domain, {"next_hop": next_hop})

    def _short_values(self, short: dict[str, object]) -> dict[str, object]:
        values: dict[str, object] = {}
        kinds = {field.name: field.type for field in msgspec.structs.fields(Domain)}
        for key, value in short.items():
            good = self.walker.value(kinds[key], value, (key,), key)
            if good is not None:
                values[key] = good
        return values

    def _listed_domains(self, listed: object) -> dict[str, dict[str, object]]:
        """`domains = ["a.test", "b.test"]`, the short form."""
        domains: dict[str, dict[str, object]] = {}
        if isinstance(listed, str):
            self.findings.add(("domains",), "a list is wanted, but this is text", f'write domains = ["{listed}"]')
            return domains
        assert isinstance(listed, list)
        for index, text in enumerate(listed):
            here: KeyPath = ("domains", index)
            if not isinstance(text, str):
                self.findings.add(here, "text in quotes is wanted", 'write domains = ["example.net"]')
                continue
            name = self.walker.domain_name(text, here)
            if name is None:
                continue
            if name in domains:
                self.findings.add(here, f'the domain "{name}" is given twice', "remove one of the two")
            domains[name] = {}
        return domains

    def _finish_domains(
        self, domains: dict[str, dict[str, object]], table: dict[str, object], defaults: dict[str, object]
    ) -> dict[str, dict[str, object]]:
        """Fill in the short form, merge recipients files, and check what a single value could not."""
        finished = {}
        places = self._places(table)
        for name, own in domains.items():
            here = places.get(name, ("domains",))
            values = {**defaults, **own}
            if "recipients" in own or "recipients_file" in own:  # a list of its own stands instead of the general one
                values = {key: value for key, value in values.items() if key == "next_hop" or key in own}
            if own.get("backup_mx"):
                values["next_hop"] = ["mx"]
                if "next_hop" in own:
                    problem = "a domain that we are a backup of has no next hop but its MX hosts"
                    self.findings.add((*here, "next_hop"), problem, "remove this line, or backup_mx")
            elif "next_hop" in values:
                hop_path = (*here, "next_hop") if "next_hop" in own else ("next_hop",)
                values["next_hop"] = self._next_hops(values["next_hop"], hop_path)
            elif "routes" in table and not self._has("next_hop", table, name):
                values["next_hop"] = ["mx"]  # what the tables of routes leave over
            elif not self._has("next_hop", table, name):
                problem = f'the domain "{name}" has no next hop'
                self.findings.add(here, problem, 'add a line such as: next_hop = "smtp://10.0.0.5:25"')
            finished[name] = values
        self._merge_recipients(finished, domains, places)
        return finished

    def _places(self, table: dict[str, object]) -> dict[str, KeyPath]:
        """Where each domain stands in the file, by its canonical name."""
        places: dict[str, KeyPath] = {}
        written = table["domains"]
        keys = enumerate(written) if isinstance(written, list) else ((text, text) for text in written)  # type: ignore[attr-defined]
        quiet = Walker(Findings("", {}), "")
        for key, text in keys:
            name = quiet.domain_name(text, ()) if isinstance(text, str) else None
            if name is not None:
                places.setdefault(name, ("domains", key))
        return places

    def _has(self, key: str, table: dict[str, object], name: str) -> bool:
        """Whether a key was written for a domain at all (its value may have been wrong, which is told already)."""
        if key in table:
            return True
        domains = table["domains"]
        written = domains.get(name) if isinstance(domains, dict) else None
        return isinstance(written, dict) and key in written

    def _next_hops(self, texts: object, path: KeyPath) -> list[str]:
        assert isinstance(texts, list)
        if not texts:
            if not any(error.line == self.findings.line(path) for error in self.findings.errors):
                self.findings.add(path, "the list is empty", 'write "smtp://10.0.0.5:25"')
            return []
        try:
            return parse_next_hops(texts, needs_place=path[0] in ("domains", "next_hop"))
        except NextHopError as error:
            self.findings.add(path, error.problem, error.advice)
            return []

    def _merge_recipients(
        self, finished: dict[str, dict[str, object]], own: dict[str, dict[str, object]], places: dict[str, KeyPath]
    ) -> None:
        files: dict[str, list[str]] = {}
        for name, values in finished.items():
            inline = values.get("recipients")
            if isinstance(inline, list):
                shared = "recipients" not in own[name]
                path = ("recipients",) if shared else (*places[name], "recipients")
                taken = list(finished) if shared else [name]
                values["recipients"] = self._for_domain(name, inline, taken, path)
            if isinstance(values.get("recipients_file"), str):
                files.setdefault(str(values["recipients_file"]), []).append(name)
        for file, names in files.items():
            entries = self._read_file(file, names, own, places)
            for name in names:
                listed = finished[name].get("recipients") or []
                assert isinstance(listed, list)
                merged = set(listed).union(_locals_for(name, entries))
                finished[name]["recipients"] = sorted(merged)

    def _for_domain(self, name: str, inline: list[str], taken: list[str], path: KeyPath) -> list[str]:
        """The local parts for one domain of a list in the configuration; an address elsewhere is an error."""
        for index, entry in enumerate(inline):
            if ":" in entry:  # a table
                continue
            domain = entry.partition("@")[2]
            if domain and domain not in taken and name == taken[0]:
                problem = f'"{entry}" is not in {_domains_text(taken)}'
                item = (*path, self.walker.kept[path][index])
                self.findings.add(item, problem, "move it to the list of its own domain, or correct it")
        return _locals_for(name, inline)

    def _read_file(
        self, file: str, names: list[str], own: dict[str, dict[str, object]], places: dict[str, KeyPath]
    ) -> dict[str, int]:
        entries, errors = read_recipients(file)
        for error in errors:
            if error.line:
                self.findings.errors.append(error)
            else:
                shared = "recipients_file" not in own[names[0]]
                path = ("recipients_file",) if shared else (*places[names[0]], "recipients_file")
                self.findings.add(path, f'"{file}": {error.problem}', error.advice)
        for entry, line in entries.items():
            domain = entry.partition("@")[2]
            if domain and domain not in names:
                problem = f'"{entry}" is not in {_domains_text(names)}, whose recipients this file lists'
                advice = "remove it, or correct its domain"
                self.findings.errors.append(ConfigError(file, line, "", problem, advice))
        return entries

    def _check_across(self, values: dict[str, object]) -> None:
        """What spans several keys."""
        if values.get("listen") == [] and not any("listen" in error.key for error in self.findings.errors):
            self.findings.add(("listen",), "the list is empty", f"write {rules.EXAMPLES['listen']}")
        defaults = msgspec.to_builtins(Config(hostname="", listen=[], spool="", domains={}))
        for smaller, larger, why in rules.ORDERED:
            low, high = (_number_at(values, defaults, key) for key in (smaller, larger))
            written = [key for key in (smaller, larger) if self._is_written(values, key)]
            if low > high and written:
                section, _, name = written[0].partition(".")
                problem = f"{smaller} is {low:g} and {larger} is {high:g}: {why}"
                self.findings.add((section, name), problem, f"raise {larger} or lower {smaller}")
        self._check_width(values)
        self._check_loop(values)
        self._check_postmaster(values)
        self._check_users(values)
        self._check_aliases(values)
        check_pools(values, self.tables, self.findings)
        check_credentials(values, self.findings)
        check_tls(values, self.findings)
        check_auth(values, self.findings)
        check_proxies(values, self.findings)
        check_rewrite(values, self.findings)
        check_listening(values, self.findings)
        check_maildir(values, self.findings)
        check_call_ahead(values, self.findings)
        if isinstance(domains := values.get("domains"), dict):
            check_catch_alls(domains, self.findings)

    def _check_aliases(self, values: dict[str, object]) -> None:
        domains, ours = values.get("alias_domains"), values.get("domains")
        if values.get("aliases") and not domains:
            advice = 'write alias_domains = ["example.net"], the domains whose names they are'
            self.findings.add(("aliases",), "it is not said for which domains these aliases are", advice)
        if not isinstance(domains, list) or not isinstance(ours, dict):
            return
        for domain in domains:
            if domain not in ours:
                problem = f'"{domain}" is not one of the domains we accept mail for'
                self.findings.add(("alias_domains",), problem, "add it to domains, or remove it here")

    def _check_width(self, values: dict[str, object]) -> None:
        """Many networks can make the world as well as one."""
        relay = values.get("relay")
        texts = relay.get("networks", []) if isinstance(relay, dict) else []
        for version, most in MOST_ADDRESSES.items():
            networks = [network for network in map(ipaddress.ip_network, texts) if network.version == version]
            merged = ipaddress.collapse_addresses(networks)  # type: ignore[type-var]
            if sum(network.num_addresses for network in merged) > most:
                problem = f"the IPv{version} networks together are far more than one organisation"
                self.findings.add(
                    ("relay", "networks"), problem, "that would be an open relay: list only your own networks"
                )

    def _is_written(self, values: dict[str, object], key: str) -> bool:
        section, _, name = key.partition(".")
        table = values.get(section)
        return isinstance(table, dict) and name in table

    def _check_loop(self, values: dict[str, object]) -> None:
        listen = values.get("listen")
        domains = values.get("domains")
        if not isinstance(listen, list) or not isinstance(domains, dict):
            return
        for name, domain in domains.items():
            for hop in domain.get("next_hop", []):
                if hop.removeprefix("smtp://") in listen:
                    problem = f'the next hop of "{name}" is this gateway itself: mail would go round in circles'
                    path = ("domains", name, "next_hop")
                    self.findings.add(path, problem, "write the address of the mail server behind the gateway")

    def _check_postmaster(self, values: dict[str, object]) -> None:
        postmaster, domains = values.get("postmaster"), values.get("domains")
        if not isinstance(postmaster, str) or not isinstance(domains, dict):
            return
        local, _, domain = postmaster.rpartition("@")
        recipients = domains.get(domain, {}).get("recipients")
        if recipients is None or any(":" in entry for entry in recipients):
            return
        if local != "postmaster" and local not in recipients:
            problem = f'"{postmaster}" is not among the recipients of "{domain}"'
            self.findings.add(("postmaster",), problem, "write an address that exists, or add it to the recipients")

    def _check_users(self, values: dict[str, object]) -> None:
        """Each role needs an unprivileged user of its own; whether the users exist matters where root starts."""
        processes = values.get("processes")
        users = processes.get("users", {}) if isinstance(processes, dict) else {}
        taken: dict[str, str] = {}
        for role, user in users.items():
            path = ("processes", "users", role)
            if user in taken:
                problem = f'the roles {taken[user]} and {role} would run as the same user "{user}"'
                self.findings.add(path, problem, "give each role a user of its own: adduser --system NAME")
            taken[user] = role
            try:
                uid = pwd.getpwnam(user).pw_uid
            except KeyError:
                if os.geteuid() == 0:
                    advice = f"create it: adduser --system --group {user}"
                    self.findings.add(path, f'there is no user "{user}"', advice)
                continue
            if uid == 0:
                self.findings.add(path, f'"{user}" is root', "name an unprivileged user, or remove the line")


def _locals_for(name: str, entries: object) -> list[str]:
    """The local parts that stand for recipients of one domain: bare ones, and addresses in it."""
    result = []
    for entry in entries:  # type: ignore[attr-defined]
        if ":" in entry:
            result.append(entry)
            continue
        local, at, domain = entry.partition("@")
        if not at or domain == name:
            result.append(local)
    return result


def _domains_text(names: list[str]) -> str:
    return f'"{names[0]}"' if len(names) == 1 else "any of " + ", ".join(f'"{name}"' for name in names)


def _number_at(values: dict[str, object], defaults: dict[str, dict[str, float]], key: str) -> float:
    section, _, name = key.partition(".")
    table = values.get(section)
    if isinstance(table, dict) and name in table:
        return float(table[name])
    return float(defaults[section][name])


def _read_text(path: str) -> str:
    try:
        data = read_regular(path, MAX_CONFIG_BYTES)
    except LinkInPath:
        advice = f"name the real path, {os.path.realpath(path)}, with --config"
        raise ConfigErrors([ConfigError(path, 0, "", LINK_PROBLEM, advice)]) from None
    except FileNotFoundError:
        advice = f'write one with "gatepost init --output {path}", or name another with --config'
        raise ConfigErrors([ConfigError(path, 0, "", "there is no such file", advice)]) from None
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        advice = "run as a user who may read it, or see ls -l and chown"
        raise ConfigErrors([ConfigError(path, 0, "", problem, advice)]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigError(path, line, "", "the line is not UTF-8", "save the file as UTF-8")]) from None


def _parse_toml(path: str, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _AT_LINE.search(message)
        lines = text.rstrip("\n").count("\n") + 1
        line = int(match.group(1)) if match and match.group(1) else lines
        problem = _AT_LINE.sub("", message)
        advice = next((advice for start, advice in _SYNTAX_ADVICE if start in problem), "correct this line")
        raise ConfigErrors([ConfigError(path, min(line, lines), "", f"not valid TOML: {problem}", advice)]) from None
