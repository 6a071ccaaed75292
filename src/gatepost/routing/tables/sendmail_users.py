"""sendmail's tables of addresses as they are: virtusertable, genericstable, domaintable.

Each is asked in sendmail's order, with `+detail`, `@domain`, and `%1` to `%3` filled in. Lookups only: what is then done with
the address, and that it ends, is the router's and the rewriting stage's matter. A value that could not be an address is an
error of its line.
"""

from __future__ import annotations

from gatepost.config.errorreply import BadError, canonical_error, parse_error
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.routing.tables.sendmail_source import ValuesTable
from gatepost.routing.tables.source import Collector


class VirtusertableTable(ValuesTable):
    """`user@domain other@domain`, `@domain %1@other`, `user@domain error:nouser 550 text`."""

    kind = "sendmail-virtusertable"

    @classmethod
    def _key(cls, key: str) -> str:
        if "@" not in key:
            raise InvalidValue(f'"{key}" has no domain', 'write "user@example.net" or "@example.net"')
        return super()._key(key)

    @classmethod
    def _value(cls, value: str, line: int, collector: Collector) -> str:
        if value.lower().startswith("error:"):
            try:
                return canonical_error(parse_error(value[6:]))
            except BadError as error:
                raise InvalidValue(str(error.args[0]), 'write "error:nouser 550 text"') from None
        if "," in value or " " in value or "\t" in value:
            raise InvalidValue(f'"{value}" is more than one address', "list several in the aliases")
        local, at, domain = value.rpartition("@")
        if not at:
            advice = f'there are no mailboxes here: write "{value}@" and the domain of the server that has it'
            raise InvalidValue(f'"{value}" is a local user', advice)
        if not local:
            raise InvalidValue(f'"{value}" has no local part', 'write "%1@' + f'{domain}" to keep it')
        if "%" in domain:  # the right to send there is that of our own recipient
            problem = f'"{value}" lets whoever writes the address choose the domain that the mail goes to, which is an open relay'
            raise InvalidValue(problem, "write the domain out, in a line for each")
        return f"{local}@{parse_domain(domain)}"

    def rewrite(self, local: str, domain: str, written: str = "") -> str | None:
        """The new address, "error:CODE D.S.N TEXT", or None: the table says nothing of this address.

        `written` is the local part with its capital letters, for %1.
        """
        values = self._values
        written = written or local
        value = values.get(f"{local}@{domain}")
        if value is not None:
            return _filled(value, written, "")
        user, plus, detail = local.partition("+")
        if plus and user:
            keys = [f"{user}+*@{domain}", f"{user}@{domain}", f"+*@{domain}", f"@{domain}"]
            if detail:
                keys = [f"{user}++@{domain}", *keys[:2], f"++@{domain}", *keys[2:]]
            for key in keys:
                value = values.get(key)
                if value is not None:
                    user, _, detail = written.partition("+")
                    return _filled(value, user, detail, "+" + detail)
            return None
        value = values.get(f"@{domain}")
        return None if value is None else _filled(value, written, "")

    def find_address(self, local: str, domain: str) -> str | None:
        """The same, where the question is whether the address exists: an error is none."""
        value = self.rewrite(local, domain)
        return None if value is None or value.startswith("error:") else value


class GenericstableTable(ValuesTable):
    """`user user@outside.example`, `user@inside.example other@outside.example`: for addresses on their way out."""

    kind = "sendmail-genericstable"

    @classmethod
    def _value(cls, value: str, line: int, collector: Collector) -> str:
        if " " in value or "\t" in value or "," in value:
            raise InvalidValue(f'"{value}" is not an address', 'write "user@example.net"')
        local, at, domain = value.rpartition("@")
        return f"{local}@{parse_domain(domain)}" if at else value

    def rewrite(self, local: str, domain: str, written: str = "") -> str | None:
        """The new address (without a domain: in the domain of the host), or None."""
        values = self._values
        user, plus, detail = local.partition("+")
        keys = [(f"{local}@{domain}", local)]
        if plus and user:
            keys += [(f"{user}+*@{domain}", detail), (f"{user}@{domain}", "")]
        keys += [(f"@{domain}", local), (local, "")]
        if plus and user:
            keys += [(f"{user}+*", detail), (user, "")]
        for key, argument in keys:
            value = values.get(key)
            if value is not None:
                return value.replace("%1", argument)
        return None

    def find_address(self, local: str, domain: str) -> str | None:
        """The same."""
        return self.rewrite(local, domain)


class DomaintableTable(ValuesTable):
    """`old.example new.example`: one domain for another."""

    kind = "sendmail-domaintable"

    @classmethod
    def _key(cls, key: str) -> str:
        return parse_domain(key)

    @classmethod
    def _value(cls, value: str, line: int, collector: Collector) -> str:
        return parse_domain(value)

    def find_address(self, local: str, domain: str) -> str | None:
        """The address in the new domain."""
        value = self._values.get(domain)
        return None if value is None else f"{local}@{value}"


def _filled(value: str, user: str, detail: str, plus_detail: str = "") -> str:
    if "%" not in value:
        return value
    return value.replace("%3", plus_detail).replace("%2", detail).replace("%1", user)
