"""The logins of a configuration by the host they are for, out of what the deliverer was handed before its lock-in."""

from __future__ import annotations

from collections.abc import Mapping

from gatepost.config.credentialsfile import secret_of
from gatepost.config.schema import Config
from gatepost.routing.nexthop import parse_next_hop
from gatepost.smtp.sasl.client import Login

Logins = Mapping[tuple[str, int], Login]


def logins_of(config: Config, contents: Mapping[str, bytes]) -> Logins:
    """By (host as it is configured, port); `contents` are the files by path. Raises ConfigErrors."""
    found: dict[tuple[str, int], Login] = {}
    for number, row in enumerate(config.delivery.credentials):
        (hop,) = parse_next_hop(row.next_hop)
        secret = secret_of(config, number, contents)
        key = {"token": secret} if row.token_file is not None else {"password": secret}
        found[hop.host, hop.port] = Login(row.user, mechanisms=row.mechanisms, **key)
    return found
