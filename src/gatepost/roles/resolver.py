"""The resolver role: answers questions of other roles, of DNS and of tables that are asked over the network. Sees no message.

Where MTA-STS is in use it also answers questions of the kind "STS", for which it fetches policies by HTTPS. What that needs is loaded
only then, before the lock-in.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import msgspec

from gatepost.config.introspection import introspection_files
from gatepost.config.sources import source_files
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.mail.tlsrpt import MEDIA_TYPE
from gatepost.net.dns import StubResolver
from gatepost.net.tlscontext import new_client_context
from gatepost.privsep.material import asks_web_servers, fetches_policies
from gatepost.roles.askednames import look_up_names
from gatepost.roles.daneprobe import DaneProbe
from gatepost.roles.existence import CallAheadAsker, Existence
from gatepost.roles.material import take_material
from gatepost.roles.skeleton import Peer, Role
from gatepost.roles.snapshot import Snapshot

MAX_POSTS = 20  # reports on their way at once
MAX_POST_BYTES = 1024 * 1024  # packed
POST_ANSWER_BYTES = 64 * 1024
POST_TIMEOUT_S = 60.0
MAX_ASKED_KEYS = 64  # of one question of a command
KEPT_BACK = 10_000  # records for a queue that is away


class Resolver(Role):
    """Wiring only; see `net/dns.py` and `stspolicies.py`."""

    def before_lock_in(self) -> None:
        self.policies: Any = None
        self._unkept: dict[str, bytes] = {}
        self.resolver: StubResolver
        self._context: Any = None
        material = take_material(self.descriptors)
        of_sources = len(source_files(self.config))
        self.introspector: Any = None
        if introspection_files(self.config):
            *material, authorities, credentials = material
            introspector = importlib.import_module("gatepost.roles.introspector").Introspector
            self.introspector = introspector(self.config.auth, authorities, credentials, self.loop, clock=time.time)
        authorities = b"".join(material[: len(material) - of_sources])
        self.tables: Any = None
        if self.config.sources:
            tables = importlib.import_module("gatepost.roles.tables")
            self._listing = importlib.import_module("gatepost.roles.listing")
            self.tables = tables.Tables(self.config, material[len(material) - of_sources :], self.loop)
        if not asks_web_servers(self.config):
            return
        if b"-----BEGIN CERTIFICATE-----" not in authorities:
            self.event(
                "sts_off",
                reason="there is no file of certification authorities; install ca-certificates or set tls.ca_file",
            )
            return
        self._context = new_client_context(authorities=authorities, label="authorities")
        self._https = importlib.import_module("gatepost.net.https")
        self._policies = importlib.import_module("gatepost.roles.stspolicies")
        self.loop.run_until_complete(self._https.warm_up())

    def begin(self) -> None:
        self.resolver = StubResolver(self.start.extra.get("servers", "").split(), self.config.dns, loop=self.loop)
        self.counts = {"questions": 0}
        self._probe = DaneProbe(self.config, self.resolver, self.loop, self.event)
        self._probe.begin()
        self._posting: set[Any] = set()
        if self._context is not None:
            port = self.config.tls.sts.port
            query = self.resolver.query
            self._client = self._https.HttpsClient(query, self._context, port=port, any_address=port != 443)
            if fetches_policies(self.config):
                self._begin_policies()
        if self.introspector is not None:
            self.introspector.begin(self.resolver.query, self.event)
        if self.tables is not None:
            self.tables.begin(self.resolver.query, self.event)
        self._asker = CallAheadAsker(self.config, self.loop, lambda: self.peers("deliverer"))
        self.snapshot = Snapshot(
            self.config, keep=self._keep_recipients, call_later=self.loop.call_later, event=self.event,
            takes_all=self._asker.takes_all,
        )  # fmt: skip
        self.listings: Any = None
        if self.tables is not None:
            self.listings = self._listing.listings_of(self.config, self.tables, self.snapshot, self.loop, self.event)
        self.existence = Existence(self.tables, self._asker, self.snapshot)

    def _begin_policies(self) -> None:
        sts = self.config.tls.sts
        self.policies = self._policies.StsPolicies(
            sts,
            query=self.resolver.query,
            get=self._client.get,
            keep=self._keep,
            event=self.event,
            clock=time.time,
            loop=self.loop,
        )
        self.policies.begin()

    def on_link(self, channel: Channel) -> None:
        if channel.peer[0] == "deliverer":
            self._asker.linked()
        elif channel.peer[0] == "queue":
            for domain, record in self._unkept.items():
                channel.post(m.StsKept(domain, record))
            self._unkept.clear()

    def _keep_recipients(self, records: dict[str, bytes]) -> None:
        for channel in self.peers("queue"):  # one that is away learns of them when they are found anew
            channel.post(m.RecipientsKept(records))

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        self.snapshot.flush()
        self.leave()

    def on_link_lost(self, peer: Peer) -> None:
        self._asker.lost(peer)

    def _keep(self, domain: str, record: bytes) -> None:
        """Have the queue keep a policy; while it is away the newest are remembered for it."""
        queues = self.peers("queue")
        for channel in queues:
            channel.post(m.StsKept(domain, record))
        if not queues and (len(self._unkept) < KEPT_BACK or domain in self._unkept):
            self._unkept[domain] = record

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.Lookup:
            self._look_up(channel, message)
        elif type(message) is m.Post:
            self._post(channel, message)
        elif type(message) is m.TableLookup:
            self._look_up_keys(channel, message)
        elif type(message) is m.Introspect:
            self._introspect(channel, message)
        elif type(message) is m.CallAheadDone:
            self._asker.answered(message)
        elif type(message) is m.RecipientsRestored:
            self.snapshot.restore(message.records, message.is_all)
            if message.is_all and self.listings is not None:
                self.listings.begin()
        elif type(message) is m.StsRestored and self.policies is not None:
            self.policies.restore(message.records, message.is_all)

    def _introspect(self, channel: Channel, message: m.Introspect) -> None:
        def answered(user: str, failed: str) -> None:
            channel.post(m.Introspected(message.query, user, failed))

        if self.introspector is None:
            answered("", "no authorization server is asked in this configuration")
        else:
            self.introspector.submit(message.token, answered)

    def _post(self, channel: Channel, message: m.Post) -> None:
        """Send a TLS report, where reports are sent, and nothing else; there are few at a time."""
        if (
            self.config.tls.reports.contact is None
            or message.content_type != MEDIA_TYPE
            or len(message.body) > MAX_POST_BYTES
        ):
            channel.post(m.PostDone(message.query, "that is no report of this gateway"))
            return
        if self._context is None or len(self._posting) >= MAX_POSTS:
            channel.post(m.PostDone(message.query, "no report can be sent by HTTPS now"))
            return
        task = self.loop.create_task(self._post_report(channel, message))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post_report(self, channel: Channel, message: m.Post) -> None:
        headers = {"Content-Type": message.content_type}
        try:
            answer = await self._client.post(
                message.host, message.port, message.path, message.body, headers,
                limit_bytes=POST_ANSWER_BYTES, timeout_s=POST_TIMEOUT_S,
            )  # fmt: skip
        except self._https.HttpsError as error:
            failed = str(error)
        except Exception as error:  # noqa: BLE001 - the one broad catch of a report
            self.event("internal_error", what=f"report to {message.host}", error=repr(error))
            failed = "internal error"
        else:
            failed = "" if 200 <= answer.status < 300 else f"the server answers with status {answer.status}"
        channel.post(m.PostDone(message.query, failed))

    def _look_up_keys(self, channel: Channel, message: m.TableLookup) -> None:
        self.counts["questions"] += 1

        def answered(values: list[str | None], failed: str) -> None:
            channel.post(m.TableLookupDone(message.query, values, failed))

        self.existence.submit(message.table, message.keys, answered)

    def _from_peer(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.Ask and message.what == "lookup":
            self._answer_lookup(channel, message)
        else:
            super()._from_peer(channel, message, descriptors)

    def _answer_lookup(self, channel: Channel, ask: m.Ask) -> None:
        """A command asks a table: `gatepost explain` and the like."""

        def answered(values: list[str | None], failed: str) -> None:
            notes = {key: note for key in asked if (note := self.snapshot.note_of(table, key))}
            answer = {"values": values, "failed": failed, "notes": notes}
            channel.post(m.Answer(ask.request, msgspec.json.encode(answer)))

        def names_answered(values: list[str | None], failed: str, records: list[list[str]]) -> None:
            answer = {"values": values, "failed": failed, "records": records}
            channel.post(m.Answer(ask.request, msgspec.json.encode(answer)))

        table, keys = str(ask.arguments.get("table", "")), ask.arguments.get("keys")
        asked = [str(key) for key in keys] if isinstance(keys, list) else []
        if not isinstance(keys, list) or len(keys) > MAX_ASKED_KEYS:
            answered([], f"there is no source for {table} in the running configuration")
        elif table.startswith("dns:"):
            look_up_names(self.resolver, table.removeprefix("dns:"), asked, names_answered)
        else:
            self.existence.submit(table, keys, answered)

    def _look_up(self, channel: Channel, message: m.Lookup) -> None:
        self.counts["questions"] += 1
        number, kind, name = message.query, message.kind, message.name

        def answered(done: m.LookupDone) -> None:
            done.query = number
            channel.post(done)
            if done.status == "tempfail":
                self.event("resolver_trouble", name=name, kind=kind, reason=done.reason)

        try:
            if kind != m.STS:
                self.resolver.submit(kind, name, answered)
            elif self.policies is not None:
                self.policies.submit(name, answered)
            else:
                answered(m.LookupDone(0, "nodata", [], 3600))
        except Exception as error:  # noqa: BLE001 - the one broad catch of a question: whoever asks must hear something
            self.event("internal_error", what=f"lookup of {name}", error=repr(error))
            channel.post(m.LookupDone(number, "tempfail", [], 0, False, "internal error"))

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        if what == "stats":
            all_parts = (self.policies, self.tables, self.introspector, self._asker, self.snapshot, self.listings)
            parts = [part.counts for part in all_parts if part is not None]
            counts = {name: count for part in parts for name, count in part.items()}
            return {**self.counts, "dane": self._probe.state, **counts}
        names = [str(name) for name in arguments.get("names") or ()]
        if what == "recipients_status":
            return {"tables": self.snapshot.status(), "takes_all": sorted(self._asker.taking_all)}
        if what == "recipients_confirm":
            done = self.snapshot.confirm(names)
            if self.listings is not None:
                self.listings.soon(done)
            return done
        if what == "recipients_forget":
            count = self.snapshot.forget(names)
            self.snapshot.flush()  # control has the queue write it down before it answers
            return count
        return super().answer(what, arguments)
