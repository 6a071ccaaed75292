"""The self-test from outside in: what a stranger could try on the port, one connection for each question.

Every question is one that the gateway has to refuse, or a limit that it has to keep. Recipients of other domains are only ever asked for
with RCPT: no message follows, whatever the reply. The messages of the smuggling questions are addressed to our own postmaster, say in
their subject what they are, and must be refused.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator

from gatepost.config.schema import Config
from gatepost.selftest.forms import END_VARIANTS, FOREIGN, relay_forms, relay_senders
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING, Result
from gatepost.selftest.talk import SOURCE, Endpoint, Reply, Talk

EARLY_TRIES = 10
LARGEST_GROUP = 5000  # commands sent at once to reach a limit
SUBJECT = b"Subject: Gatepost self-test: this must never arrive\r\n\r\n"


class Outside:
    """Asks one endpoint of a running gateway."""

    def __init__(self, config: Config, endpoint: Endpoint) -> None:
        self.config = config
        self.endpoint = endpoint
        self.ours = next(name for name in config.domains if not name.startswith("."))
        self.foreign = next(name for name in FOREIGN if name not in config.domains)
        self.where = f"{endpoint[0]} port {endpoint[1]}"

    def run(self) -> Iterator[Result]:
        """All results; a connection that fails is a result too."""
        try:
            with self.talk() as talk:
                greeting = talk.greeting
        except OSError as error:
            yield Result(
                f"port ({self.where})", "greeting", FAILED, f"nobody answers: {error}", "is the gateway running?"
            )
            return
        good = greeting.code == 220
        yield Result(f"port ({self.where})", "greeting", OK if good else FAILED, str(greeting))
        if not good:
            return
        for question in (self._relay, self._senders, self._smuggling, self._order, self._limits, self._errors):
            try:
                yield from question()
            except OSError as error:
                name = question.__name__.strip("_")
                yield Result(f"{name} ({self.where})", "connection", FAILED, f"it broke: {error}", "see the events")

    def talk(self, first: bytes = b"") -> Talk:
        """A new conversation with this endpoint."""
        return Talk(self.endpoint, self.config.hostname, first=first)

    def _result(self, group: str, name: str, is_good: bool, detail: object, advice: str = "") -> Result:
        return Result(
            f"{group} ({self.where})", name, OK if is_good else FAILED, "" if is_good else str(detail), advice
        )

    # --- relaying ---------------------------------------------------------------------------------------------------

    def _may_relay(self) -> bool:
        source = ipaddress.ip_address(SOURCE if ":" not in self.endpoint[0] else self.endpoint[0])
        networks = [*self.config.relay.networks]
        for rule in getattr(self.config.relay, "rules", []):
            networks += rule.networks
        return any(source in ipaddress.ip_network(text) for text in networks)

    def _relay(self) -> Iterator[Result]:
        if self._may_relay():
            told = f"{SOURCE} lies in a network that may relay, so that this host cannot ask as a stranger"
            advice = f'write narrower networks, without {SOURCE}; "gatepost check" proves the rest'
            yield Result(f"relaying ({self.where})", "address forms", SKIPPED, told, advice)
            return
        for name, path in relay_forms(self.ours, self.config.hostname, self.foreign).items():
            yield self._foreign(f"recipient: {name}", f"selftest@{self.config.hostname}", path)

    def _senders(self) -> Iterator[Result]:
        if self._may_relay():
            return
        for name, path in relay_senders(self.ours, self.config.hostname, self.foreign).items():
            yield self._foreign(f"sender: {name}", path, f"victim@{self.foreign}")

    def _foreign(self, name: str, reverse_path: str, forward_path: str) -> Result:
        """Ask for a recipient elsewhere; never go on to DATA."""
        with self.talk() as talk:
            talk.begin()
            replies = [talk.ask(b"MAIL FROM:<" + reverse_path.encode() + b">")]
            if replies[0].code == 250:
                replies.append(talk.ask(b"RCPT TO:<" + forward_path.encode() + b">"))
            last = replies[-1]
            talk.send(b"RSET\r\nQUIT\r\n")
        if 400 <= last.code < 500:
            told = f"refused for the moment only: {last}"
            return Result(f"relaying ({self.where})", name, WARNING, told, "is the spool healthy? ask again later")
        is_refused = last.code >= 500 or last.code == 0
        return self._result(
            "relaying",
            name,
            is_refused,
            f"<{forward_path}> was answered {last}",
            "this is an open relay: stop the gateway",
        )

    # --- the end of data --------------------------------------------------------------------------------------------

    def _smuggling(self) -> Iterator[Result]:
        for name, end in END_VARIANTS.items():
            yield self._smuggle(name, end)

    def _smuggle(self, name: str, end: bytes) -> Result:
        postmaster = f"postmaster@{self.ours}".encode()
        second = b"MAIL FROM:<>\r\nRCPT TO:<" + postmaster + b">\r\nDATA\r\n" + SUBJECT + b"smuggled\r\n.\r\n"
        with self.talk() as talk:
            if (reply := self._open_transaction(talk, postmaster)).code != 354:
                return Result(f"end of data ({self.where})", name, SKIPPED, f"no message is taken now: {reply}")
            talk.send(SUBJECT + b"outer" + end + second)
            reply = talk.reply()
            closed = talk.is_closed()
        is_good = reply.code >= 500 and closed
        told = f"answered {reply}" + ("" if closed else ", and the session went on")
        advice = "is this host in smtp.repair_networks? repair is how messages are smuggled"
        return self._result("end of data", name, is_good, told, advice)

    def _open_transaction(self, talk: Talk, recipient: bytes) -> Reply:
        talk.begin()
        for line in (b"MAIL FROM:<>", b"RCPT TO:<" + recipient + b">"):
            reply = talk.ask(line)
            if reply.code != 250:
                return reply
        return talk.ask(b"DATA")

    # --- who talks out of turn --------------------------------------------------------------------------------------

    def _order(self) -> Iterator[Result]:
        group = f"order ({self.where})"
        early = "talking before the greeting"
        if self.config.smtp.greeting_delay_s <= 0:
            yield Result(group, early, SKIPPED, "smtp.greeting_delay_s is 0: nothing waits for it")
        elif (greeting := self._talk_early()) is not None:
            yield self._result("order", early, greeting.code != 220, greeting)
        else:
            yield Result(group, early, SKIPPED, "this host is too busy: it could not talk before the delay was over")
        hello = f"EHLO selftest.{self.config.hostname}\r\n".encode()
        yield self._violation("commands behind EHLO in one group", hello + b"MAIL FROM:<>\r\n")
        yield self._violation("HTTP on the SMTP port", b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<>\r\n")
        yield self._violation("TLS on the plain port", b"\x16\x03\x01\x02\x00\x01\x00\n\x01\xfc\x03\x03")
        with self.talk() as talk:
            talk.begin()
            talk.ask(b"MAIL FROM:<>")
            talk.ask(f"RCPT TO:<postmaster@{self.ours}>".encode())
            talk.send(b"DATA\r\n" + SUBJECT + b"x\r\n.\r\n")
            reply = talk.reply()
            yield self._result("order", "text before it was asked for", reply.code >= 500 and talk.is_closed(), reply)

    def _talk_early(self) -> Reply | None:
        """What was said to one who talked in time; None if this process was never quick enough.

        A gateway that was kept waiting between the two greets as well, so one greeting does not say that it always would.
        """
        greeting = None
        for _ in range(EARLY_TRIES):
            begun_s = time.monotonic()
            with self.talk(first=b"EHLO early.example\r\n") as talk:
                if talk.greeting.code != 220:
                    return talk.greeting
                if talk.first_sent_s - begun_s < self.config.smtp.greeting_delay_s:
                    greeting = talk.greeting
        return greeting

    def _violation(self, name: str, data: bytes) -> Result:
        with self.talk() as talk:
            talk.send(data)
            reply = talk.reply()
            return self._result("order", name, reply.code >= 500 and talk.is_closed(), reply)

    # --- limits -----------------------------------------------------------------------------------------------------

    def _limits(self) -> Iterator[Result]:
        limits = self.config.smtp
        yield self._single(
            "a message larger than max_message_bytes", f"MAIL FROM:<> SIZE={limits.max_message_bytes + 1}", 552
        )
        yield self._single("a line longer than max_command_bytes", "NOOP " + "x" * limits.max_command_bytes, 500)
        yield self._single("a local part of 65 octets", f"MAIL FROM:<{'x' * 65}@{self.ours}>", 501)
        yield self._single("a domain of 256 octets", f"MAIL FROM:<x@{'x.' * 127}xx>", 501)
        yield self._group("max_errors", limits.max_errors, b"BOGUS\r\n" * (limits.max_errors + 1), 421)
        yield self._group(
            "max_idle_commands", limits.max_idle_commands, b"NOOP\r\n" * (limits.max_idle_commands + 1), 421
        )
        recipient = f"RCPT TO:<postmaster@{self.ours}>\r\n".encode()
        many = b"MAIL FROM:<>\r\n" + recipient * (limits.max_recipients + 1)
        yield self._group("max_recipients", limits.max_recipients, many, 452)

    def _single(self, name: str, line: str, expected: int) -> Result:
        with self.talk() as talk:
            talk.begin()
            reply = talk.ask(line.encode())
            return self._result("limits", name, reply.code == expected, f"{expected} was expected, and {reply} came")

    def _group(self, name: str, limit: int, data: bytes, expected: int) -> Result:
        """Many commands; somewhere the reply must come that keeps the limit."""
        if limit > LARGEST_GROUP:
            return Result(f"limits ({self.where})", name, SKIPPED, f"{limit} is too many to ask for in a self-test")
        with self.talk() as talk:
            talk.begin()
            replies: list[Reply] = []
            for line in data.splitlines(keepends=True):  # one by one: pipelining may be switched off
                talk.send(line)
                replies.append(talk.reply())
                if replies[-1].code in (expected, 0):
                    break
            reached = replies[-1].code == expected
            return self._result(
                "limits", name, reached, f"{expected} was expected behind {limit}, and {replies[-1]} came"
            )

    # --- replies to mistakes ----------------------------------------------------------------------------------------

    def _errors(self) -> Iterator[Result]:
        asked: list[tuple[str, list[bytes], Callable[[Reply], bool]]] = [
            ("an unknown command", [b"BOGUS"], lambda r: r.code == 500 and r.text.startswith("5.5.")),
            ("RCPT before MAIL", [f"RCPT TO:<postmaster@{self.ours}>".encode()], lambda r: r.code == 503),
            ("DATA before RCPT", [b"MAIL FROM:<>", b"DATA"], lambda r: r.code in (503, 554)),
            ("a path without brackets' end", [b"MAIL FROM:<x"], lambda r: r.code == 501),
            ("VRFY tells nothing", [f"VRFY postmaster@{self.ours}".encode()], lambda r: r.code in (252, 502)),
            ("EXPN tells nothing", [b"EXPN staff"], lambda r: r.code in (252, 500, 502, 550)),
        ]
        if self.config.domains[self.ours].recipients is not None:
            nobody = f"RCPT TO:<no-such-person-{self.endpoint[1]}@{self.ours}>".encode()
            is_refused = [b"MAIL FROM:<>", nobody]
            asked.append(("an unknown recipient", is_refused, lambda r: r.code == 550 and r.text.startswith("5.1.1")))
        for name, lines, is_right in asked:
            with self.talk() as talk:
                talk.begin()
                replies = [talk.ask(line) for line in lines]
                yield self._result("replies", name, is_right(replies[-1]), replies[-1])
