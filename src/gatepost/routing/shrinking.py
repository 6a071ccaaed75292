"""Whether a source that denies keys it had named is to be believed: a directory that lost half of itself must not refuse mail.

Of the last keys that a table was asked for again, a set part may have vanished; people leave. When it is more, whatever vanishes is not
believed: what was found before goes on answering until its time (`stale_s`) has passed, or until a reload, by which an operator says that
it is right. Counts only; each receiver for itself, from what its clients ask for.
"""

from __future__ import annotations

from collections import deque

WINDOW = 50  # keys asked for again
LEAST = 5  # before that nothing is judged


class Shrinkage:
    """Of one table; `most` is the part that may vanish."""

    __slots__ = ("_most", "_recent", "is_doubted")

    def __init__(self, most: float) -> None:
        self._most = most
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self.is_doubted = False

    def believes(self, is_there: bool) -> bool:
        """One key that had been found was asked for again; whether the answer counts."""
        recent = self._recent
        recent.append(not is_there)
        self.is_doubted = len(recent) >= LEAST and sum(recent) > self._most * len(recent)
        return is_there or not self.is_doubted

    def reset(self) -> None:
        """An operator says that what is gone is rightly gone."""
        self._recent.clear()
        self.is_doubted = False

    @property
    def vanished(self) -> int:
        """Of the keys looked at."""
        return sum(self._recent)

    @property
    def asked(self) -> int:
        """How many keys are looked at."""
        return len(self._recent)
