"""What the server side of SMTP can be told: limits, switches, its name (the part of the configuration that it sees).

One object is shared by all sessions with the same rights; what follows from it (the EHLO reply, the tables of parameters)
is rendered once, when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gatepost.smtp.extensions import SWITCHES, Offer, build_offer
from gatepost.smtp.reply import Reply

if TYPE_CHECKING:
    from gatepost.config.schema import Config


class ServerSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ServerSession; sizes in octets. The fields below `repair` are not for the configuration."""

    hostname: str
    max_message_bytes: int = 50 * 1024 * 1024
    max_recipients: int = 1000
    max_command_bytes: int = 2048
    max_line_bytes: int = 998
    refuse_long_lines: bool = False
    max_header_bytes: int = 256 * 1024
    max_received_hops: int = 50
    max_errors: int = 10
    max_commands: int = 50_000
    max_idle_commands: int = 50
    max_transactions: int = 10_000
    pipelining: bool = True  # from here on a switch for each extension, see `extensions.py`
    size: bool = True
    enhancedstatuscodes: bool = True
    chunking: bool = True
    smtputf8: bool = True
    eightbitmime: bool = True
    binarymime: bool = False
    limits: bool = False
    requiretls: bool = False
    deliverby: bool = False
    mt_priority: bool = False
    future_release: bool = False
    max_hold_s: int = 7 * 86400  # of future_release
    dsn: bool = False  # those that are off here need an owner who keeps what is asked for
    mechanisms: tuple[str, ...] = ()  # of AUTH, that are offered on this connection as it is
    mechanisms_in_tls: tuple[str, ...] = ()  # more that TLS would bring: 538 instead of 504
    max_auth_failures: int = 3
    starttls: bool = False  # offered; not inside TLS
    is_secured: bool = False  # these are the settings inside TLS
    require_tls: bool = False  # RFC 3207 4: 530 to everything but EHLO, STARTTLS, NOOP and QUIT
    xclient: bool = False  # this client may say for whom it speaks
    xforward: bool = False  # the same, for the log
    lmtp: bool = False  # RFC 2033; without CHUNKING, whose replies are one for a chunk
    repair: bool = False  # bare CR and bare LF in data become CRLF, a bare LF ends a command
    refuse_early_talkers: bool = True
    max_swallowed_bytes: int = 10 * 1024 * 1024  # over max_message_bytes: read and refused with 552; more: closed
    max_auth_bytes: int = 12288  # of a line of AUTH, with its CRLF (RFC 4954 4)
    max_buffered_bytes: int = 1024 * 1024  # of input kept while an event is unanswered
    offer: Offer = Offer("", b"", {}, {}, frozenset())  # the fields from here on are derived, whatever was given
    greeting: bytes = b""
    hello: bytes = b""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "offer", build_offer(self))
        msgspec.structs.force_setattr(
            self, "greeting", Reply(220, "", f"{self.hostname} {'LMTP' if self.lmtp else 'ESMTP'} Gatepost").wire()
        )
        msgspec.structs.force_setattr(self, "hello", Reply(250, "", self.hostname).wire())

    @classmethod
    def from_config(cls, config: Config, *, repair: bool = False, **more: Any) -> ServerSettings:
        """The settings for clients of this configuration; `repair` for those of `repair_networks`; `more` fields by name."""
        smtp = config.smtp
        return cls(
            hostname=smtp.banner_name or config.hostname,
            max_message_bytes=smtp.max_message_bytes,
            max_recipients=smtp.max_recipients,
            max_command_bytes=smtp.max_command_bytes,
            max_line_bytes=smtp.max_line_bytes,
            refuse_long_lines=smtp.long_lines == "refuse",
            max_header_bytes=smtp.max_header_bytes,
            max_received_hops=smtp.max_received_hops,
            max_errors=smtp.max_errors,
            max_commands=smtp.max_commands,
            max_idle_commands=smtp.max_idle_commands,
            max_transactions=smtp.max_transactions,
            max_hold_s=smtp.max_hold_s,
            repair=repair,
            **({name: getattr(smtp, name) for name in SWITCHES} | more),
        )
