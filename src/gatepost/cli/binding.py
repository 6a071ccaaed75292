"""The addresses that the user of an explained session may use: what a receiver holds MAIL and the header to, without a login."""

from __future__ import annotations

from gatepost.config.listening import groups_of_user
from gatepost.config.schema import Config
from gatepost.config.usersfile import read_users
from gatepost.model import Address
from gatepost.policy.identity import Bound, check_header, check_reverse_path
from gatepost.policy.localusers import LOCAL_PREFIX, LocalUsers
from gatepost.policy.verdict import ACCEPT, Verdict


class NoSuchUser(Exception):
    """Nobody can authenticate as that; the text says where he is missing."""


class Binding:
    """Of one identity; without one, or where nobody can authenticate, everything is accepted."""

    def __init__(self, config: Config, identity: str) -> None:
        """Raises NoSuchUser, and ConfigErrors where the users file cannot be used."""
        self._bound: Bound | None = None
        self._local: LocalUsers | None = None
        self._user = identity.removeprefix(LOCAL_PREFIX)
        auth = config.auth
        if not identity:
            return
        if self._user != identity:
            self._local = LocalUsers(config)
        elif auth.dovecot is not None:  # who exists only Dovecot knows
            domain = auth.default_domain or next(iter(config.domains))
            self._bound = Bound(identity, (identity if "@" in identity else f"{identity}@{domain}",))
        elif auth.users_file is not None:
            user = read_users(auth.users_file).users.get(identity)
            if user is None:
                raise NoSuchUser(f'there is no user "{identity}" in {auth.users_file}; see: gatepost user list')
            self._bound = Bound(identity, user.addresses)

    def mail(self, path: Address | None) -> Verdict:
        """For MAIL."""
        if self._local is not None:
            return self._local.check_reverse_path(self._user, groups_of_user(self._user), path)
        return ACCEPT if self._bound is None else check_reverse_path(self._bound, path)

    def header(self, header: bytes) -> Verdict:
        """For the end of data."""
        return ACCEPT if self._bound is None else check_header(self._bound, header)
