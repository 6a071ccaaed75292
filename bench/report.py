"""The table of a bench run, in Markdown, from the document that is also written as JSON.

Ratios are to Postfix in the same run: for messages/s how many times as many, for CPU time and memory how many times
as much.
"""

from __future__ import annotations

from typing import Any

REFERENCE = "postfix"
MEGABYTE = 1e6


def build_tables(document: dict[str, Any]) -> str:
    """All of it: the machine, throughput, idle sessions, what was not measured."""
    machine = document["machine"]
    lines = [
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_mb']} MB, {machine['kernel']}; "
        + ", ".join(f"{name} {version}" for name, version in document["versions"].items())
        + ("; quick rounds" if document["quick"] else ""),
        "",
    ]
    loads = {name: peers for name, peers in document["results"].items() if not name.startswith("idle-")}
    idles = {name: peers for name, peers in document["results"].items() if name.startswith("idle-")}
    if loads:
        lines += ["| messages | server | messages/s | ratio | CPU s per 1,000 | ratio | PSS MB | ratio |"]
        lines += ["|---|---|--:|--:|--:|--:|--:|--:|"]
        for name, peers in loads.items():
            lines += [build_load_row(name, peer, figures, peers) for peer, figures in peers.items()]
        lines.append("")
    if idles:
        lines += ["| sessions | server | PSS MB more | PSS MB in all | ratio |", "|---|---|--:|--:|--:|"]
        for name, peers in idles.items():
            lines += [build_idle_row(name, peer, figures, peers) for peer, figures in peers.items()]
        lines.append("")
    lines += [f"Not measured: {name}: {reason}." for name, reason in document["missing"].items()]
    return "\n".join(lines)


def build_ratio(figures: dict[str, Any], peers: dict[str, dict[str, Any]], key: str) -> str:
    """How many times the reference's figure."""
    reference = peers.get(REFERENCE, {}).get(key)
    return f"{figures[key] / reference:.2f}" if reference else ""


def build_load_row(name: str, peer: str, figures: dict[str, Any], peers: dict[str, dict[str, Any]]) -> str:
    """One server under one load."""
    if "rate" not in figures:
        return f"| {name} | {peer} | {read_reason(figures)} | | | | | |"
    rate, cpu, pss = (build_ratio(figures, peers, key) for key in ("rate", "cpu_s_per_1000", "pss_bytes"))
    return (
        f"| {name} | {peer} | {figures['rate']:,.0f} | {rate} | {figures['cpu_s_per_1000']:.2f} | {cpu} "
        f"| {figures['pss_bytes'] / MEGABYTE:.0f} | {pss} |"
    )


def build_idle_row(name: str, peer: str, figures: dict[str, Any], peers: dict[str, dict[str, Any]]) -> str:
    """One server with idle sessions."""
    if "more_bytes" not in figures:
        return f"| {name} | {peer} | {read_reason(figures)} | | |"
    ratio = build_ratio(figures, peers, "more_bytes")
    more, whole = figures["more_bytes"] / MEGABYTE, figures["pss_bytes"] / MEGABYTE
    return f"| {name} | {peer} | {more:.1f} | {whole:.0f} | {ratio} |"


def read_reason(figures: dict[str, Any]) -> str:
    """Why there is no figure, in one short line."""
    if "skipped" in figures:
        return f"skipped: {figures['skipped']}"
    return "failed: " + figures["failed"].splitlines()[0][:80]
