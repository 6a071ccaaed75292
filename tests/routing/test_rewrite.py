"""Rules that rewrite addresses: their order, what holds when, tables, circles, and what a configuration may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import decode_config, encode_config, load_config
from gatepost.config.schema import Config
from gatepost.policy.relay import AddressSet
from gatepost.routing.rewrite import FORWARD_PATH, HEADER_SENDERS, PARTS, REVERSE_PATH, RewriteFailed, Rewriter

HEAD = (
    'hostname = "mx.ours.test"\nlisten = ["127.0.0.1:2525"]\nspool = "spool"\n'
    'domains = ["ours.test", "srs.ours.test"]\nnext_hop = "smtp://10.0.0.5:25"\n'
)
FILES = {
    "domaintable": "old.test new.test\n",
    "genericstable": "anna a.smith@ours.test\nbob@host.ours.test bob@outside.test\n@whole.ours.test %1@ours.test\n",
    "canonical": "carl@ours.test carl.c@ours.test\ncarla ca@ours.test\n@all.test @one.test\nx@y.test z@y.test\nz@y.test x@y.test\n",
    "mailertable": "a.test smtp:[10.0.0.5]\n",
    "patterns": r"/^(.*)-old@(.*)\.inside\.test$/ $1@$2.test" + "\n",
}
MASQUERADE = """
[[rewrite.rules]]
name = "one face"
domains = ["inside.test", ".inside.test"]
except_domains = ["shown.inside.test"]
except_users = ["Root"]
to_domain = "ours.test"
"""


def load(directory: Path, text: str, **files: str) -> Config:
    for name, content in (FILES | files).items():
        (directory / name).write_text(content)
        (directory / name).chmod(0o600)
    (directory / "gatepost.toml").write_text(HEAD + text)
    return decode_config(encode_config(load_config(str(directory / "gatepost.toml"))))


def rewrite(
    config: Config, text: str, part: str = REVERSE_PATH, outbound: bool = True, client: str = "10.0.0.1"
) -> str:
    rewriter = Rewriter(config, AddressSet)
    local, _, domain = text.rpartition("@")
    local, domain, _ = rewriter.rewrite(rewriter.rules_for(part, outbound, client), local, domain)
    return f"{local}@{domain}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Anna@inside.test", "Anna@ours.test"),
        ("anna@a.b.inside.test", "anna@ours.test"),
        ('"a b"@inside.test', '"a b"@ours.test'),
        ("anna@shown.inside.test", "anna@shown.inside.test"),
        ("ROOT@inside.test", "ROOT@inside.test"),
        ("anna@notinside.test", "anna@notinside.test"),
        ("anna@[192.0.2.1]", "anna@[192.0.2.1]"),
        ("postmaster@", "postmaster@"),
    ],
)
def test_masquerading_and_its_exceptions(tmp_path: Path, before: str, after: str) -> None:
    assert rewrite(load(tmp_path, MASQUERADE), before) == after


def test_direction_part_and_network(tmp_path: Path) -> None:
    config = load(tmp_path, MASQUERADE + 'networks = ["10.0.0.0/24"]\nparts = ["header-senders"]\n')
    assert rewrite(config, "a@inside.test", HEADER_SENDERS) == "a@ours.test"
    for part, outbound, client in (
        (REVERSE_PATH, True, "10.0.0.1"),
        (HEADER_SENDERS, False, "10.0.0.1"),
        (HEADER_SENDERS, True, "10.0.1.1"),
    ):
        assert rewrite(config, "a@inside.test", part, outbound, client) == "a@inside.test"


def test_domain_maps_come_first_and_hold_everywhere(tmp_path: Path) -> None:
    config = load(tmp_path, 'domaintable = "sendmail-domaintable:domaintable"\n' + MASQUERADE.replace("inside", "new"))
    for part in PARTS:
        assert rewrite(config, "a@old.test", part, outbound=False) == "a@new.test"
    assert rewrite(config, "a@old.test") == "a@ours.test"
    inline = load(tmp_path, 'domaintable = "inline:{old.test = NEW.test}"\n')
    assert rewrite(inline, "A@old.test", FORWARD_PATH) == "A@new.test"


def test_generic_addresses_are_final(tmp_path: Path) -> None:
    text = 'genericstable = "sendmail-genericstable:genericstable"\n' + MASQUERADE.replace(
        '["inside.test", ".inside.test"]', '["ours.test"]'
    ).replace('to_domain = "ours.test"', 'to_domain = "masked.test"')
    config = load(tmp_path, text)
    assert rewrite(config, "anna@ours.test") == "a.smith@ours.test"
    assert rewrite(config, "other@ours.test") == "other@masked.test"
    assert rewrite(config, "bob@host.ours.test") == "bob@host.ours.test"  # not a domain of ours
    assert rewrite(config, "anna@ours.test", FORWARD_PATH) == "anna@ours.test"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("carl@ours.test", "carl.c@ours.test"),
        ("Carl+lists@ours.test", "carl.c+lists@ours.test"),
        ("carla@ours.test", "ca@ours.test"),
        ("carla@srs.ours.test", "ca@ours.test"),
        ("carla@elsewhere.test", "carla@elsewhere.test"),
        ("Any@all.test", "Any@one.test"),
        ("x@y.test", "z@y.test"),
        ("nobody@ours.test", "nobody@ours.test"),
        ("joe-old@lab.inside.test", "joe@lab.test"),
    ],
)
def test_keys_of_tables_and_patterns(tmp_path: Path, before: str, after: str) -> None:
    pytest.importorskip("re2")
    rule = '[[rewrite.rules]]\nname = "canonical"\ntables = ["texthash:canonical", "regexp:patterns"]\n'
    assert rewrite(load(tmp_path, 'detail_separator = "+"\n' + rule), before) == after


def test_a_circle_ends(tmp_path: Path) -> None:
    config = load(tmp_path, '[[rewrite.rules]]\nname = "c"\ntables = ["texthash:canonical"]\nrepeat = true\n')
    assert rewrite(config, "carl@ours.test") == "carl.c@ours.test"
    with pytest.raises(RewriteFailed, match="rule c: x@y.test leads in a circle"):
        rewrite(config, "x@y.test")


def test_rules_go_in_order_until_one_stops(tmp_path: Path) -> None:
    rule = '[[rewrite.rules]]\nname = "{}"\ndomains = ["{}.test"]\nto_domain = "{}.test"\n'
    chain = rule.format("1", "a", "b") + rule.format("2", "b", "c")
    assert rewrite(load(tmp_path, chain), "x@a.test") == "x@c.test"
    stopped = rule.format("1", "a", "b") + "stop = true\n" + rule.format("2", "b", "c")
    assert rewrite(load(tmp_path, stopped), "x@a.test") == "x@b.test"
    shadow = rule.format("1", "a", "b") + 'mode = "shadow"\n' + rule.format("2", "b", "c")
    assert rewrite(load(tmp_path, shadow), "x@a.test") == "x@a.test"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[rewrite.rules]]\nname = "a"\n', "either another domain or what a table says"),
        ('[[rewrite.rules]]\nname = "a"\nto_domain = "b.test"\n', "every address of the world"),
        ('[[rewrite.rules]]\nto_domain = "b.test"\ndomains = ["a.test"]\n', '"name" is missing'),
        (MASQUERADE + MASQUERADE, 'another rule is called "one face"'),
        (MASQUERADE + 'parts = ["envelope"]\n', '"envelope" is not one of the choices'),
        (MASQUERADE + "directions = []\n", "the list is empty"),
        (
            '[[rewrite.rules]]\nname = "a"\ntables = ["sendmail-mailertable:mailertable"]\n',
            "cannot be used for addresses to rewrite",
        ),
        ('[[rewrite.rules]]\nname = "a"\ntables = ["inline:{a@b.test = c}"]\n', "has no domain"),
        ('domaintable = "inline:{old.test = not_a_domain}"\n', "not_a_domain"),
        ('[rewrite.srs]\ndomain = "srs.ours.test"\n', "the key secrets_file is missing"),
        ('[rewrite.srs]\ndomain = "other.test"\nsecrets_file = "good"\n', "not one of our domains"),
        ('[rewrite.srs]\ndomain = "ours.test"\nsecrets_file = "bad"\n', "fewer than 16 characters"),
        ('[rewrite.srs]\ndomain = "ours.test"\nsecrets_file = "none"\n', "cannot be read"),
    ],
)
def test_what_a_configuration_may_not_say(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        load(tmp_path, text, good="a secret that is long enough\n", bad="short\n")


def test_more_rules_than_are_sensible(tmp_path: Path) -> None:
    rule = '[[rewrite.rules]]\nname = "{0}"\ndomains = ["a.test"]\nto_domain = "b.test"\n'
    with pytest.raises(ConfigErrors, match="more than 1000 rules"):
        load(tmp_path, "".join(rule.format(number) for number in range(1001)))
