"""The table of a crash run, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bench.crash.bed import Result
from gatepost.spool.layout import VOLATILE

_HEAD = "| scenario | what was broken | acknowledged | lost | duplicates (unexplained) | back | verdict |"
_RULE = "|---|---|--:|--:|--:|--:|---|"


def build_report(results: Sequence[Result], machine: str) -> str:
    """The table, and the problems below it."""
    lines = [machine, "", _HEAD, _RULE, *map(_build_row, results), ""]
    for result in results:
        if result.skipped:
            lines.append(f"{result.scenario}: NOT RUN, shows nothing: {result.skipped}")
        if result.figures.get("file_system") in VOLATILE:
            lines.append(
                f"{result.scenario}: on {result.figures['file_system']}, with queue.allow_volatile; --directory names a disk"
            )
        lines += [f"{result.scenario}: {problem}" for problem in result.problems]
    return "\n".join(lines)


def _build_row(result: Result) -> str:
    figures = result.figures
    if result.skipped:
        return f"| {result.scenario} | | | | | | skipped: {result.skipped} |"
    acknowledged = f"{figures['acknowledged_messages']:,}" if "acknowledged_messages" in figures else ""
    duplicates = f"{figures['duplicates']} ({figures['unexplained_duplicates']})" if "duplicates" in figures else ""
    back = f"{figures['accepted_again_s']:.2f} s" if "accepted_again_s" in figures else ""
    verdict = "nothing lost" if result.is_good else "FAILED"
    return f"| {result.scenario} | {_what(result)} | {acknowledged} | {figures.get('lost', '')} | {duplicates} | {back} | {verdict} |"


def _what(result: Result) -> str:
    figures = result.figures
    if "kills" in figures:
        return f"{figures['kills']} kills"
    if "cuts" in figures:
        return f"{figures['cuts']} power cuts"
    if "faults" in figures:
        return f"{len(figures['faults'])} kinds of fault"
    return str(figures.get("broken", ""))
