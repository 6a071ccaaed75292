"""The resolver role: answers questions of other roles, of DNS and of tables that are asked over the network. Sees no message.

Where MTA-STS is in use it also answers questions of the kind "STS", for which it fetches policies by HTTPS. What that needs is loaded
only then, before the lock-in.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from gatepost.delivery.stsanswer import STS
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.net.dns import StubResolver
from gatepost.net.tlscontext import new_client_context
from gatepost.privsep.material import asks_web_servers, fetches_policies
from gatepost.roles.daneprobe import DaneProbe
from gatepost.roles.material import take_material
from gatepost.roles.skeleton import Role

MAX_POSTS = 20  # reports on their way at once
POST_ANSWER_BYTES = 64 * 1024
POST_TIMEOUT_S = 60.0
KEPT_BACK = 10_000  # records for a queue that is away


class Resolver(Role):
    """Wiring only; see `net/dns.py` and `stspolicies.py`."""

    def before_lock_in(self) -> None:
        self.policies: Any = None
        self._unkept: dict[str, bytes] = {}
        self.resolver: StubResolver
        self._context: Any = None
        authorities = b"".join(take_material(self.descriptors))
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
        if channel.peer[0] == "queue":
            for domain, record in self._unkept.items():
                channel.post(m.StsKept(domain, record))
            self._unkept.clear()

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
            self.counts["questions"] += 1
            channel.post(m.TableLookupDone(message.query, [], f"there is no table {message.table}"))
        elif type(message) is m.StsRestored and self.policies is not None:
            self.policies.restore(message.records, message.is_all)

    def _post(self, channel: Channel, message: m.Post) -> None:
        """Send a TLS report; there are few at a time."""
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

    def _look_up(self, channel: Channel, message: m.Lookup) -> None:
        self.counts["questions"] += 1
        number, kind, name = message.query, message.kind, message.name

        def answered(done: m.LookupDone) -> None:
            done.query = number
            channel.post(done)
            if done.status == "tempfail":
                self.event("resolver_trouble", name=name, kind=kind, reason=done.reason)

        try:
            if kind != STS:
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
            counts = self.counts | {"dane": self._probe.state}
            return counts if self.policies is None else counts | self.policies.counts
        return super().answer(what, arguments)
