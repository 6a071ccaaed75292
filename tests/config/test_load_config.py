"""From a file to a Config: short form, paths, recipients, what the roles get."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from gatepost.config import rules, schema
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import decode_config, encode_config, load_config
from gatepost.config.recipients import read_recipients

TEN_LINES = """\
hostname = "MX.Example.net"
listen = "127.0.0.1:2525"
spool = "spool"
domains = ["example.net", "Bücher.example"]
next_hop = "smtp://10.0.0.5"
recipients_file = "people"
[relay]
networks = ["10.0.0.0/8", "192.0.2.7", "::1"]
"""


def write(directory: Path, text: str, name: str = "gatepost.toml") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_short_form(tmp_path: Path) -> None:
    write(tmp_path, "# all\nAnna # the boss\n\nbob@example.net\nzoë@bücher.example\nc#d\n", "people")
    config = load_config(write(tmp_path, TEN_LINES))
    assert config.hostname == "mx.example.net"
    assert config.listen == ["127.0.0.1:2525"]
    assert config.spool == str(tmp_path / "spool")
    assert list(config.domains) == ["example.net", "xn--bcher-kva.example"]
    for domain in config.domains.values():
        assert domain.next_hop == ["smtp://10.0.0.5:25"]
        assert domain.recipients_file == str(tmp_path / "people")
    assert config.domains["example.net"].recipients == ["anna", "bob", "c#d"]
    assert config.domains["xn--bcher-kva.example"].recipients == ["anna", "c#d", "zoë"]
    assert config.relay.networks == ["10.0.0.0/8", "192.0.2.7/32", "::1/128"]
    assert config.relay.next_hop == ["mx"]


def test_roles_get_the_same_and_need_no_file(tmp_path: Path) -> None:
    write(tmp_path, "anna\n", "people")
    config = load_config(write(tmp_path, TEN_LINES))
    os.unlink(tmp_path / "people")
    assert decode_config(encode_config(config)) == config
    small = decode_config(encode_config(config, "deliverer"))
    assert small.domains["example.net"].recipients is None
    assert small.domains["example.net"].next_hop == config.domains["example.net"].next_hop


def test_domain_tables_override_the_short_form(tmp_path: Path) -> None:
    write(tmp_path, "x\n", "people")
    text = """
hostname = "mx.example.net"
listen = ["127.0.0.1:2525", "[::1]:2525"]
spool = "/var/spool/gatepost"
next_hop = ["smtp://10.0.0.5", "lmtp://[fd00::5]:24"]
recipients_file = "people"
postmaster = "Admin@elsewhere.example"
[domains."a.test"]
[domains."b.test"]
next_hop = "maildir:var/{domain}/{local}"
recipients = ["Y", "z@b.test"]
[relay]
next_hop = "smtp://smart.example:587"
[smtp]
greeting_delay_s = 2
[processes.users]
queue = "daemon"
"""
    config = load_config(write(tmp_path, text))
    assert config.domains["a.test"].next_hop == ["smtp://10.0.0.5:25", "lmtp://[fd00::5]:24"]
    assert config.domains["a.test"].recipients == ["x"]
    assert config.domains["b.test"].next_hop == [f"maildir:{tmp_path}/var/{{domain}}/{{local}}"]
    assert config.domains["b.test"].recipients == ["y", "z"]
    assert config.domains["b.test"].recipients_file is None
    assert config.postmaster == "admin@elsewhere.example"
    assert config.relay.next_hop == ["smtp://smart.example:587"]
    assert config.smtp.greeting_delay_s == 2.0
    assert isinstance(config.smtp.greeting_delay_s, float)
    assert config.smtp.max_errors == schema.Smtp().max_errors


def test_an_empty_recipients_file_means_nobody(tmp_path: Path) -> None:
    write(tmp_path, "# none yet\n", "people")
    config = load_config(write(tmp_path, TEN_LINES))
    assert config.domains["example.net"].recipients == []


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    write(tmp_path / "etc", "x\n", "people")
    write(tmp_path / "etc", TEN_LINES.replace('"spool"', '"../spool"'))
    monkeypatch.chdir(tmp_path)
    config = load_config("etc/gatepost.toml")
    assert config.spool == str(tmp_path / "spool")
    assert config.domains["example.net"].recipients_file == str(tmp_path / "etc" / "people")


def test_missing_unreadable_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match='there is no such file; write one with "gatepost init'):
        load_config(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigErrors, match="cannot be read"):
        load_config(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# M\xfcller\n")
    with pytest.raises(ConfigErrors, match="latin.toml:2: the line is not UTF-8"):
        load_config(str(tmp_path / "latin.toml"))
    (tmp_path / "people").write_bytes(b"anna\nzo\xeb\n")
    (error,) = read_recipients(str(tmp_path / "people"))[1]
    assert "people:2: the line is not UTF-8" in str(error)


def test_read_recipients(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffAnna\n  bob@Example.NET.  # comment\n\n", "people")
    assert read_recipients(path) == ({"anna": 1, "bob@example.net": 2}, [])


def numbers(section: type[schema.Section], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, schema.Section):
            found |= numbers(field.type, f"{prefix}{field.name}.")
        elif field.type in (int, float):
            found[prefix + field.name] = field.default
    return found


def test_every_number_has_a_range_and_its_default_lies_in_it() -> None:
    found = numbers(schema.Config) | numbers(schema.RelayRule, "relay.rules.*.")
    found |= numbers(schema.Pool, "pools.*.") | numbers(schema.PoolMember, "pools.*.members.*.")
    found |= numbers(schema.Source, "sources.*.")
    assert set(found) == set(rules.RANGES)
    for key, default in found.items():
        low, high = rules.RANGES[key]
        assert low <= default <= high, key


def test_refused_keys_are_no_keys_of_ours() -> None:
    sections = [schema.Config, schema.Domain, schema.Relay, schema.Smtp, schema.Queue, schema.Delivery, schema.Dns]
    ours = {field.name for section in sections for field in msgspec.structs.fields(section)}
    assert not [name for name in ours if rules.is_refused_key(name)]
    assert all(rules.is_refused_key(name) for name in rules.REFUSED_KEYS)
    assert not {field.name for field in msgspec.structs.fields(schema.Config)} & set(rules.SYNONYMS)
