"""A session that is not there: the sans-IO SMTP session and the engine, wired as a receiver wires them, without any effect.

What comes out is the conversation octet for octet as a client would have it, and an explanation of each recipient. Not asked here: what
only the running gateway knows (rates, limits of connections, the masquerade guard, the queue's health), and passwords.
"""

from __future__ import annotations

import time

import msgspec

from gatepost.cli.asked import AskedAnswers
from gatepost.cli.binding import Binding
from gatepost.cli.rewriting import Preview, prepare, preview_end, rewrite_reverse_path
from gatepost.config.authvalues import offered_mechanisms
from gatepost.config.listening import groups_of_user
from gatepost.config.schema import Config
from gatepost.model import Address, TlsPeer
from gatepost.policy.engine import Engine, Facts, Phase
from gatepost.policy.explain import Explainer, Explanation
from gatepost.policy.localusers import LOCAL_PREFIX
from gatepost.policy.relay import ClientCertificate
from gatepost.policy.rewriting import split_header
from gatepost.policy.verdict import Verdict
from gatepost.smtp.events import Body, Hello, Mail, Rcpt, Violation
from gatepost.smtp.reply import Reply
from gatepost.smtp.server import ServerSession
from gatepost.smtp.settings import ServerSettings

SHOWN_TEXT_LINES = 3
LATER = Reply(451, "3.0", "The message cannot be rewritten at the moment; try again later")
QUEUED = Reply(250, "0.0", "Queued as (nothing is queued: this is an explanation)")


class Visit(msgspec.Struct, kw_only=True):
    """What is known of a client."""

    client: str
    helo: str
    reverse_path: str
    recipients: list[str]
    local: str = ""
    identity: str = ""
    certificate: str = ""
    tls_bits: int = 0  # 0: no TLS
    names: tuple[str, ...] | None = None  # by DNS; None: the gateway is asked
    content: bytes | None = None
    session_id: str = "EXPLAIN"
    now_s: float = 0.0


