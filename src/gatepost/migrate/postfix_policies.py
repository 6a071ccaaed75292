"""smtp_tls_policy_maps as `[[tls.policies]]`, line by line: levels, names, fingerprints, authorities; see postconf(5).

A key is a next hop of Postfix's: a domain, `.domain`, or `[host]:port`. What a line asks for beyond that (ciphers, protocols) is told; a line whose
protection could not be kept is refused and never taken with less.
"""

from __future__ import annotations

import re

from gatepost.config.nexthop import NextHopError
from gatepost.config.tlsvalues import parse_fingerprint
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.migrate.draft import Draft
from gatepost.migrate.places import Places
from gatepost.migrate.report import Report
from gatepost.routing.tables.postfix_text import split_key
from gatepost.routing.tables.postfix_transport import BadTransport, parse_transport

LEVELS = {
    "none": "none",
    "may": "opportunistic",
    "encrypt": "encrypt",
    "dane": "dane",
    "dane-only": "dane-only",
    "verify": "verify",
    "secure": "verify",
    "fingerprint": "verify",
}
_NOT_KEPT = ("protocols", "ciphers", "exclude", "connection_reuse", "servername", "enable_rpk")
_ADVICE = "write [[tls.policies]] with domains and level"


def import_policy(file: str, line: int, last: int, text: str, places: Places, draft: Draft, report: Report) -> None:
    """One line of a policy table: a row of the configuration, or told why not."""
    key, value = split_key(text)
    try:
        row, notes = policy_of(key, value, places)
    except InvalidValue as error:
        report.refused(file, line, text, error.problem, error.advice, last)
        return
    draft.tls_policies.append(row)
    if notes:
        report.approximated(file, line, text, f"[[tls.policies]]; {'; '.join(notes)}", "", last)
    else:
        report.exact(file, line, text, f"[[tls.policies]], level = {row['level']}", last)


def policy_of(key: str, value: str, places: Places) -> tuple[dict[str, object], list[str]]:
    """The row, and how it differs; raises InvalidValue."""
    words = value.split()
    level = LEVELS.get(words[0].lower()) if words else None
    if level is None:
        raise InvalidValue(f'"{value}" is no level that is known', _ADVICE)
    row: dict[str, object] = {"level": level, **_place(key)}
    given = words[0].lower()
    notes: list[str] = []
    matches: list[str] = []
    for word in words[1:]:
        name, _, text = word.partition("=")
        if name == "match":
            matches += text.split("|") if given == "fingerprint" else text.split(":")
        elif name == "tafile":
            path = places.path(text)
            if not places.exists(path):
                raise InvalidValue(f"{path}: there is no such file", "import again with the file in its place")
            row["ca_file"] = path
        elif name in _NOT_KEPT:
            notes.append(f"{name} is not kept: versions and ciphers are those of [tls]")
        else:
            raise InvalidValue(f'"{name}" is not known here', _ADVICE)
    if given == "fingerprint":
        row["fingerprints"] = [_fingerprint(match) for match in matches]
        if not matches:
            raise InvalidValue("fingerprints without a list", "write fingerprints in [[tls.policies]]")
    elif level == "verify":
        names = _names(matches or (["hostname"] if given == "verify" else ["nexthop", "dot-nexthop"]), row, notes)
        if names:
            row["names"] = names
    return row, notes


def _place(key: str) -> dict[str, object]:
    if not key.startswith("[") and ":" not in key:
        domain = parse_domain(key.removeprefix("."))
        if key.startswith("."):
            return {"domains": [f".{domain}"]}
        return {"domains": [domain], "next_hops": [f"mx:{domain}"]}
    try:
        hop, _ = parse_transport(f"smtp:{key}")
    except (BadTransport, NextHopError):
        hop = None
    if not hop:
        raise InvalidValue(f'"{key}" is no next hop', _ADVICE)
    return {"next_hops": [hop]}


def _fingerprint(text: str) -> str:
    try:
        return parse_fingerprint(text)
    except InvalidValue:
        advice = "write the SHA-256 that `openssl x509 -noout -fingerprint -sha256` prints"
        raise InvalidValue(f'"{text}" is not a SHA-256 fingerprint of a certificate', advice) from None


def _names(matches: list[str], row: dict[str, object], notes: list[str]) -> list[str]:
    """Names that a certificate must have one of; [] for what is so without them."""
    domains = [str(domain).removeprefix(".") for domain in row.get("domains", ())]  # type: ignore[attr-defined]
    if not domains:
        hop = re.fullmatch(r"\w+://(.*?):\d+", str(row["next_hops"][0]))  # type: ignore[index]
        domains = [hop.group(1)] if hop else []
    found: list[str] = []
    for match in matches:
        if match == "hostname":
            if "domains" in row:
                notes.append("an MX host must be named or lie in the domain: its name comes from DNS")
            found += domains
        elif match == "nexthop":
            found += domains
        elif match == "dot-nexthop" or match.startswith("."):
            names = domains if match == "dot-nexthop" else [parse_domain(match[1:])]
            found += [f"*.{name}" for name in names]
        else:
            found.append(parse_domain(match))
    is_default = matches in (["hostname"], ["nexthop", "dot-nexthop"])
    return [] if is_default else list(dict.fromkeys(found))
