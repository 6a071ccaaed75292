"""Which users of this host may submit, and from which addresses: `[local]`.

Who has connected is the word of the kernel (SO_PEERCRED on a Unix socket), so a user is an identity like one that has authenticated,
called "uid:NAME". Pure: names come in, verdicts go out. A user who is not listed has no right at all. The null reverse-path is
allowed, as for users who authenticate; the From field is not held, because programs of the host write for others.
"""

from __future__ import annotations

from collections.abc import Collection

from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.identity import Bound
from gatepost.policy.verdict import ACCEPT, Verdict

EVERYONE = "*"
LOCAL_PREFIX = "uid:"  # of identities; no user who authenticates is called so (config/usersfile.py)

NOT_LISTED = Verdict(
    550, "7.1", "Your user may not send by this gateway; its administrator can list it in [local] users", check="local"
)
NOT_YOURS = Verdict(
    553, "7.1", "Your user may not send from this address; its administrator can list it in [local.senders]", check="local"
)  # fmt: skip


class LocalUsers:
    """The users of one configuration."""

    __slots__ = ("_bound", "_domains", "_groups", "_hostname", "_senders", "_trusted", "_users")

    def __init__(self, config: Config) -> None:
        local = config.local
        self._hostname = config.hostname
        self._domains = frozenset(config.domains)
        self._users = frozenset(local.users)
        self._groups = frozenset(local.groups)
        self._trusted = frozenset(local.trusted)
        self._senders = local.senders
        self._bound: dict[str, Bound] = {}

    def is_allowed(self, user: str, groups: Collection[str]) -> bool:
        """Whether this user, a member of these groups, may submit."""
        if not user:
            return False
        return EVERYONE in self._users or user in self._users or not self._groups.isdisjoint(groups)

    def check_reverse_path(self, user: str, groups: Collection[str], path: Address | None) -> Verdict:
        """For MAIL."""
        if not self.is_allowed(user, groups):
            return NOT_LISTED
        if path is None or (user in self._trusted and self._is_ours(path.domain)):
            return ACCEPT
        bound = self._bound.get(user)
        if bound is None:
            patterns = [f"{user.lower()}@{self._hostname}", *self._senders.get(user, ())]
            bound = self._bound[user] = Bound(user, patterns)
        return ACCEPT if bound.has(f"{path.local}@{path.domain}") else NOT_YOURS

    def _is_ours(self, domain: str) -> bool:
        if domain == self._hostname or domain in self._domains:
            return True
        labels = domain.split(".")
        return any("." + ".".join(labels[index:]) in self._domains for index in range(1, len(labels)))
