"""`[pools.NAME]` and the next hops that name one: what loads, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Config, PoolMember

HEAD = """hostname = "gate.example.net"
listen = "192.0.2.1:25"
spool = "/var/spool/gatepost"
"""
GOOD = """domains = ["example.net"]
next_hop = "pool:inside"
routes = "file:routes"
[relay]
next_hop = "hold:pool:inside"
[pools.inside]
[[pools.inside.members]]
next_hop = "smtp://10.0.0.5"
weight = 2
[[pools.inside.members]]
next_hop = "lmtp://10.0.0.6:24"
priority = 5
"""


def load(directory: Path, text: str, routes: str = "a.example pool:inside\n") -> Config:
    (directory / "routes").write_text(routes)
    path = directory / "gatepost.toml"
    path.write_text(HEAD + text)
    path.chmod(0o600)
    return load_config(str(path))


def test_a_pool_loads(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.pools["inside"].members == [
        PoolMember(next_hop="smtp://10.0.0.5:25", weight=2),
        PoolMember(next_hop="lmtp://10.0.0.6:24", priority=5),
    ]
    assert config.relay.next_hop == ["hold:pool:inside"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('next_hop = "pool:inside"', 'next_hop = "pool:outside"', 'there is no pool "outside"'),
        ("hold:pool:inside", "hold:pool:x", 'there is no pool "x"'),
        ("smtp://10.0.0.5", "mx", "is not one host"),
        ("smtp://10.0.0.5", "pool:inside", "is not one host"),
        ("smtp://10.0.0.5", "lmtp://10.0.0.6:24", "is a member already"),
        ("weight = 2", "weight = 0", "out of range"),
        ("[pools.inside]\n", "[pools.empty]\n[pools.inside]\n", "the pool has no members"),
        ("[pools.inside]\n", '[pools."a b"]\n[pools.inside]\n', "not the name of a pool"),
    ],
)
def test_what_is_wrong(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        load(tmp_path, GOOD.replace(old, new, 1))


def test_a_table_that_names_a_pool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match='there is no pool "gone"'):
        load(tmp_path, GOOD, "a.example pool:gone\n")


def test_too_many_members(tmp_path: Path) -> None:
    more = "".join(f'[[pools.inside.members]]\nnext_hop = "smtp://10.1.0.{number}"\n' for number in range(100))
    with pytest.raises(ConfigErrors, match="more than 100 members"):
        load(tmp_path, GOOD + more)
