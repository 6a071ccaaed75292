"""sendmail's mailertable as it is: where mail for a domain goes, `domain mailer:host`.

Asked as sendmail asks: the whole domain, then `.rest` with one label after the other taken off the front, then `.`. `%1` is
what was taken off. A host in brackets is that host, one without is looked up by MX; several hosts are joined by ":". What
needs a mailer that does not exist here (local, procmail, prog, uucp, cyrus ...) is an error of its line: no role may run a
program, and there are no mailboxes. The table says nothing of rights.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gatepost.config.errorreply import BadError, canonical_error, parse_error
from gatepost.config.nexthop import NextHopError, canonical, parse_next_hop
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.routing.tables.sendmail_source import ValuesTable
from gatepost.routing.tables.source import Collector

SMTP_MAILERS = ("smtp", "esmtp", "smtp8", "dsmtp", "relay")
_HOSTS = re.compile(r"\[[^\]]*\]|[^:,]+")
_NO_MAILER = "no mailer runs here: deliver by SMTP, LMTP over TCP or Maildir"
_ARGUMENT = re.compile(r"%[12]")


class BadRoute(InvalidValue):
    """A value that cannot be used: what is wrong, and what to write instead."""


class MailertableTable(ValuesTable):
    """Next hops by domain."""

    kind: ClassVar[str] = "sendmail-mailertable"
    __slots__ = ()

    @classmethod
    def _key(cls, key: str) -> str:
        return _canonical_key(key)

    @classmethod
    def _value(cls, value: str, line: int, collector: Collector) -> str:
        return parse_route(value, line, collector)

    def route(self, domain: str) -> str | None:
        """The next hop of a domain as canonical text, or "error:CODE D.S.N TEXT"; None: the table says nothing."""
        values = self._values
        value = values.get(domain)
        if value is not None:
            return _filled(value, domain, domain)
        at = domain.find(".")
        while at >= 0:
            value = values.get(domain[at:])
            if value is not None:
                return _filled(value, domain[:at], domain[at:])
            at = domain.find(".", at + 1)
        value = values.get(".")
        return None if value is None else _filled(value, domain, ".")


def parse_route(value: str, line: int, collector: Collector) -> str:
    """The canonical next hop of a value, possibly with %1; raises BadRoute."""
    mailer, colon, rest = value.partition(":")
    if value.startswith("["):
        mailer, colon, rest = "relay", ":", value
    elif not colon:
        mailer, rest = "relay", value
    mailer = mailer.lower()
    if mailer == "error":
        try:
            reply = parse_error(rest)
        except BadError as error:
            raise BadRoute(str(error.args[0]), 'write "error:5.1.2:550 text"') from None
        if not reply.is_exact:
            problem = "the class of the status is not that of the reply code, which counts"
            collector.note(line, problem, f"it is answered {reply.code} {reply.code // 100}.{reply.detail}")
        return canonical_error(reply)
    if mailer == "discard":
        return _special("discard:", value)
    if "@" in rest:
        raise BadRoute(
            f'"{value}" changes the recipient', "change addresses in the virtusertable, and write only the host"
        )
    if mailer in SMTP_MAILERS:
        return _smtp(rest, value, line, collector)
    if mailer == "lmtp":
        return _checked(f"lmtp://{rest.replace('[', '').replace(']', '')}")
    raise BadRoute(f'"{mailer}" is no mailer of a gateway', _NO_MAILER)


def _smtp(rest: str, value: str, line: int, collector: Collector) -> str:
    hosts = [host.strip() for host in _HOSTS.findall(rest) if host.strip()]
    if not hosts:
        raise BadRoute(f'"{value}" names no host', 'write "esmtp:[mail.example.net]"')
    port = ""
    if len(hosts) > 1 and hosts[-1].isdigit():
        port = ":" + hosts.pop()
        problem = f'"{value}" is taken for a host and a port; sendmail itself takes both for hosts'
        collector.note(line, problem, "remove the port, or write the route in the configuration")
    if len(hosts) == 1 and not hosts[0].startswith("[") and not port:
        return _checked(f"mx:{hosts[0]}")
    if any(not host.startswith("[") for host in hosts):
        problem = f'"{value}" joins hosts that sendmail looks up by MX; here their addresses are used'
        collector.note(line, problem, "write the hosts in brackets, which means the same for both")
    return _checked(",".join(f"smtp://{_bare(host)}{port}" for host in hosts))


def _bare(host: str) -> str:
    inner = host.removeprefix("[").removesuffix("]")
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    return f"[{inner}]" if ":" in inner else inner


def _checked(text: str) -> str:
    """Canonical; %1 is checked with a word in its place."""
    try:
        if "%" not in text:
            return canonical(parse_next_hop(text))
        parse_next_hop(_ARGUMENT.sub("x", text).replace("%0", "x.x"))
    except NextHopError as error:
        raise BadRoute(error.problem, error.advice) from None
    return text


def _special(text: str, value: str) -> str:
    """A next hop that is no host, if this version has it."""
    try:
        return canonical(parse_next_hop(text))
    except NextHopError:
        raise BadRoute(f'"{value}" is not available', 'write "error:5.1.2:550 text"') from None


def _filled(value: str, argument: str, key: str) -> str:
    if "%" not in value:
        return value
    if value.startswith("error:"):
        return value.replace("%1", argument).replace("%0", key)
    try:
        return canonical(parse_next_hop(_ARGUMENT.sub(argument, value).replace("%0", key)))
    except NextHopError:
        return "error:550 5.1.2 The domain of the address leads to no valid host; check it for a typing mistake"


def _canonical_key(key: str) -> str:
    if key == ".":
        return key
    if key.startswith("["):
        return key
    if key.startswith("."):
        return "." + parse_domain(key[1:])
    if "@" in key:
        raise InvalidValue(f'"{key}" is an address', "write only its domain; addresses belong into the virtusertable")
    return parse_domain(key)
