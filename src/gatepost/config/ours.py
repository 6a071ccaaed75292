"""Which entry of the configuration a domain of ours falls under: its own, or the longest `.rest` that it lies below. Pure.

What lies below a name that is sold to everybody (`.com`, `.co.uk`) is no organisation's: whoever takes mail for it from anyone relays for the world.
"""

from __future__ import annotations

from gatepost.config.schema import Config, Domain
from gatepost.config.values import InvalidValue, parse_domain

# Names without a registry: RFC 6761, RFC 6762, ICANN's "internal", and what has long been used inside.
_PRIVATE = frozenset((
    "corp", "example", "home", "internal", "intranet", "invalid", "lan",
    "local", "localdomain", "localhost", "private", "test",
))  # fmt: skip
# Below most two-letter domains names are sold below one of these; below the others they may be anybody's own.
_REGISTRIES = frozenset(("ac", "co", "com", "edu", "gob", "gov", "mil", "ne", "net", "org", "or"))
_FLAT = frozenset(("be", "ch", "de", "dk", "eu", "li", "lu", "nl"))


def parse_our_domain(text: str) -> str:
    """A domain of ours in canonical form, with a dot in front for all below it; raises InvalidValue."""
    if text[:1] != ".":
        return parse_domain(text)
    name = parse_domain(text[1:])
    labels = name.split(".")
    if len(labels) == 1 and name not in _PRIVATE or _is_registry(labels):
        problem = f'"{text}" is every domain below "{name}", and those are not one organisation\'s: that would be an open relay'
        raise InvalidValue(problem, f'list your own domains, such as "example.{name}" and ".example.{name}"')
    return "." + name


def _is_registry(labels: list[str]) -> bool:
    return len(labels) == 2 and labels[0] in _REGISTRIES and len(labels[1]) == 2 and labels[1] not in _FLAT


def find_domain(config: Config, domain: str) -> tuple[str, Domain | None]:
    """The name of the entry and the entry; None: the domain is not ours. `domain` is in lower-case A-labels."""
    name = domain
    found = config.domains.get(name)
    if found is None:
        for name in suffixes(domain):
            found = config.domains.get(name)
            if found is not None:
                break
    return name, found


def suffixes(domain: str) -> list[str]:
    """What a domain lies below, the longest first, each with its dot: for `a.b.test`, `.b.test` and `.test`."""
    found = []
    at = domain.find(".")
    while at >= 0:
        found.append(domain[at:])
        at = domain.find(".", at + 1)
    return found
