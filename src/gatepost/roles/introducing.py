"""XCLIENT and XFORWARD in a receiver: who may say who the client is, and what follows from it.

After XCLIENT the session is the named client's: its address decides every right, limit and check, and nothing of the proxy's own (address,
certificate, login) counts, also of TLS that begins afterwards. That client cannot name another: a connection has one. A login that the proxy names counts only with `smtp.xclient_login`, and only of a user of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gatepost.config.schema import Smtp
from gatepost.net.proxy_in import NOBODY
from gatepost.policy.relay import AddressSet
from gatepost.smtp.events import Forwarded, Introduced
from gatepost.smtp.reply import Reply, constant
from gatepost.smtp.settings import ServerSettings

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn
    from gatepost.roles.receiver import Receiver

NO_SUCH_USER = constant(550, "7.0", "The user that LOGIN names does not exist here")


class Introducing:
    """One for a receiver."""

    def __init__(self, host: Receiver, limits: Smtp) -> None:
        self._host = host
        self._clients = AddressSet(limits.xclient_from)
        self._forwards = AddressSet(limits.xforward_from)
        self._takes_login = limits.xclient_login
        self._made: dict[tuple[int, bool, bool], ServerSettings] = {}
        self.is_used = bool(limits.xclient_from or limits.xforward_from)

    def extend(self, settings: ServerSettings, connection: SmtpIn) -> ServerSettings:
        """Settings of a session, with the verbs that the host it comes from may use.

        Once a client is named the session is that one's, and says nothing more of this kind: a proxy may pass on what it says.
        """
        address = connection.address
        if connection.introducer not in ("", address):
            return settings
        xclient, xforward = address in self._clients, address in self._forwards
        if not (xclient or xforward):
            return settings
        key = (id(settings), xclient, xforward)  # settings live as long as the receiver
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = msgspec.structs.replace(settings, xclient=xclient, xforward=xforward)
        return made

    def decide(self, connection: SmtpIn, event: Introduced) -> Reply | None:
        """XCLIENT; None: the session goes on as the named client's. Raises NeedsAnswer, and is then called again."""
        said = event.attributes
        login = (said.get("LOGIN") or "") if self._takes_login else ""
        if login and not self._host.submitting.knows(login):
            return NO_SUCH_USER
        if connection.wait is None:  # else it was done already
            refusal = self._become(connection, said, login)
            if refusal is not None:
                return refusal
        return self._host.judge(connection)

    def _become(self, connection: SmtpIn, said: dict[str, str | None], login: str) -> Reply | None:
        host = self._host
        introducer = connection.introducer or connection.address
        address = (said["ADDR"] or NOBODY) if "ADDR" in said else connection.address
        refusal = host.readmit(connection, address, said.get("DESTADDR") or connection.local_address)
        connection.introducer = introducer
        session = connection.session
        if session.security is not None:
            session.security = msgspec.structs.replace(session.security, certificate_user="")
        session.settings = host.securing.settings_of(connection, secured=session.settings.is_secured)
        connection.helo = connection.facts.helo = said.get("HELO") or ""
        if login:
            host.submitting.introduce(connection, login)
        host.event(
            "introduced",
            session=connection.session_id,
            address=address,
            proxy=introducer,
            name=said.get("NAME") or "",
            helo=connection.helo,
            user=login,
        )
        return refusal

    def note(self, connection: SmtpIn, event: Forwarded) -> None:
        """XFORWARD: for the log."""
        said = {name.lower(): value or "" for name, value in event.attributes.items()}
        self._host.event(
            "forwarded",
            session=connection.session_id,
            address=said.get("addr", ""),
            proxy=connection.address,
            name=said.get("name", ""),
            helo=said.get("helo", ""),
            ident=said.get("ident", ""),
            source=said.get("source", ""),
        )
