"""An HTTPS client for a role without files: GET of a small text, POST of a small body, on aiohttp.

Addresses come from our own stub resolver and go to the loop as numbers: neither getaddrinfo nor a thread is used. Certificates are
verified with the context that is given, for the name that is asked. No redirect is followed, no cookie and no answer is kept, nothing is
decompressed, a connection is used once. Every answer is bounded in octets and in time. RFC 9110; RFC 8461 3.3, RFC 8460 5.4.

Imported only where it is configured: it costs 11 MB. `warm_up` before the lock-in uses everything once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from gatepost.ipc.messages import LookupDone

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest

CONNECT_TIMEOUT_S = 10.0
MAX_ADDRESSES = 6  # tried of one host
MAX_HEADER_BYTES = 8190
MAX_CONNECTIONS = 40

_HOST = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*", re.IGNORECASE
)
_PATH = re.compile(r"/[\x21-\x7e]{0,2000}")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Query = Callable[[str, str], Awaitable[LookupDone]]


class HttpsError(Exception):
    """No good answer. `kind` is "dns", "connect", "certificate", "timeout", "http" or "size"."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Answer(NamedTuple):
    """What a server said; `content_type` without its parameters, in lower case."""

    status: int
    content_type: str
    body: bytes


class HttpsClient:
    """`query(kind, name)` asks the DNS; `any_address` lets it connect to this host itself, which only tests want."""

    def __init__(self, query: Query, context: ssl.SSLContext, *, port: int = 443, any_address: bool = False) -> None:
        self._query = query
        self._context = context
        self._port = port
        self._any_address = any_address
        self._session: aiohttp.ClientSession | None = None

    async def get(self, host: str, path: str, *, limit_bytes: int, timeout_s: float) -> Answer:
        """GET https://host/path; raises HttpsError, also for a body over the limit."""
        return await self._ask("GET", self._url(host, self._port, path), None, {}, limit_bytes, timeout_s)

    async def post(
        self,
        host: str,
        port: int,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        limit_bytes: int,
        timeout_s: float,
    ) -> Answer:
        """POST to https://host:port/path; port 0 is the usual one."""
        return await self._ask("POST", self._url(host, port or self._port, path), body, headers, limit_bytes, timeout_s)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @staticmethod
    def _url(host: str, port: int, path: str) -> Any:
        """Of nothing but a host name, a port and a path: what others say must not become another part of it."""
        if not _HOST.fullmatch(host) or len(host) > 253 or not 0 < port < 65536 or not _PATH.fullmatch(path):
            raise HttpsError("http", "it is not the name of a web server")
        where = host if port == 443 else f"{host}:{port}"
        return f"https://{where}{path}"

    async def _ask(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], limit_bytes: int, timeout_s: float
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                session = self._session or self._begin()
                async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                        raise HttpsError("http", "the answer is compressed, which was not asked for")
                    content = await _read(response.content, limit_bytes)
                    return Answer(response.status, response.content_type.lower(), content)
        except TimeoutError:
            raise HttpsError("timeout", f"no answer within {timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise HttpsError("certificate", error.verify_message) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise HttpsError("http", _plain(error)) from None

    def _begin(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=_Connector(self._addresses, self._context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "gatepost", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # the whole is timed by us
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        return self._session

    async def _addresses(self, host: str) -> list[str]:
        answers = await asyncio.gather(self._query("A", host), self._query("AAAA", host))
        found = [address for done in answers if done.status == "ok" for address in done.records]
        usable = [address for address in found if self._any_address or is_public(address)]
        if not usable:
            failed = next((done.reason for done in answers if done.status == "tempfail"), "")
            problem = "has no address that can be used" if found or not failed else f"cannot be looked up: {failed}"
            raise HttpsError("dns", f"{host} {problem}")
        return usable[:MAX_ADDRESSES]


class _Connector(aiohttp.BaseConnector):
    """Connections to addresses of ours, TLS to the name of the URL."""

    def __init__(self, addresses: Callable[[str], Awaitable[list[str]]], context: ssl.SSLContext) -> None:
        super().__init__(force_close=True, limit=MAX_CONNECTIONS)
        self._addresses_of = addresses
        self._context = context

    async def _create_connection(self, req: ClientRequest, traces: Any, timeout: Any) -> Any:
        host, port = req.url.raw_host or "", req.url.port or 443
        last = "no address"
        for address in await self._addresses_of(host):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, protocol = await asyncio.get_running_loop().create_connection(
                        self._factory, address, port, ssl=self._context, server_hostname=host
                    )
            except ssl.SSLCertVerificationError as error:
                raise HttpsError("certificate", error.verify_message) from None
            except (TimeoutError, OSError) as error:
                last = f"{address}: {_plain(error)}"
            else:
                return protocol
        raise HttpsError("connect", f"no connection to {host}: {last}")


async def _read(stream: aiohttp.StreamReader, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await stream.readany():
        size += len(piece)
        if size > limit_bytes:
            raise HttpsError("size", f"the answer has more than {limit_bytes} octets")
        pieces.append(piece)
    return b"".join(pieces)


def is_public(address: str) -> bool:
    """Whether the address is one of the internet: nobody there has us fetch from this host, its link, or inside networks."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64 or int(ip) >> 32 == 0:  # RFC 6052; RFC 4291 2.5.5.1
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _plain(error: Exception) -> str:
    """An error in words without controls."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    text = str(getattr(error, "strerror", "") or error) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


async def warm_up() -> None:
    """One request over a socket pair, so that whatever is loaded late is loaded."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()

    class Pair(aiohttp.BaseConnector):
        async def _create_connection(self, req: ClientRequest, traces: Any, timeout: Any) -> Any:
            _, protocol = await loop.create_connection(self._factory, sock=ours)
            return protocol

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    serving = asyncio.ensure_future(serve())
    async with (
        aiohttp.ClientSession(connector=Pair(force_close=True), cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.post("http://xn--bcher-kva.example/", data=b"x", allow_redirects=False) as response,
    ):
        await _read(response.content, 10)
    await serving
