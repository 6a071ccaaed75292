"""A web service as a table: what its replies mean, how a key is written, and what a hostile one can do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from certificates import Authority
from webserver import WebServer

from gatepost.config.pieces import values_of
from gatepost.config.schema import Source
from gatepost.config.sources import Server
from gatepost.lookup.http import MAX_BODY_BYTES, HttpQuery, open_http
from gatepost.lookup.named import new_named_context
from gatepost.lookup.source import Lost, QueryFailed

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def web(authority: Authority) -> Iterator[WebServer]:
    with WebServer({"dir.test": authority.issue("dir", ["DNS:dir.test"])}) as web:
        yield web


def ask(web: WebServer, authority: Authority, key: str, *, name: str = "dir.test", **settings: Any) -> str | None:
    """One question; the name leads to loopback."""
    source = Source(type="http", url=f"https://{name}:{web.port}/r/{{key}}?d={{domain}}", **settings)

    async def here(host: str) -> list[str]:
        return ["127.0.0.1"]

    async def run() -> str | None:
        context = new_named_context(name, authority.file.read_text())
        connection = await open_http(HttpQuery(source, b"secret"), Server(name, web.port, "tls"), here, context)
        try:
            return await connection.find(values_of(key))
        finally:
            await connection.close()

    return asyncio.run(run())


def answer(web: WebServer, status: int, body: bytes, **headers: str) -> None:
    web.answers["dir.test", "/r/a%40b.test?d=b.test"] = (status, {**JSON, **headers}, body)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"a": {"b": "x@y.test"}}', "x@y.test"), (200, b'{"a": {"b": ["x", "y"]}}', "x,y"), (200, b'{"a": {"b": true}}', ""),
        (200, b'{"a": {"b": null}}', None), (200, b'{"a": {"b": false}}', None), (200, b'{"a": {"b": []}}', None), (200, b'{"a": 1}', None),
        (200, b"[]", None), (404, b"<html>", None), (204, b"", None),
    ],
)  # fmt: skip
def test_what_a_reply_means(web: WebServer, authority: Authority, status: int, body: bytes, found: str | None) -> None:
    answer(web, status, body)
    assert ask(web, authority, "a@b.test", field="a.b") == found


@pytest.mark.parametrize(
    ("status", "body", "error", "why"),
    [
        (200, b'{"a": 5}', QueryFailed, "neither text"), (200, b"<html>", QueryFailed, "not JSON"), (301, b"", QueryFailed, "301"),
        (403, b"", QueryFailed, "403"), (500, b"", Lost, "500"), (429, b"", Lost, "429"), (200, b"[" * 60_000, QueryFailed, "not JSON"),
        (200, b" " * (MAX_BODY_BYTES + 1), QueryFailed, "more than 65536 octets"),
    ],
)  # fmt: skip
def test_what_is_no_answer(
    web: WebServer, authority: Authority, status: int, body: bytes, error: type[Exception], why: str
) -> None:
    answer(web, status, body, Location="https://elsewhere.test/")
    with pytest.raises(error, match=why):
        ask(web, authority, "a@b.test", field="a")


def test_a_key_stays_in_its_place(web: WebServer, authority: Authority) -> None:
    for key in ("../../admin?x=y#z@b.test", "a b&c=d@b.test", "z\u00fc\u20ac/@b.test"):
        path = f"/r/{quote(key, safe='')}?d=b.test"
        web.answers["dir.test", path] = (200, JSON, b"")
        assert ask(web, authority, key) == ""
        assert web.asked[-1].path == path and web.asked[-1].headers["Authorization"] == "Bearer secret"


def test_the_name_of_the_server_is_verified(web: WebServer, authority: Authority) -> None:
    with pytest.raises((Lost, ssl.SSLError), match="(?i)certificate"):
        ask(web, authority, "a@b.test", name="other.test")
    assert not web.asked
