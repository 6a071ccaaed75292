"""docs/config.md names every key of the schema, with its default and range, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from gatepost.config import rules, schema
from gatepost.config.authvalues import has_users
from gatepost.config.load import load_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_.*0-9]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*) \|$", re.MULTILINE)
ROWS = {match.group(1): match.groups()[1:] for match in ROW.finditer(TEXT)}


def defaults(section: type[schema.Section], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, schema.Section):
            found |= defaults(field.type, f"{prefix}{field.name}.")
        elif field.default_factory is not msgspec.NODEFAULT:
            found[prefix + field.name] = field.default_factory()
        else:
            found[prefix + field.name] = field.default
    return found


DEFAULTS = (
    defaults(schema.Config)
    | defaults(schema.Domain, "domains.*.")
    | defaults(schema.RelayRule, "relay.rules.*.")
    | defaults(schema.RelayCertificate, "relay.certificates.*.")
    | defaults(schema.Credential, "delivery.credentials.*.")
    | defaults(schema.Pool, "pools.*.")
    | defaults(schema.Source, "sources.*.")
    | defaults(schema.PoolMember, "pools.*.members.*.")
    | defaults(schema.RewriteRule, "rewrite.rules.*.")
    | defaults(schema.Listener, "listeners.*.")
    | defaults(schema.Certificate, "tls.certificates.*.")
    | defaults(schema.TlsPolicy, "tls.policies.*.")
)


def test_the_page_has_every_key_and_no_other() -> None:
    assert set(ROWS) == set(DEFAULTS)


@pytest.mark.parametrize("key", DEFAULTS)
def test_row(key: str) -> None:
    default, unit, limits, meaning = ROWS[key]
    value = DEFAULTS[key]
    if value is msgspec.NODEFAULT:
        assert default == "mandatory"
    elif value is None:
        assert default == "not set"
    else:
        assert default == f"`{json.dumps(value)}`"
    if key in rules.RANGES:
        assert limits == "{} to {}".format(*rules.RANGES[key])
    elif key in rules.CHOICES:
        assert limits == ", ".join(f'`"{choice}"`' for choice in rules.CHOICES[key])
    else:
        assert limits == ""
    assert unit and meaning.endswith(".")
    assert not key.endswith("_s") or unit.startswith(("seconds", "bytes per second"))
    assert not key.endswith("_bytes") or unit.startswith("bytes")


def test_the_examples_load(tmp_path: Path) -> None:
    first, second = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[:2]
    (tmp_path / "recipients").write_text(re.findall(r"```\n(# people.*?)```", TEXT, re.DOTALL)[0])
    (tmp_path / "one.toml").write_text(first)
    config = load_config(str(tmp_path / "one.toml"))
    assert config.domains["example.net"].recipients == ["anna"]
    assert config.domains["example.org"].recipients == ["anna", "bob"]
    assert len(first.strip().splitlines()) <= 10
    head = re.sub(r"domains = .*\n", "", first.split("[relay]")[0])
    (tmp_path / "two.toml").write_text(head + second)
    assert load_config(str(tmp_path / "two.toml")).domains["example.org"].recipients == ["anna", "bob"]


def test_the_examples_of_the_authentication_page_are_good(tmp_path):
    page = (PAGE.parent / "auth.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "introspection.secret").write_text("gatepost:secret")
    file = tmp_path / "gatepost.toml"
    file.write_text(whole)
    config = load_config(str(file))
    assert [row.kind for row in config.listeners] == ["submission", "submissions"]
    assert has_users(config.auth)
    assert len(parts) == 2
    for part in parts:
        file.write_text(whole.partition("[auth]")[0] + part)
        assert has_users(load_config(str(file)).auth)


def test_the_examples_of_the_readme_are_good(tmp_path):
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    first, second = (
        re.search(rf"(?:^    .*\n)*^    {begin}.*\n(?:^    .*\n)*", readme, re.MULTILINE)[0]
        for begin in ("hostname = ", "users_file = ")
    )
    file = tmp_path / "gatepost.toml"
    (tmp_path / "recipients").write_text("anna\n")
    file.write_text(first.replace("/etc/gatepost/recipients", str(tmp_path / "recipients")) + second)
    assert [row.kind for row in load_config(str(file)).listeners] == ["submissions"]
