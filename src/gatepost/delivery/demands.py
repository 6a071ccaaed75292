"""What sendmail's access table demands of TLS on the way out: `TLS_Srv:` of a host, `TLS_Rcpt:` of the host that gets a recipient's mail.

They come on top of the policy (`tlspolicy.py`) and never take anything away: a `Plan` is raised to TLS, to a verified certificate, to so
many bits. `Try_TLS:` takes away only what nobody demands: TLS that is used if it is offered, and whose failure means clear text. A certificate is verified by the authorities of `tls.ca_file`, unless the plan verifies it already, and for the name of the
host, or the one that CN: names. Recipients of whom different things are demanded go by connections of their own.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable
from typing import Any

from gatepost.config.schema import Config
from gatepost.config.tlsdemands import Demand, demanding_tables
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.delivery.tlspolicy import Plan, Policy, asked_for, plan_refused
from gatepost.smtp.outgoing import Tls

_TABLE = "gatepost.routing.tables.sendmail_access"  # loaded only where a table demands something


class Demands:
    """Of one configuration. `public` gives the context that verifies, None if there is none."""

    def __init__(self, config: Config, public: Callable[[], ssl.SSLContext | None]) -> None:
        load = importlib.import_module(_TABLE).AccessTable.of_data
        tables: list[Any] = [load(data) for data in demanding_tables(config)]
        self._servers = [table for table in tables if table.has_demands["tls_srv"]]
        self._recipients = [table for table in tables if table.has_demands["tls_rcpt"]]
        self._trying = [table for table in tables if table.has_tries]
        self.has_recipients = bool(self._recipients)
        self._public = public
        self._policies: dict[tuple[str, Demand], Policy] = {}

    def of_recipient(self, policy: Policy, address: str) -> Policy:
        """The policy for mail to this recipient, with what is demanded for it."""
        local, _, domain = address.rpartition("@")
        for table in self._recipients:
            demand = table.tls_recipient(local.lower(), domain.lower())
            if demand is not False:
                return policy if demand is None else self._with(policy, demand)
        return policy

    def _with(self, policy: Policy, demand: Demand) -> Policy:
        found = self._policies.get((policy.key, demand))
        if found is None:
            key = f"{policy.key}!{len(self._policies)}+"
            found = Policy(policy.level, policy.context, key=key, names=policy.names, fingerprints=policy.fingerprints)
            found.demand, found.is_relaxed = demand, policy.is_relaxed
            self._policies[policy.key, demand] = found
        return found

    def raised(self, policy: Policy, way: Plan, host: str, address: str) -> Plan:
        """The plan for a connection to an address of a host, with all that is demanded of it."""
        if way.problem is not None:
            return way
        if way.tls is Tls.IF_OFFERED and self._trying and not self._tries(host, address):
            why = "Try_TLS in the access table says so"
            way = way._replace(tls=Tls.NEVER, level="none", why=why, trial=None)
        for demand in (self._of_server(host, address), policy.demand):
            if demand is not None:
                way = self._raise(way, demand, policy, host)
        return way

    def _tries(self, host: str, address: str) -> bool:
        """Whether TLS is tried where nothing demands it; the first table that says something counts."""
        said = (table.tries_tls(host, address) for table in self._trying)
        return next((one for one in said if one is not None), True)

    def _of_server(self, host: str, address: str) -> Demand | None:
        for table in self._servers:
            demand = table.tls_server(host, address)
            if demand is not False:
                return demand  # type: ignore[no-any-return]
        return None

    def _raise(self, way: Plan, demand: Demand, policy: Policy, host: str) -> Plan:
        why = "the access table demands it"
        way = way._replace(tls=Tls.ALWAYS, demands=(*way.demands, (demand, host)))
        if not demand.needs_certificate or way.is_verified:
            return way if way.is_verified else way._replace(level="encrypt", why=why)
        context = self._public()
        if context is None:
            reason = "the access table demands a verified certificate, and there are no authorities; set tls.ca_file"
            return plan_refused(policy, host, reason)
        name = next((value for kind, value in demand.extensions if kind == "CN" and _is_host(value)), host)
        # What MTA-STS in testing mode would try besides is done here: it is verified for good.
        return way._replace(
            context=context, server_name=asked_for(name, True), is_verified=True, level="verify", why=why, trial=None
        )


def demands_of(config: Config, public: Callable[[], ssl.SSLContext | None]) -> Demands | None:
    """What the access tables demand; None: nothing, as everywhere but where they came from sendmail."""
    return Demands(config, public) if demanding_tables(config) else None


def _is_host(name: str) -> bool:
    try:
        return bool(name and parse_domain(name))
    except InvalidValue:
        return False
