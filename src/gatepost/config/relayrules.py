"""`[[relay.rules]]`: from what is written to values that fit `schema.RelayRule`, every error noted.

Here is only what a rule must be to be understood. Whether the rules together open the relay is not decided here but proved,
or refuted with a session, by `policy/proof.py`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from gatepost.config.fields import Walker
from gatepost.config.schema import RelayRule

MAX_RULES = 1_000_000
_EXAMPLE = 'write [[relay.rules]] and below it name = "printers", networks = ["192.0.2.0/24"]'


def split_rules(table: dict[str, object]) -> tuple[dict[str, object], object]:
    """The table without `relay.rules`, and these (None if there are none)."""
    relay = table.get("relay")
    if not isinstance(relay, dict) or "rules" not in relay:
        return table, None
    return table | {"relay": {key: value for key, value in relay.items() if key != "rules"}}, relay["rules"]


def read_rules(
    written: object, walker: Walker, next_hops: Callable[[object, tuple[str | int, ...]], list[str]]
) -> list[dict[str, object]]:
    """The good values of each rule; `next_hops` checks a list of next hops as a whole."""
    findings = walker.findings
    if not isinstance(written, list) or not all(isinstance(item, dict) for item in written):
        findings.add(("relay", "rules"), "a list of tables is wanted", _EXAMPLE)
        return []
    if len(written) > MAX_RULES:
        findings.add(("relay", "rules"), f"there are more than {MAX_RULES} rules", "name ranges and domains together")
        return []
    good: list[dict[str, object]] = []
    names: dict[str, int] = {}
    for index, item in enumerate(written):
        here = ("relay", "rules", index)
        plain = dict(item)
        if isinstance(plain.get("expires"), datetime.date):
            plain["expires"] = plain["expires"].isoformat()
        values = walker.section(RelayRule, plain, here, "relay.rules.*")
        name = values.get("name")
        if name is None and "name" not in item:
            findings.add(here, "the rule has no name", 'add a line such as: name = "printers"')
        elif isinstance(name, str) and name in names:
            findings.add((*here, "name"), f'another rule is called "{name}"', "give each rule a name of its own")
        elif isinstance(name, str):
            names[name] = index
        if isinstance(values.get("next_hop"), list):
            values["next_hop"] = next_hops(values["next_hop"], (*here, "next_hop"))
        _check_one(values, plain, here, walker)
        good.append(values)
    return good


def _check_one(
    values: dict[str, object], written: dict[str, object], here: tuple[str | int, ...], walker: Walker
) -> None:
    """What no single key can tell."""
    add = walker.findings.add
    if values.get("anyone") and (values.get("networks") or values.get("identities") or values.get("certificates")):
        add((*here, "anyone"), "anyone beside a list of who it is means nothing", "remove one of the two")
    if "*" in (values.get("certificates") or ()):  # type: ignore[operator]
        problem = "any certificate is too many: an authority that is trusted for one name may certify others"
        add((*here, "certificates"), problem, 'write the names, such as "mail.example.org"')
    if values.get("expect_many") and not values.get("owner"):
        problem = "many clients behind one address are trusted here, and nobody answers for it"
        add((*here, "expect_many"), problem, 'add owner = "the person who answers for that range"')
    for key in ("networks", "identities", "certificates", "domains", "reverse_paths"):
        if written.get(key) == []:
            add((*here, key), "the list is empty", "write what it is for, or remove the line")
