"""`domains.*.catch_all`: it is an address of ours that exists, and stands beside a list of recipients. Runs when the configuration is read."""

from __future__ import annotations

from typing import Any

from gatepost.config.errors import Findings


def check_catch_alls(domains: dict[str, dict[str, Any]], findings: Findings) -> None:
    """Complete each address with its domain; note what cannot be."""
    for name, domain in domains.items():
        text = domain.get("catch_all")
        if not isinstance(text, str):
            continue
        path = ("domains", name, "catch_all")
        if name.startswith(".") and "@" not in text:
            findings.add(path, f'"{text}" has no domain', f'write "{text}@" and one of your domains')
            continue
        local, at, target = text.rpartition("@")
        if not at:
            local, target = text, name
        domain["catch_all"] = f"{local}@{target}"
        if target not in domains:
            problem = f'"{text}" is not in a domain of ours: what strangers send to nobody would be sent on to others'
            findings.add(path, problem, "write an address of one of the domains here")
            continue
        if domain.get("recipients") is None:
            problem = f"{name} has no list of recipients, so every recipient exists and nothing is caught"
            findings.add(path, problem, "list the recipients, or remove this line")
        listed = domains[target].get("recipients")
        if (
            listed is not None
            and local != "postmaster"
            and local not in listed
            and not any(":" in entry for entry in listed)
        ):
            findings.add(path, f'"{local}" is not among the recipients of "{target}"', "write an address that exists")
