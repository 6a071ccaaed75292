"""What a list query of a source may be: `list_query`, by which every recipient is fetched ahead for the snapshot (`roles/listing.py`).

Checked when the configuration is loaded; nothing is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.ldapfilter import parse_filter
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue

EXAMPLES = {
    "ldap": 'list_query = "(objectClass=inetOrgPerson)" and list_field = "mail"',
    "postgresql": 'list_query = "SELECT address FROM recipients"',
    "mysql": 'list_query = "SELECT address FROM recipients"',
    "http": 'list_query = "https://directory.example.net/recipients"',
}


def listing_sources(config: Config) -> list[str]:
    """The names of the sources that have a list query."""
    return [name for name, source in config.sources.items() if source.list_query]


def check_list_query(source: Mapping[str, Any], path: KeyPath, findings: Findings) -> None:
    """What is wrong with the list query of one source."""
    text, type_ = source.get("list_query"), source.get("type")
    if not text or type_ not in EXAMPLES:
        for key in ("list_field", "list_interval_s"):
            if key in source and not text:
                findings.add((*path, key), "there is no list_query", "write one, or remove the line")
        return
    example = f"write {EXAMPLES[type_]}"
    if "{" in text:
        findings.add((*path, "list_query"), "it gives every recipient, so there is no place for one in it", example)
    elif type_ == "ldap":
        _check_ldap(source, text, path, findings, example)
    elif type_ == "http":
        here, there = urlsplit(str(source.get("url", ""))), urlsplit(text)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            findings.add((*path, "list_query"), "it is at another server than url", "name one of the same server")
    elif ";" in text.rstrip("; \t"):
        findings.add((*path, "list_query"), "the query is more than one statement", "write one SELECT")
    if type_ in ("postgresql", "mysql") and "list_field" in source:
        findings.add((*path, "list_field"), f"a source of the type {type_} has none", "remove the line")
    stale_s = source.get("stale_s", 86400.0)
    if isinstance(stale_s, int | float) and source.get("list_interval_s", 900.0) * 2 > stale_s:
        advice = "write a shorter list_interval_s, or a longer stale_s"
        findings.add(
            (*path, "list_interval_s"), "what was listed is forgotten after stale_s, before it is listed again", advice
        )


def _check_ldap(source: Mapping[str, Any], text: str, path: KeyPath, findings: Findings, example: str) -> None:
    try:
        parse_filter(text)
    except InvalidValue as error:
        findings.add((*path, "list_query"), error.problem, error.advice)
    if not source.get("list_field"):
        findings.add(path, 'the key "list_field" is missing: the attribute that holds the address', example)
    if "{" in str(source.get("base", "")):
        problem = "its search begins at base, which has a place for a key"
        findings.add((*path, "list_query"), problem, "write a base without a place, and put the key into the filter")


def check_list_uses(sources: Mapping[str, Any], used: Mapping[str, set[str]], most: object, findings: Findings) -> None:
    """A list is for the snapshot of recipients: the source must be one of recipients and of nothing else. `used` is by source."""
    for name, source in sources.items():
        uses = used.get(name, set())
        if not source.get("list_query"):
            continue
        path: KeyPath = ("sources", name, "list_query")
        if uses != {"recipients"}:
            what = (
                f"is used for {', '.join(sorted(uses - {'recipients'}))} too"
                if "recipients" in uses
                else "is in no list of recipients"
            )
            advice = f'name it in recipients, and write another source for other uses of "{name}"'
            findings.add(path, f"what is listed goes into the snapshot of recipients, and this source {what}", advice)
        elif most == 0:
            findings.add(
                path, "what is listed goes into the snapshot, and snapshot.max_entries is 0", "write another number"
            )
