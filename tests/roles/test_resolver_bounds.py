"""What a role that was broken into may have the resolver do: no key that no server could have, no POST but a report of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gatepost.config.schema import Config, Tls, TlsReports
from gatepost.ipc import messages as m
from gatepost.mail.tlsrpt import MEDIA_TYPE
from gatepost.roles.existence import MAX_KEYS, NO_KEY, Existence
from gatepost.roles.resolver import MAX_POST_BYTES, Resolver
from gatepost.roles.snapshot import Snapshot
from gatepost.roles.tables import Tables

CONFIG = Config(hostname="mx.example.net", listen=[], spool="/s", domains={})


class Asked:
    """A source that must not be asked."""

    async def find(self, key: str) -> str:
        return f"found {key}"


@pytest.mark.parametrize(
    "keys",
    [["a"] * (MAX_KEYS + 1), ["x" * 513], ["a\nb"], [""], ["a", "b\0"], ["\ud800"]],
    ids=["many", "long", "line", "empty", "nul", "half"],
)
def test_keys_that_no_role_in_order_sends(keys: list[str]) -> None:
    async def ask(keys: list[str]) -> tuple[list[str | None], str]:
        tables = Tables(CONFIG, [], asyncio.get_running_loop())
        tables._sources["ldap:people"] = Asked()  # type: ignore[assignment]
        snapshot = Snapshot(
            CONFIG, keep=lambda records: None, call_later=lambda s, call: None, event=lambda name, **fields: None
        )
        existence = Existence(tables, None, snapshot)  # type: ignore[arg-type]
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        existence.submit("ldap:people", keys, lambda values, failed: done.set_result((values, failed)))
        return await done

    assert asyncio.run(ask(["anna@example.net"])) == (["found anna@example.net"], "")
    assert asyncio.run(ask(keys)) == ([], NO_KEY)


class Link:
    def __init__(self) -> None:
        self.posted: list[m.Message] = []

    def post(self, message: m.Message) -> None:
        self.posted.append(message)


@pytest.mark.parametrize(
    ("contact", "content_type", "size"),
    [
        (None, MEDIA_TYPE, 10),
        ("tls@example.net", "text/html", 10),
        ("tls@example.net", MEDIA_TYPE, MAX_POST_BYTES + 1),
    ],
)
def test_nothing_but_a_report_is_posted(contact: str | None, content_type: str, size: int) -> None:
    made = Resolver.__new__(Resolver)  # wiring only: what it needs is set here
    made.config = msgspec.structs.replace(CONFIG, tls=Tls(reports=TlsReports(contact=contact)))
    made._context = object()
    link = Link()
    made._post(link, m.Post(7, "web.example", 0, "/", content_type, bytes(size)))  # type: ignore[arg-type]
    assert link.posted == [m.PostDone(7, "that is no report of this gateway")]
