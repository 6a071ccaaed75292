"""How many recipients a relay rule has let through: a level for each rule that drains by the hour. Kept by each receiver.

A rule's number is for all its clients and all receivers together; each receiver has its share. The level is not written down: a
new receiver begins at zero.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatepost.policy.relayrules import Rule
from gatepost.policy.verdict import Verdict

NAME = "relay-rate"
TOO_MANY = Verdict(450, "7.1", "Too many recipients in this hour; send the rest later", check=NAME)


class RuleRates:
    """Levels of the rules that have a limit."""

    __slots__ = ("_levels", "_limits")

    def __init__(self, rules: Iterable[Rule], receivers: int = 1) -> None:
        self._limits = {rule.name: max(1.0, rule.max_per_hour / receivers) for rule in rules if rule.max_per_hour}
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, now_s: float) -> bool:
        """Count one recipient of a rule; False: it is one too many, and not counted."""
        limit = self._limits.get(name)
        if limit is None:
            return True
        level, at_s = self._levels.get(name, (0.0, now_s))
        level = max(0.0, level - (now_s - at_s) * limit / 3600.0)
        if level + 1.0 > limit:
            self._levels[name] = level, now_s
            return False
        self._levels[name] = level + 1.0, now_s
        return True
