"""A connection to an LDAP server that searches (RFC 4511, 4513): simple bind, StartTLS or TLS, one search at a time.

What goes over the wire is `ldapwire.py`; this is sockets, on the loop. Nothing that came before TLS is believed, and a password goes
to no server whose certificate has not been verified, unless the configuration says `tls = "none"`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from gatepost.config.ldapfilter import parse_filter
from gatepost.config.pieces import parse_pieces
from gatepost.config.schema import Source
from gatepost.config.sources import Server
from gatepost.lookup import ldapwire as wire
from gatepost.lookup.source import (
    LIST_LIMIT_S,
    MAX_VALUE_CHARACTERS,
    MAX_VALUES,
    Lost,
    QueryFailed,
    join_values,
    too_many,
)

MAX_ENTRIES = 16
PAGE_ENTRIES = 500  # OpenLDAP gives no more at once where nobody says otherwise
_DN_SPECIAL = re.compile(r'[,+"\\<>;=\0]|^[ #]| $')


class LdapSearch:
    """What one source is asked for."""

    def __init__(self, source: Source, password: bytes, is_list: bool = False) -> None:
        """`is_list`: the values of all entries are the answer, not those of the first."""
        self.is_list = is_list and bool(source.attribute)
        self.name = source.user
        self.password = password
        self.scope = wire.SCOPES[source.scope]
        self.filter = parse_filter(source.filter)
        self.base = parse_pieces(source.base)
        self.attribute = source.attribute.lower()
        self.limit_s = max(1, int(source.timeout_s))
        self.list_filter = parse_filter(source.list_query) if source.list_query else None
        self.list_attribute = source.list_field.lower()

    def build_page(self, number: int, cookie: bytes) -> bytes:
        """The search for one page of everything."""
        assert self.list_filter is not None
        return wire.build_search(
            number,
            self.base.fill({}),
            self.scope,
            wire.encode_filter(self.list_filter, {}),
            [self.list_attribute],
            most=0,
            limit_s=int(LIST_LIMIT_S),
            page=(PAGE_ENTRIES, cookie),
        )

    def build(self, number: int, values: Mapping[str, str]) -> bytes:
        """The search for a key."""
        return wire.build_search(
            number,
            self.base.fill(values, escape_dn),
            self.scope,
            wire.encode_filter(self.filter, values),
            [self.attribute] if self.attribute else [],
            most=MAX_VALUES if self.is_list else MAX_ENTRIES,
            limit_s=self.limit_s,
        )


def escape_dn(value: str) -> str:
    """A value within a distinguished name (RFC 4514 2.4)."""
    return _DN_SPECIAL.sub(lambda match: "".join(f"\\{octet:02x}" for octet in match[0].encode()), value)


class LdapConnection:
    """An open one, bound; made by `open_ldap`."""

    def __init__(self, search: LdapSearch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._search = search
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._data = b""

    async def bind(self) -> None:
        """Say who we are; raises QueryFailed."""
        search = self._search
        response = await self._ask(wire.build_bind(self._next(), search.name, search.password), wire.BIND_RESPONSE)
        _check(response.result, "bind")

    async def find(self, values: Mapping[str, str]) -> str | None:
        """See `source.Connection`."""
        number = self._next()
        await self._send(self._search.build(number, values))
        is_list = self._search.is_list
        found: list[str] = []
        size = 0
        while True:
            response = await self._receive(number)
            if response.kind == wire.ENTRY and (is_list or not found):
                new = self._values(response.values or {})
                size += sum(map(len, new))
                if size > MAX_VALUE_CHARACTERS:
                    raise QueryFailed(f"the values have more than {MAX_VALUE_CHARACTERS} characters")
                found += new
            elif response.kind == wire.DONE:
                assert response.result is not None
                code = response.result.code
                if code == wire.NO_SUCH_OBJECT and self._search.base.places:
                    return None
                if not (code == wire.SIZE_LIMIT_EXCEEDED and found and not is_list):
                    _check(response.result, "search")
                return join_values(found) if found else None

    async def list_all(self, most: int) -> list[str]:
        """See `source.Connection`. By pages, since servers give no more than some hundred entries at once."""
        found: list[str] = []
        cookie = b""
        while True:
            number = self._next()
            await self._send(self._search.build_page(number, cookie))
            while (response := await self._receive(number)).kind != wire.DONE:
                if response.kind == wire.ENTRY:
                    found += _texts((response.values or {}).get(self._search.list_attribute, ()))
                if len(found) > most:
                    raise too_many(most)
            _check(response.result, "search")
            cookie = response.cookie
            if not cookie:
                return found

    def abort(self) -> None:
        """See `source.Connection`."""
        self._writer.transport.abort()

    def _values(self, values: dict[str, list[bytes]]) -> list[str]:
        """Of one entry; one without the attribute is no answer."""
        if not self._search.attribute:
            return [""]
        try:
            return [value.decode() for value in values.get(self._search.attribute, ())]
        except UnicodeDecodeError:
            raise QueryFailed(f"a value of {self._search.attribute} is not UTF-8") from None

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _ask(self, request: bytes, kind: int) -> wire.Response:
        await self._send(request)
        response = await self._receive(self._number)
        if response.kind != kind:
            raise Lost(f"an answer of the kind {response.kind:#x} was not asked for")
        return response

    async def _send(self, request: bytes) -> None:
        self._writer.write(request)
        await self._writer.drain()

    async def _receive(self, number: int) -> wire.Response:
        """The next message about `number`; a notice of disconnection (RFC 4511 4.4.1) ends the connection."""
        while True:
            parsed = _parse(self._data)
            if parsed is None:
                more = await self._reader.read(65536)
                if not more:
                    raise Lost("the server closed the connection")
                self._data += more
                continue
            response, used = parsed
            self._data = self._data[used:]
            if response.number == number:
                return response
            if response.number == 0:
                raise Lost(f"the server ends: {response.result.words if response.result else 'no reason'}")


async def open_ldap(
    search: LdapSearch, server: Server, addresses: list[str], context: ssl.SSLContext | None
) -> LdapConnection:
    """Connect to the first address that takes us, secure it, bind. Raises OSError, Lost, QueryFailed."""
    loop = asyncio.get_running_loop()
    sock = await _connect(loop, addresses, server.port)
    try:
        if server.security == "starttls":
            await _start_tls(loop, sock)
        options: dict[str, Any] = {"ssl": context, "server_hostname": server.host} if server.security != "none" else {}
        reader, writer = await asyncio.open_connection(sock=sock, **options)
    except BaseException:
        sock.close()
        raise
    connection = LdapConnection(search, reader, writer)
    try:
        if search.name:
            await connection.bind()
    except BaseException:
        connection.abort()
        raise
    return connection


async def _connect(loop: asyncio.AbstractEventLoop, addresses: list[str], port: int) -> socket.socket:
    last: OSError = OSError("no address")
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (address, port))
        except OSError as error:
            last = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


async def _start_tls(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Ask for TLS on the plain socket; an octet behind the answer would count as secured, so there may be none."""
    await loop.sock_sendall(sock, wire.build_start_tls(1))
    data = b""
    while (parsed := _parse(data)) is None:
        more = await loop.sock_recv(sock, 4096)
        if not more:
            raise Lost("the server closed the connection")
        data += more
    response, used = parsed
    if used != len(data) or response.number != 1 or response.kind != wire.EXTENDED_RESPONSE:
        raise Lost("the server said more than that TLS may begin")
    _check(response.result, "StartTLS")


def _texts(values: Iterable[bytes]) -> list[str]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise QueryFailed("a value in the list is not UTF-8") from None


def _parse(data: bytes) -> tuple[wire.Response, int] | None:
    try:
        return wire.parse_response(data)
    except wire.LdapError as error:
        raise Lost(str(error)) from None


def _check(result: wire.Result | None, what: str) -> None:
    if result is None:
        raise Lost(f"{what}: no result")
    if result.code != wire.SUCCESS:
        if wire.is_passing(result.code):
            raise Lost(f"{what}: {result.words}")
        raise QueryFailed(f"{what}: {result.words}")
