"""Masquerading, canonical and generic maps of sendmail and Postfix: the rules that become of them, and what they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatepost.cli.main import cli
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.policy.relay import AddressSet
from gatepost.routing.rewrite import FORWARD_PATH, HEADER_RECIPIENTS, HEADER_SENDERS, REVERSE_PATH, Rewriter

MC = """\
OSTYPE(`debian')dnl
define(`confDOMAIN_NAME', `gate.example.net')dnl
define(`SMART_HOST', `smtp:[10.0.0.25]')dnl
FEATURE(`use_cw_file')dnl
FEATURE(`domaintable')dnl
FEATURE(`genericstable')dnl
FEATURE(`masquerade_envelope')dnl
FEATURE(`masquerade_entire_domain')dnl
MASQUERADE_AS(`example.net')dnl
MASQUERADE_DOMAIN(`inside.example.net')dnl
MASQUERADE_EXCEPTION(`shown.inside.example.net')dnl
EXPOSED_USER(`root')dnl
GENERICS_DOMAIN(`inside.example.net')dnl
MAILER(`smtp')dnl
"""
TABLES = {
    "local-host-names": "old.example.net\n",
    "domaintable": "former.example\texample.net\n",
    "genericstable": "anna\tanna.smith@example.net\n",
}
MAIN = """\
myhostname = gate.example.net
myorigin = example.net
mynetworks = 10.0.0.0/8
mydestination =
relay_domains = example.net
relayhost = [10.0.0.25]
recipient_delimiter = +
canonical_maps = texthash:/etc/postfix/canonical
sender_canonical_maps = texthash:/etc/postfix/senders
smtp_generic_maps = texthash:/etc/postfix/generic
masquerade_domains = !keep.example.net example.net
masquerade_exceptions = root
header_checks = regexp:/etc/postfix/header_checks
local_header_rewrite_clients = permit_mynetworks
"""
POSTFIX = {
    "canonical": "anna anna.smith\nx@loop.example y@loop.example\ny@loop.example z@loop.example\n",
    "senders": "bob@example.net robert@example.net\n",
    "generic": "@local.invalid user@example.net\n",
    "header_checks": "/^Received:.*10\\.0\\.0/ IGNORE\n/^Subject: x/ REJECT\n",
    "master.cf": "smtp inet n - y - - smtpd\n",
}


def run(directory: Path, kind: str, files: dict[str, str], main: str, text: str) -> tuple[Config, dict]:
    place = directory / "etc" / ("mail" if kind == "sendmail" else "postfix")
    place.mkdir(parents=True)
    for name, content in {**files, main: text}.items():
        (place / name).write_text(content)
    output = directory / "out"
    done = CliRunner().invoke(cli, ["import", kind, str(place), "--output", str(output), "--json"])
    answer = json.loads(done.output)
    assert answer["problems"] == [], answer["problems"]
    return load_config(str(output / "gatepost.toml")), answer


def result_of(answer: dict, start: str) -> str:
    return next(item["result"] for item in answer["items"] if item["construct"].startswith(start))


def rewrite(config: Config, text: str, part: str, client: str = "10.0.0.1", outbound: bool = True) -> str:
    rewriter = Rewriter(config, AddressSet)
    local, _, domain = text.rpartition("@")
    local, domain, _ = rewriter.rewrite(rewriter.rules_for(part, outbound, client), local, domain)
    return f"{local}@{domain}"


def test_sendmail(tmp_path: Path) -> None:
    config, answer = run(tmp_path, "sendmail", TABLES, "sendmail.mc", MC)
    for start, result in {
        "MASQUERADE_AS": "approximated",
        "MASQUERADE_DOMAIN": "exact",
        "MASQUERADE_EXCEPTION": "exact",
        "EXPOSED_USER": "exact",
        "GENERICS_DOMAIN": "exact",
        "FEATURE(masquerade_envelope)": "exact",
        "FEATURE(masquerade_entire_domain)": "exact",
        "FEATURE(genericstable)": "exact",
        "FEATURE(domaintable)": "exact",
        "anna": "exact",
    }.items():
        assert result_of(answer, start) == result, start
    for before, after in {
        "carl@inside.example.net": "carl@example.net",
        "carl@pc.inside.example.net": "carl@example.net",
        "carl@old.example.net": "carl@example.net",
        "carl@gate.example.net": "carl@example.net",
        "root@inside.example.net": "root@inside.example.net",
        "carl@shown.inside.example.net": "carl@shown.inside.example.net",
        "anna@inside.example.net": "anna.smith@example.net",
        "anna@pc.inside.example.net": "anna@example.net",  # the genericstable holds for its domains alone
        "carl@former.example": "carl@example.net",
        "carl@else.example": "carl@else.example",
    }.items():
        assert rewrite(config, before, REVERSE_PATH, outbound=False) == after
        assert rewrite(config, before, HEADER_SENDERS) == after
    assert rewrite(config, "carl@inside.example.net", HEADER_RECIPIENTS) == "carl@inside.example.net"
    assert rewrite(config, "carl@former.example", FORWARD_PATH) == "carl@example.net"


def test_sendmail_without_masquerading(tmp_path: Path) -> None:
    text = MC.replace("MASQUERADE_AS(`example.net')dnl\n", "").replace("FEATURE(`genericstable')dnl\n", "")
    config, answer = run(tmp_path, "sendmail", TABLES, "sendmail.mc", text)
    assert not config.rewrite.rules
    for start in ("MASQUERADE_DOMAIN", "EXPOSED_USER", "GENERICS_DOMAIN", "FEATURE(masquerade_envelope)"):
        assert result_of(answer, start) == "unused", start


def test_postfix(tmp_path: Path) -> None:
    config, answer = run(tmp_path, "postfix", POSTFIX, "main.cf", MAIN)
    for start, result in {
        "canonical_maps": "exact",
        "sender_canonical_maps": "exact",
        "masquerade_domains": "exact",
        "masquerade_exceptions": "exact",
        "local_header_rewrite_clients": "exact",
        "/^Received": "approximated",
        "/^Subject": "refused",
    }.items():
        assert result_of(answer, start) == result, start
    assert config.rewrite.hide_received == ["10.0.0.0/8"]
    for before, part, after in (
        ("anna+x@example.net", REVERSE_PATH, "anna.smith+x@example.net"),
        ("anna@example.net", FORWARD_PATH, "anna.smith@example.net"),
        ("bob@example.net", HEADER_SENDERS, "robert@example.net"),
        ("bob@example.net", HEADER_RECIPIENTS, "bob@example.net"),
        ("x@loop.example", REVERSE_PATH, "z@loop.example"),
        ("carl@pc.example.net", REVERSE_PATH, "carl@example.net"),
        ("carl@pc.example.net", FORWARD_PATH, "carl@pc.example.net"),
        ("carl@a.keep.example.net", HEADER_SENDERS, "carl@a.keep.example.net"),
        ("root@pc.example.net", HEADER_SENDERS, "root@pc.example.net"),
        ("any@local.invalid", HEADER_SENDERS, "user@example.net"),
    ):
        assert rewrite(config, before, part) == after
    assert rewrite(config, "carl@pc.example.net", REVERSE_PATH, outbound=False) == "carl@example.net"
    assert rewrite(config, "carl@pc.example.net", HEADER_SENDERS, outbound=False) == "carl@pc.example.net"


@pytest.mark.parametrize(
    ("setting", "inbound", "client", "changes"),
    [
        ("", False, "10.0.0.1", False),
        ("", False, "127.0.0.1", True),
        ("local_header_rewrite_clients = static:all\n", True, "192.0.2.1", True),
        ("remote_header_rewrite_domain = domain.invalid\n", True, "192.0.2.1", True),
    ],
)
def test_for_which_mail_postfix_rewrites_headers(
    tmp_path: Path, setting: str, inbound: bool, client: str, changes: bool
) -> None:
    text = MAIN.replace("local_header_rewrite_clients = permit_mynetworks\n", setting)
    config, _ = run(tmp_path, "postfix", POSTFIX, "main.cf", text)
    after = rewrite(config, "carl@pc.example.net", HEADER_SENDERS, client, outbound=not inbound)
    assert (after == "carl@example.net") is changes
