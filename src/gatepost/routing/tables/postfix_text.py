"""The text files of Postfix: logical lines, and keys with values.

A line that begins with white space continues the one before; blank lines and lines whose first character is `#` stand for
nothing, also inside a logical line (postconf(5), postmap(1)). Read when a configuration is loaded. Stricter than Postfix,
which warns and goes on: a key without value, and a key given twice, are errors.
"""

from __future__ import annotations

from collections.abc import Callable

from gatepost.config.tables import TableData, rule_key
from gatepost.config.values import InvalidValue
from gatepost.routing.tables.source import MAX_LINE_CHARACTERS, Collector, read_lines


def logical_lines(lines: list[str]) -> list[tuple[int, str]]:
    """Number of the first line and the whole text of each logical line; text is "" joined by single spaces."""
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        if line[0] in " \t" and found:
            found[-1][1].append(stripped)
        else:
            found.append((number, [stripped]))
    return [(number, " ".join(parts)) for number, parts in found]


def read_rules(kind: str, path: str, parse: Callable[[str], tuple[str, ...]]) -> TableData:
    """The rules of a table of patterns or networks, in their order, with `if` and `endif`; raises ConfigErrors with every bad line.

    `parse` makes a rule of a logical line, with its kind ("rule", "if", "endif") in front, or raises InvalidValue.
    """
    collector = Collector(path)
    rules: list[tuple[str, ...]] = []
    lines: dict[str, int] = {}
    open_ifs: list[int] = []
    for number, text in logical_lines(read_lines(path)):
        try:
            rule = parse(text)
        except InvalidValue as error:
            collector.error(number, error.problem, error.advice)
            continue
        if rule[0] == "if":
            open_ifs.append(number)
        elif rule[0] == "endif":
            if not open_ifs:
                collector.error(number, "there is no if that this endif ends", "remove it")
                continue
            open_ifs.pop()
        lines[rule_key(len(rules))] = number
        rules.append(rule)
    for number in open_ifs:
        collector.error(number, "this if has no endif", "add a line: endif")
    collector.finish()
    return TableData(kind, path, rules=rules, files=[path], notes=collector.notes, lines=lines)


def read_keyed(path: str) -> Collector:
    """The entries of the source of a Postfix lookup table; raises ConfigErrors with every bad line."""
    collector = Collector(path)
    for number, text in logical_lines(read_lines(path)):
        key, value = split_key(text)
        if len(text) > MAX_LINE_CHARACTERS:
            collector.error(number, f"the line has more than {MAX_LINE_CHARACTERS} characters", "shorten it")
        elif not value:
            collector.error(number, f'"{key}" has no value', "write: key, white space, value")
        elif key.endswith(":") and len(key) > 1:
            advice = "leave out the colon; if it is a file of aliases, import it as such"
            collector.error(number, f'"{key}" ends with a colon', advice)
        else:
            collector.add(key, value, number)
    collector.finish()
    return collector


def split_key(text: str) -> tuple[str, str]:
    """Key and value of a logical line; a key may stand in double quotes (postmap(1))."""
    if text.startswith('"'):
        end = text.find('"', 1)
        while end > 0 and text[end - 1] == "\\":
            end = text.find('"', end + 1)
        if end > 0 and text[end + 1 : end + 2] in ("", " ", "\t"):
            return text[1:end].replace('\\"', '"'), text[end + 1 :].strip()
    parts = text.split(None, 1)
    return parts[0], parts[1] if len(parts) > 1 else ""