class DryRun:
    """Plays one visit; `conversation` and `explanations` hold what came of it."""

    def __init__(self, config: Config, engine: Engine | None = None) -> None:
        answers = AskedAnswers(config)
        self._engine = engine or Engine(config, answers=answers)
        self._explainer = Explainer(config, self._engine, answers)
        self._certificates = config.relay.certificates
        self._config = config
        self._binding = Binding(config, "")
        self.preview = Preview()
        note = prepare(self._engine, config)
        if note:
            self.preview.notes.append(note)
        self._reverse_path = ""
        self._answer_to_text = QUEUED
        self.conversation: list[str] = []
        self.explanations: list[Explanation] = []

    def play(self, visit: Visit) -> None:
        """The whole session, up to the reply to the message if there is one; raises NoSuchUser."""
        self._binding = Binding(self._config, visit.identity)
        facts = self.facts_of(visit)
        session = ServerSession(self._settings_of(visit), visit.session_id)
        verdict = self._engine.decide(Phase.CONNECT, facts)
        session.greet(
            Reply(554 if verdict.code >= 500 else 421, verdict.detail, verdict.text) if verdict.code else None
        )
        self._hear(session)
        commands = [f"EHLO {visit.helo}", f"MAIL FROM:<{visit.reverse_path}>"]
        commands += [f"RCPT TO:<{recipient}>" for recipient in visit.recipients]
        for command in commands:
            if session.closing:
                return
            self._say(session, facts, command.encode("utf-8", "surrogateescape") + b"\r\n")
        taken = [one for one in self.explanations if one.accepted]
        rewriting, fault = self._engine.rewriting, ""
        if rewriting is not None and taken and not session.closing:
            domains = [(one.forward_path or one.recipient).rpartition("@")[2].lower() for one in taken]
            fault = preview_end(self.preview, rewriting, facts, self._reverse_path, domains, visit.content)
        if fault:
            self.preview.notes.append(f"header: the message would be put off (451 4.3.0): {fault}")
            self._answer_to_text = LATER
        if visit.content is not None and any(one.accepted for one in self.explanations) and not session.closing:
            self._say(session, facts, b"DATA\r\n")
            self._answer_to_text = _reply(self._binding.header(split_header(visit.content)[0])) or self._answer_to_text
            self._send(session, facts, visit.content)

    def _settings_of(self, visit: Visit) -> ServerSettings:
        """What is offered: on `listen`, for a user who cannot log in there on a submission listener, for one of this host on its socket."""
        config, is_local = self._config, visit.identity.startswith(LOCAL_PREFIX)
        is_submission = is_local or bool(visit.identity) and not config.auth.on_edge
        if is_local:
            return ServerSettings.from_config(config, future_release=config.smtp.future_release)
        has_tls = bool(config.tls.certificates)
        secured = bool(visit.tls_bits) or is_submission and has_tls
        return ServerSettings.from_config(
            config,
            future_release=config.smtp.future_release and is_submission,
            starttls=has_tls and not secured,
            is_secured=secured,
            require_tls=config.tls.require and has_tls and not secured,
            mechanisms=offered_mechanisms(
                config.auth,
                "submission" if is_submission else "edge",
                secured=secured,
                asks_certificate=config.tls.client_certificates and bool(config.relay.certificates),
            ),
        )

    def facts_of(self, visit: Visit) -> Facts:
        """The facts of a visit as a receiver would have them."""
        facts = self._engine.facts_of(visit.client, visit.local, visit.session_id)
        facts.identity, facts.certificate = visit.identity, visit.certificate
        facts.client_names = visit.names
        if visit.tls_bits:
            name = visit.certificate
            facts.tls = TlsPeer(visit.tls_bits, bool(name), bool(name), name, "", "", (name.lower(),) if name else ())
        facts.now_s = visit.now_s or time.time()
        if visit.identity:
            self._engine.recall(facts, visit.identity, groups_of_user)
        elif visit.certificate and facts.client_permit is None and self._is_listed(visit.certificate):
            facts.client_permit = ClientCertificate(visit.certificate)
        return facts

    def _is_listed(self, name: str) -> bool:
        """Whether `relay.certificates` gives this name a right by itself (a fingerprint is not known here)."""
        below = "*." + name.partition(".")[2]
        return any(not row.fingerprints and (name in row.names or below in row.names) for row in self._certificates)

    def _say(self, session: ServerSession, facts: Facts, line: bytes) -> None:
        self.conversation.append("C: " + line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        session.feed(line)
        self._advance(session, facts)
        self._hear(session)

    def _send(self, session: ServerSession, facts: Facts, content: bytes) -> None:
        if session.waiting.name != "DATA":
            return
        lines = content.split(b"\r\n")
        shown = [line.decode("utf-8", "backslashreplace") for line in lines[:SHOWN_TEXT_LINES]]
        self.conversation += [f"C: {line}" for line in shown]
        self.conversation.append(f"C: ... ({len(content)} octets)")
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        session.feed(
            (b"." if stuffed[:1] == b"." else b"") + stuffed + (b"" if stuffed[-2:] == b"\r\n" else b"\r\n") + b".\r\n"
        )
        self._advance(session, facts)
        self._hear(session)

    def _hear(self, session: ServerSession) -> None:
        for line in session.take_output().decode("ascii", "replace").splitlines():
            self.conversation.append("S: " + line)

    def _advance(self, session: ServerSession, facts: Facts) -> None:
        while (event := session.next_event()) is not None:
            if not event.needs_answer or isinstance(event, Violation):
                continue
            session.answer(self._answer(event, facts))

    def _answer(self, event: object, facts: Facts) -> Reply | None:
        if isinstance(event, Hello):
            facts.helo = event.name
            return _reply(self._engine.decide(Phase.HELO, facts))
        if isinstance(event, Mail):
            facts.reverse_path = event.reverse_path.text if event.reverse_path is not None else ""
            return (
                _reply(self._binding.mail(event.reverse_path))
                or _reply(self._engine.decide(Phase.MAIL, facts))
                or self._mail(facts, event)
            )
        if isinstance(event, Rcpt):
            return self._rcpt(facts, event.forward_path)
        if isinstance(event, Body):
            return self._answer_to_text
        return None

    def _mail(self, facts: Facts, event: Mail) -> Reply | None:
        rewriting, path = self._engine.rewriting, event.reverse_path
        self._reverse_path = facts.reverse_path
        if rewriting is None or path is None:
            return None
        found = rewrite_reverse_path(rewriting, facts, path)
        if isinstance(found, str):
            self.preview.notes.append(f"reverse-path: cannot be rewritten: {found}")
            return LATER
        self.preview.reverse_path += found.changes
        self._reverse_path = found.address.text
        return None

    def _rcpt(self, facts: Facts, address: Address) -> Reply | None:
        explanation = self._explainer.rcpt(facts, address)
        self.explanations.append(explanation)
        if explanation.accepted:
            return None
        code, status, text = explanation.reply.split(" ", 2)
        return Reply(int(code), status.partition(".")[2], text)


def _reply(verdict: Verdict) -> Reply | None:
    return Reply(verdict.code, verdict.detail, verdict.text) if verdict.code else None
