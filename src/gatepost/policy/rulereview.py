"""Rules that do nothing, or will soon: ended, hidden behind an earlier one, asking for what they cannot give. Pure."""

from __future__ import annotations

import ipaddress
import time

from gatepost.config.neighbours import Finding
from gatepost.config.relayvalues import OURS, end_of_day_s
from gatepost.config.schema import Config, RelayRule

MAX_COMPARED = 1000  # each with each; more rules than that are not compared
SOON_S = 14 * 86400.0


def review_rules(config: Config, now_s: float | None = None) -> list[Finding]:
    """What is worth telling of each rule."""
    now_s = time.time() if now_s is None else now_s
    findings: list[Finding] = []
    for rule in config.relay.rules:
        key = f'relay.rules "{rule.name}"'
        left_s = end_of_day_s(rule.expires) - now_s if rule.expires else SOON_S
        if left_s <= 0:
            findings.append(
                Finding(key, f"it ended on {rule.expires} and does nothing", "remove it, or set another day")
            )
        elif left_s < SOON_S:
            findings.append(Finding(key, f"it ends on {rule.expires}", "prolong it in time if it is still needed"))
    live = [
        rule
        for rule in config.relay.rules
        if rule.mode == "enforce" and (not rule.expires or end_of_day_s(rule.expires) > now_s)
    ]
    if len(live) <= MAX_COMPARED:
        findings += _hidden(live, set(config.domains))
    return findings


def _hidden(rules: list[RelayRule], ours: set[str]) -> list[Finding]:
    findings = []
    for index, rule in enumerate(rules):
        for earlier in rules[:index]:
            if not earlier.expires and _covers(earlier, rule, ours):
                problem = f'it is never reached: "{earlier.name}" above it holds for all that it names'
                findings.append(Finding(f'relay.rules "{rule.name}"', problem, "remove it, or move it up"))
                break
    return findings


def _covers(earlier: RelayRule, rule: RelayRule, ours: set[str]) -> bool:
    """Whether the first holds wherever the second does."""
    return (
        _covers_names(earlier.identities, rule.identities)
        and _covers_names(earlier.certificates, rule.certificates)
        and _covers_networks(earlier.networks, rule.networks)
        and _covers_patterns(earlier.reverse_paths, rule.reverse_paths, at=True)
        and _covers_domains(earlier.domains, rule.domains, ours)
    )


def _covers_names(wide: list[str], narrow: list[str]) -> bool:
    return not wide or (bool(narrow) and ("*" in wide or set(narrow) <= set(wide)))


def _covers_networks(wide: list[str], narrow: list[str]) -> bool:
    if not wide:
        return True
    outer = [ipaddress.ip_network(text) for text in wide]
    inner = [ipaddress.ip_network(text) for text in narrow]
    return bool(inner) and all(
        any(one.version == other.version and one.subnet_of(other) for other in outer)  # type: ignore[arg-type]
        for one in inner
    )


def _covers_patterns(wide: list[str], narrow: list[str], *, at: bool) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(any(_fits(one, other, at) for other in wide) for one in narrow)


def _fits(narrow: str, wide: str, at: bool) -> bool:
    if narrow == wide:
        return True
    if at:
        place = narrow.rpartition("@")[2]
        return wide == "@" + place or (wide.startswith("@.") and place.endswith(wide[1:]))
    return wide.startswith(".") and narrow.endswith(wide)


def _covers_domains(wide: list[str], narrow: list[str], ours: set[str]) -> bool:
    if not wide:
        return not narrow or not any(name == OURS or name in ours or name.startswith(".") for name in narrow)
    if not narrow:
        return False
    return all((one in ours and OURS in wide) or any(_fits(one, other, False) for other in wide) for one in narrow)


def rule_text(rule: RelayRule) -> str:
    """A rule in words."""
    who = []
    if rule.networks:
        who.append(f"clients in {', '.join(rule.networks[:8])}{' and more' if len(rule.networks) > 8 else ''}")
    if rule.identities:
        who.append(
            "any authenticated client"
            if "*" in rule.identities
            else f"authenticated as {', '.join(rule.identities[:8])}"
        )
    if rule.certificates:
        names = ", ".join(rule.certificates[:8])
        who.append("any verified certificate" if "*" in rule.certificates else f"with the certificate {names}")
    sender = f" with mail from {', '.join(rule.reverse_paths[:8])}" if rule.reverse_paths else ""
    where = ", ".join(rule.domains[:8]) if rule.domains else "every domain that is not ours"
    rest = f", at most {rule.max_per_hour} recipients an hour" if rule.max_per_hour else ""
    rest += f", by way of {', then '.join(rule.next_hop)}" if rule.next_hop else ""
    rest += f", until {rule.expires}" if rule.expires else ""
    rest += f" (owner {rule.owner})" if rule.owner else ""
    rest += f" [{rule.mode}]" if rule.mode != "enforce" else ""
    return f"{' and '.join(who) or 'anyone'}{sender} may send to {where}{rest}"
