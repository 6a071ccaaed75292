"""An authority for DNS in a thread, for a gateway that asks it: `with Names(zones) as names:` then `names.address`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Self

import dns.message
import dns.rcode
from net.dns_authority import DnsAuthority, Handler, from_zone

SOA = "@ 300 SOA ns hostmaster 1 2 3 4 60\n@ 300 NS ns\n"


class Names:
    """Answers for the zones given (origin without a dot -> text); SERVFAIL for those in `broken`, NXDOMAIN for all others."""

    def __init__(self, zones: Mapping[str, str]) -> None:
        self.broken: set[str] = set()
        self._zones: dict[str, Handler] = {name: from_zone(f"{name}.", SOA + text) for name, text in zones.items()}
        self._authority = DnsAuthority(self._answer)

    @property
    def address(self) -> str:
        return self._authority.address

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Name and kind of each question so far."""
        return [(name, kind) for _, name, kind in self._authority.seen]

    def _answer(self, query: dns.message.Message, transport: str) -> dns.message.Message:
        name = query.question[0].name.to_text(True).lower()
        origin = next((zone for zone in self._zones if name == zone or name.endswith("." + zone)), None)
        if origin is not None and origin not in self.broken:
            return self._zones[origin](query, transport)
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.SERVFAIL if origin else dns.rcode.NXDOMAIN)
        return response

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="names", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._authority.__aenter__(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._authority.__aexit__(None, None, None), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
