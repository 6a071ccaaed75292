"""main.cf and master.cf: logical lines, expansion as Postfix does it (compared with postconf where it is there), services."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import require

from gatepost.migrate import postfix_meaning as meaning
from gatepost.migrate.postfix_cf import Parameters, parse_main, parse_master, split_list

EXPRESSIONS = {
    "$a": "one",
    "${a}": "one",
    "$(a)": "one",
    "x$a.y": "xone.y",
    "$$a": "$a",
    "${a?yes}": "yes",
    "${empty?yes}": "",
    "${a:no}": "",
    "${empty:no}": "no",
    "${a?{yes}:{no}}": "yes",
    "${empty?{yes}:{no}}": "no",
    "${a?{$b}:{no}}": "two",
    "${{$a} == {one} ? {same} : {other}}": "same",
    "${{$a} != {one} ? {same} : {other}}": "other",
    "${{9} < {10} ? {less} : {more}}": "less",
    "$nested": "one two",
    "plain": "plain",
}
_HOLDERS = (
    "body_checks header_checks canonical_maps relocated_maps content_filter smtpd_milters always_bcc debug_peer_list home_mailbox "
    "smtpd_sender_login_maps fallback_transport sender_bcc_maps recipient_bcc_maps virtual_alias_maps transport_maps alias_maps relay_domains"
)
HOLDERS = _HOLDERS.split()
MAIN = "a = one\nb = two\nempty =\nnested = $a\n  $b\n"


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expansion(text: str) -> None:
    found, bad = parse_main(MAIN)
    assert bad == []
    assert Parameters(found).expand(text) == EXPRESSIONS[text]


@pytest.mark.peer("postconf")
def test_expansion_is_that_of_postconf(tmp_path: Path) -> None:
    postconf = require("postconf")
    # postconf knows only Postfix's own names, so the texts use those; all are asked at once, as each call takes seconds
    names = {"a": "mail_name", "b": "myorigin", "empty": "relayhost", "nested": "smtpd_banner"}
    text = MAIN
    for short, name in names.items():
        text = text.replace(f"{short} =", f"{name} =").replace(f"${short}", f"${name}")
    asked = {}
    for holder, expression in zip(HOLDERS, EXPRESSIONS, strict=True):
        for short, name in names.items():
            for form in ("$", "${", "$("):
                expression = expression.replace(form + short, form + name)
        asked[holder] = expression
        text += f"{holder} = {expression}\n"
    (tmp_path / "main.cf").write_text(text)
    command = [postconf, "-c", str(tmp_path), "-x", *asked]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    shown = {name: value.strip() for name, _, value in (line.partition(" =") for line in lines)}
    parameters = Parameters(parse_main(text)[0])
    assert {holder: parameters.value(holder) for holder in asked} == shown


def test_logical_lines() -> None:
    found, bad = parse_main("# c\na = 1\n  2\n\n# c\n 3\nb=\nnot a parameter\n")
    assert [(parameter.name, parameter.value, parameter.line, parameter.last_line) for parameter in found] == [
        ("a", "1 2 3", 2, 6),
        ("b", "", 7, 7),
    ]
    assert bad == [(8, 8, "not a parameter")]


def test_a_circle_ends() -> None:
    found, _ = parse_main("a = x$b\nb = y$a\nc = $c$c$c\n")
    parameters = Parameters(found)
    assert parameters.value("a").startswith("xy")
    assert len(parameters.value("c")) < 1 << 22


def test_services() -> None:
    text = "smtp inet n - y - - smtpd\n  -o a=b -o { c = d e }\n  -oX=y\nsmtp unix - - y - - smtp\nthree words only\n"
    services, bad = parse_master(text)
    assert [(service.name, service.command, service.options, service.line) for service in services] == [
        ("smtp", "smtpd", {"a": "b", "c": "d e", "X": "y"}, 1),
        ("smtp", "smtp", {}, 4),
    ]
    assert bad == [(5, 5, "three words only")]


def test_lists() -> None:
    assert split_list("a, b  c,{d, e} f") == ["a", "b", "c", "{d, e}", "f"]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab$({?:})= <>\n ,", max_size=120))
def test_any_text_is_expanded(text: str) -> None:
    found, _ = parse_main(f"a = {text}\nb = $a\n")
    Parameters(found).expand(text)
    parse_master(text)
    split_list(text)


@pytest.mark.peer("postconf")
def test_every_parameter_of_postfix_has_a_meaning(tmp_path: Path) -> None:
    """Not that it is taken over: that the report says more of it than that it is unknown."""
    (tmp_path / "main.cf").touch()
    (tmp_path / "master.cf").touch()
    command = [require("postconf"), "-c", str(tmp_path), "-d"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    names = [line.partition(" =")[0] for line in output.splitlines()]
    assert len(names) > 800
    source = Path(meaning.__file__).parent
    methods = "".join(
        (source / f"{name}.py").read_text()
        for name in ("postfix", "postfix_domains", "postfix_tls", "postfix_switches")
    )
    known = {*meaning.NUMBERS, *meaning.TIMES, *meaning.UNUSED}
    unknown = [
        name
        for name in names
        if name not in known
        and name not in methods
        and not any(pattern.fullmatch(name) for pattern, *_ in meaning.FAMILIES)
    ]
    assert unknown == []
