"""What a self-test found: one result for each question, and the three ways to print all of them.

A result is "ok", "warning" (works, and should be otherwise), "failed", or "skipped" (could not be asked; the detail says why). Replies of
servers and DNS stand in `detail`: whoever prints it escapes controls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

import msgspec

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"


class Result(msgspec.Struct, frozen=True):
    """One question and its answer; `advice` says what to do about an answer that is not "ok"."""

    group: str
    name: str
    verdict: str
    detail: str = ""
    advice: str = ""


def count_verdicts(results: Sequence[Result]) -> dict[str, int]:
    """How many of each verdict."""
    counted = Counter(result.verdict for result in results)
    return {verdict: counted[verdict] for verdict in (OK, WARNING, FAILED, SKIPPED)}


def text_lines(results: Sequence[Result], *, verbose: bool) -> list[str]:
    """What a person reads: what is not ok (all of it with `verbose`), and a line of counts."""
    lines, group = [], ""
    for result in results:
        if result.verdict == OK and not verbose:
            continue
        if result.group != group:
            group = result.group
            lines.append(f"{group}:")
        lines.append(f"  {result.verdict:<8} {result.name}" + (f": {result.detail}" if result.detail else ""))
        if result.advice and result.verdict != OK:
            lines.append(f"           {result.advice}")
    counts = count_verdicts(results)
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return lines


def junit(results: Sequence[Result], hostname: str) -> str:
    """JUnit XML: a failure for "failed"; a warning passes, with its text on standard output of the case."""
    counts = count_verdicts(results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        (
            f'<testsuite name="gatepost selftest" hostname={_attribute(hostname)} tests="{len(results)}" '
            f'failures="{counts[FAILED]}" skipped="{counts[SKIPPED]}" errors="0">'
        ),
    ]
    for result in results:
        lines.append(f"  <testcase classname={_attribute(result.group)} name={_attribute(result.name)}>")
        told = _attribute("; ".join(filter(None, (result.detail, result.advice))))
        if result.verdict == FAILED:
            lines.append(f"    <failure message={told}/>")
        elif result.verdict == SKIPPED:
            lines.append(f"    <skipped message={told}/>")
        elif result.verdict == WARNING:
            lines.append(f'    <properties><property name="warning" value={told}/></properties>')
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>"])


def _attribute(text: str) -> str:
    """Quoted, with what XML 1.0 cannot carry, and what a terminal would obey, replaced."""
    return quoteattr("".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text))
