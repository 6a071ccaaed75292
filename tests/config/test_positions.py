"""The scanner finds the line of every key that tomllib finds, and follows strings, arrays and inline tables."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gatepost.config.positions import key_lines

SAMPLE = '''\
# comment with = and [brackets] and "quotes
title = "x"  # = not a key
a.b.c = 1
"quoted.key" . 'second' = 2

list = [ "one", "]", # comment ]
  'two',
  [ 1, 2 ],
  { inner = "x", deep.er = [
      3,
  ] },
]
text = """
[not.a.table]
key = "no" \\""" still
""""
literal = \'\'\'
[neither]
it\'\'s'\'\'\'
point = { x = 1, "y z" = { w = 2 } }
date = 1979-05-27 07:32:00
empty = []
none = {}

[server]
port = 25
  [ server . "in.side" ]
  port = 26 # comment

[[peer]]
name = "a"
[[peer]]
name = "b"
[peer.sub]
deep = true
'''


def test_sample() -> None:
    tomllib.loads(SAMPLE)
    lines = key_lines(SAMPLE)
    assert lines == {
        ("title",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c"): 3,
        ("quoted.key",): 4,
        ("quoted.key", "second"): 4,
        ("list",): 6,
        ("list", 0): 6,
        ("list", 1): 6,
        ("list", 2): 7,
        ("list", 3): 8,
        ("list", 3, 0): 8,
        ("list", 3, 1): 8,
        ("list", 4): 9,
        ("list", 4, "inner"): 9,
        ("list", 4, "deep"): 9,
        ("list", 4, "deep", "er"): 9,
        ("list", 4, "deep", "er", 0): 10,
        ("text",): 13,
        ("literal",): 17,
        ("point",): 20,
        ("point", "x"): 20,
        ("point", "y z"): 20,
        ("point", "y z", "w"): 20,
        ("date",): 21,
        ("empty",): 22,
        ("none",): 23,
        ("server",): 25,
        ("server", "port"): 26,
        ("server", "in.side"): 27,
        ("server", "in.side", "port"): 28,
        ("peer",): 30,
        ("peer", 0): 30,
        ("peer", 0, "name"): 31,
        ("peer", 1): 32,
        ("peer", 1, "name"): 33,
        ("peer", 1, "sub"): 34,
        ("peer", 1, "sub", "deep"): 35,
    }


def test_crlf_counts_like_lf() -> None:
    assert key_lines(SAMPLE.replace("\n", "\r\n")) == key_lines(SAMPLE)


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    found = set()
    for key, inner in items:
        found |= {(*path, key)} | paths_of(inner, (*path, key))
    return found


FILES = sorted((Path(__file__).resolve().parent.parent / "bad_configs").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_finds_what_tomllib_finds(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # positions are asked for only when the syntax is good
    assert set(key_lines(text)) == paths_of(table)


@pytest.mark.parametrize("text", ["", "\n", "a", "a =", "[", "[[x", 'a = "', "a = [1,", "a = {b", "= 1", "a = '''x"])
def test_broken_text_ends_quietly(text: str) -> None:
    assert all(line == 1 for line in key_lines(text).values())
