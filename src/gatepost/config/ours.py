"""Which entry of the configuration a domain of ours falls under: its own, or the longest `.rest` that it lies below. Pure."""

from __future__ import annotations

from gatepost.config.schema import Config, Domain


def find_domain(config: Config, domain: str) -> tuple[str, Domain | None]:
    """The name of the entry and the entry; None: the domain is not ours. `domain` is in lower-case A-labels."""
    name = domain
    found = config.domains.get(name)
    at = domain.find(".")
    while found is None and at >= 0:
        name = domain[at:]
        found = config.domains.get(name)
        at = domain.find(".", at + 1)
    return name, found
