"""A web service that answers with JSON, by aiohttp: GET of a URL with the key in it, no redirects, bounded in octets and time.

200 is that there is such a key, 404 and 204 that there is none; anything else is no answer. With `field` the answer is the value there:
text, a list of texts, true for one without value; null, false, an empty list, or no such field are that there is none. RFC 9110, 8259.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import yarl
from aiohttp.abc import AbstractResolver

from gatepost.config.pieces import parse_pieces
from gatepost.config.schema import Source
from gatepost.config.sources import Server
from gatepost.lookup.source import Lost, QueryFailed, too_many
from gatepost.net import https

MAX_BODY_BYTES = 64 * 1024
MAX_LIST_BYTES = 32 * 1024 * 1024
MAX_HEADER_BYTES = 8190

_CLOSING: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

Addresses = Callable[[str], Awaitable[list[str]]]


class HttpQuery:
    """What one source is asked for."""

    def __init__(self, source: Source, password: bytes, is_list: bool = False) -> None:
        """`is_list` changes nothing: a list of texts is one answer for every use."""
        self.url = parse_pieces(source.url)
        self.field = tuple(source.field.split(".")) if source.field else ()
        self.list_url = source.list_query
        self.list_field = tuple(source.list_field.split(".")) if source.list_field else ()
        self.headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "gatepost"}
        secret = password.decode()
        if source.user:
            self.headers["Authorization"] = aiohttp.BasicAuth(source.user, secret, "utf-8").encode()
        elif secret:
            self.headers["Authorization"] = f"Bearer {secret}"
        self.most = source.max_connections

    def value(self, body: bytes) -> str | None:
        """What a reply says; raises QueryFailed."""
        if not self.field:
            return ""
        found = _at(body, self.field)
        if found is None or found is False or found == []:
            return None
        if found is True:
            return ""
        texts = found if isinstance(found, list) else [found]
        if not all(isinstance(text, str) for text in texts):
            raise QueryFailed(f"{'.'.join(self.field)} is neither text nor a list of texts")
        return ",".join(texts)

    def listed(self, body: bytes, most: int) -> list[str]:
        """The recipients of a reply to the list query: a list of texts; raises QueryFailed."""
        found = _at(body, self.list_field)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            where = ".".join(self.list_field) or "the reply"
            raise QueryFailed(f"{where} is no list of texts")
        if len(found) > most:
            raise too_many(most)
        return found


def _at(body: bytes, field: tuple[str, ...]) -> Any:
    """What stands at a place in the JSON; None: there is no such place."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise QueryFailed("the reply is not JSON") from None
    for name in field:
        found = found.get(name) if isinstance(found, dict) else None
    return found


class HttpConnection:
    """The connections of aiohttp's pool stand behind it; made by `open_http`."""

    def __init__(self, query: HttpQuery, session: aiohttp.ClientSession) -> None:
        self._query = query
        self._session = session

    async def find(self, values: Mapping[str, str]) -> str | None:
        """See `source.Connection`."""
        body = await self._get(self.url(values), MAX_BODY_BYTES)
        return None if body is None else self._query.value(body)

    async def list_all(self, most: int) -> list[str]:
        """See `source.Connection`."""
        body = await self._get(yarl.URL(self._query.list_url, encoded=True), MAX_LIST_BYTES)
        if body is None:
            raise QueryFailed("there is no list")
        return self._query.listed(body, most)

    async def _get(self, url: yarl.URL, limit_bytes: int) -> bytes | None:
        """The body of a reply; None: there is no such thing."""
        try:
            async with self._session.get(url, headers=self._query.headers, allow_redirects=False) as response:
                if response.status in (204, 404):
                    return None
                if response.status >= 500 or response.status == 429:
                    raise Lost(f"the server answers {response.status}")
                if response.status != 200:
                    raise QueryFailed(f"the server answers {response.status}")
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise QueryFailed("the reply is compressed, which was not asked for")
                return await _read(response.content, limit_bytes)
        except aiohttp.ClientError as error:
            raise Lost(str(error)) from None

    def url(self, values: Mapping[str, str]) -> yarl.URL:
        """What is asked for a key."""
        return yarl.URL(self._query.url.fill(values, _percent), encoded=True)

    async def close(self) -> None:
        """Close it and wait until it is."""
        await self._session.close()

    def abort(self) -> None:
        """See `source.Connection`."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._session.close())
        _CLOSING.add(task)
        task.add_done_callback(_CLOSING.discard)


class _Resolver(AbstractResolver):
    """Addresses of our own stub resolver."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[Any]:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for address in await self._addresses(host)
        ]

    async def close(self) -> None:
        return None


async def open_http(
    query: HttpQuery, server: Server, addresses: Addresses, context: ssl.SSLContext | None
) -> HttpConnection:
    """A session for one question at a time; what it connects to is looked up then."""
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(addresses), use_dns_cache=False, limit=1, ssl=context if context is not None else True
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),  # timed by the source
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    return HttpConnection(query, session)


async def _read(stream: aiohttp.StreamReader, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await stream.readany():
        size += len(piece)
        if size > limit_bytes:
            raise QueryFailed(f"the reply has more than {limit_bytes} octets")
        pieces.append(piece)
    return b"".join(pieces)


def _percent(value: str) -> str:
    """A value in a URL (RFC 3986 2.1): every octet that is not unreserved."""
    return quote(value, safe="")


async def warm_up(query: HttpQuery) -> None:
    """One request over a socket pair, and our own classes, so that whatever is loaded late is loaded; no thread is begun."""
    await https.warm_up()
    connection = await open_http(query, Server("", 0, "none"), _nowhere, None)
    connection.url({"key": "b\u00fc@b\u00fc", "local": "b", "domain": "b"})
    await connection.close()


async def _nowhere(host: str) -> list[str]:
    return []
