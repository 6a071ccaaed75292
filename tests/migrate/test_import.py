"""Imports of whole directories: Debian's defaults and a rich example of each; every line is told of, and what is written is good."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from migrate.debian import run_tool, unpacked
from peers import require

from gatepost.cli.main import cli
from gatepost.config.load import load_config
from gatepost.migrate.report import Result, masked
from gatepost.policy.proof import prove

EXAMPLES = Path(__file__).resolve().parent / "examples"
SECRETS = ("Sup3rSecret", "T0pSecret")
TEXTS = {"notes.txt", "sendmail.conf"}  # told of as whole files


def run_import(kind: str, source: Path, output: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the answer as JSON."""
    done = CliRunner().invoke(cli, ["import", kind, str(source), "--output", str(output), "--json", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, json.loads(done.stdout)


def lines_of(path: Path) -> list[int]:
    """The lines of a configuration that say something."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    is_diverted = False
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.strip()
        if path.suffix in (".mc", ".m4"):
            is_diverted = is_diverted and not plain.startswith("divert(0)")
            if not plain or plain.startswith(("dnl", "#")) or is_diverted:
                continue
            is_diverted = plain.startswith("divert(-1)")
        elif not plain or plain.startswith("#"):
            continue
        found.append(number)
    return found


def untold(answer: dict[str, Any], source: Path) -> list[str]:
    """Lines of the old configuration that the report does not mention."""
    told: dict[str, list[tuple[int, int]]] = {}
    for item in answer["items"]:
        told.setdefault(item["file"], []).append((item["line"], item["last_line"]))
    missing = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        spans = told.get(str(path), [])
        if not spans:
            missing.append(f"{path}: the whole file")
        if any(first == 0 and answer_of(answer, path) for first, _ in spans):
            continue
        for number in lines_of(path) if path.suffix not in (".db", ".cf.proto") else []:
            if not any(first <= number <= last for first, last in spans):
                missing.append(f"{path}:{number}")
    return missing


def answer_of(answer: dict[str, Any], path: Path) -> bool:
    """Whether a file is told of as a whole, as unused."""
    return any(
        item["file"] == str(path) and item["line"] == 0 and item["result"] == "unused" for item in answer["items"]
    )


def results(answer: dict[str, Any], name: str) -> dict[int, set[str]]:
    """Line -> results, of one file."""
    found: dict[int, set[str]] = {}
    for item in answer["items"]:
        if item["file"].endswith(name):
            for line in range(item["line"], item["last_line"] + 1):
                found.setdefault(line, set()).add(item["result"])
    return found


def check_written(output: Path) -> None:
    """What was written loads, relays by right only, and holds no secret."""
    config = load_config(str(output / "gatepost.toml"))
    assert prove(config).holds
    for path in output.iterdir():
        assert not any(secret in path.read_text() for secret in SECRETS), path
        assert path.stat().st_mode & 0o007 == 0


@pytest.fixture(scope="module")
def sendmail(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("sendmail") / "out"
    return *run_import("sendmail", EXAMPLES / "sendmail/etc/mail", output), output


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("postfix") / "out"
    return *run_import("postfix", EXAMPLES / "postfix/etc/postfix", output), output


def test_every_line_of_the_sendmail_example_is_told_of(sendmail: tuple[int, dict[str, Any], Path]) -> None:
    status, answer, output = sendmail
    assert (status, answer["ok"], answer["problems"]) == (1, True, [])
    assert untold(answer, EXAMPLES / "sendmail/etc/mail") == []
    assert not any(secret in json.dumps(answer) for secret in SECRETS)
    check_written(output)


def test_every_line_of_the_postfix_example_is_told_of(postfix: tuple[int, dict[str, Any], Path]) -> None:
    status, answer, output = postfix
    assert (status, answer["ok"], answer["problems"]) == (1, True, [])
    assert untold(answer, EXAMPLES / "postfix/etc/postfix") == []
    assert not any(secret in json.dumps(answer) for secret in SECRETS)
    check_written(output)


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (
            "mail/access",
            {2: "exact", 8: "refused", 14: "refused", 22: "approximated", 30: "exact", 32: "refused"},
        ),
        ("mail/mailertable", {1: "approximated", 2: "exact", 7: "refused", 8: "refused", 9: "refused", 10: "refused"}),
        ("mail/virtusertable", {1: "exact", 3: "refused", 5: "exact", 6: "refused"}),
        ("mail/relay-domains", {2: "exact", 3: "refused", 4: "approximated", 5: "refused"}),
        (
            "mail/aliases",
            {4: "exact", 6: "approximated", 7: "approximated", 9: "refused", 13: "refused", 15: "exact", 16: "refused"},
        ),
        ("mail/authinfo", {1: "refused"}),
        (
            "mail/sendmail.mc",
            {9: "exact", 22: "refused", 27: "exact", 29: "refused", 34: "refused", 47: "refused", 63: "refused"}
            | {68: "exact", 69: "refused", 70: "exact", 71: "refused", 72: "refused", 77: "refused", 78: "refused"},
        ),
    ],
)
def test_results_of_the_sendmail_example(
    sendmail: tuple[int, dict[str, Any], Path], file: str, wanted: dict[int, str]
) -> None:
    found = results(sendmail[1], file)
    assert {line: found[line] for line in wanted} == {line: {result} for line, result in wanted.items()}


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("postfix/transport", {1: "exact", 5: "exact", 6: "refused", 7: "refused"}),
        ("postfix/virtual", {1: "exact", 2: "exact", 3: "exact", 4: "exact", 5: "exact"}),
        ("postfix/virtual_re", {1: "exact", 2: "refused"}),
        ("postfix/clients", {1: "exact", 2: "exact", 3: "exact", 4: "refused"}),
        ("postfix/senders", {1: "exact", 2: "approximated", 3: "exact", 4: "unused"}),
        ("postfix/networks", {1: "exact", 2: "exact", 3: "refused"}),
        ("postfix/sasl_passwd", {1: "refused"}),
        (
            "postfix/tls_policy",
            {1: "exact", 2: "exact", 3: "approximated", 4: "exact", 5: "exact", 6: "refused", 7: "refused"},
        ),
        ("postfix/people.cf", {1: "exact", 2: "unused", 5: "exact", 9: "refused"}),
        ("postfix/boxes.cf", {1: "approximated", 3: "refused", 5: "exact"}),
        ("postfix/forwards.cf", {1: "exact", 4: "exact", 5: "approximated", 8: "refused"}),
        ("postfix/sender_relay", {1: "exact", 2: "exact", 3: "unused"}),
        (
            "postfix/main.cf",
            {
                7: "exact",
                26: "exact",
                28: "unused",
                35: "exact",
                36: "exact",
                51: "exact",
                56: "refused",
                57: "exact",
                58: "refused",
            }
            | {59: "exact", 60: "exact", 61: "approximated", 62: "exact", 63: "exact", 64: "refused", 65: "refused"}
            | {66: "exact", 67: "refused", 68: "exact", 69: "exact", 70: "exact", 71: "unused"},
        ),
        (
            "postfix/master.cf",
            {2: "exact", 8: "refused", 10: "unused", 15: "refused", 17: "refused", 19: "refused", 20: "refused"},
        ),
    ],
)
def test_results_of_the_postfix_example(
    postfix: tuple[int, dict[str, Any], Path], file: str, wanted: dict[int, str]
) -> None:
    found = results(postfix[1], file)
    assert {line: found[line] for line in wanted} == {line: {result} for line, result in wanted.items()}


def test_what_the_sendmail_example_becomes(sendmail: tuple[int, dict[str, Any], Path]) -> None:
    config = load_config(str(sendmail[2] / "gatepost.toml"))
    assert config.hostname == "gate.example.net"
    assert config.listen == ["127.0.0.1:2526"]
    assert config.domains["example.net"].next_hop == ["smtp://10.0.0.25:25"]
    assert (config.tls.outbound, "inside.example.net" in config.alias_domains) == ("dane", False)
    assert "staff" in (sendmail[2] / "aliases").read_text()
    assert config.domains["partner.example"].next_hop == ["smtp://smart.example.org:25"]
    assert config.domains["virtual.example"].recipients is None  # the mailertable has a route for the rest
    assert "10.2.0.0/16" in config.relay.networks
    assert "127.0.0.0/8" in config.relay.networks  # Connect:127 of the access table
    assert not any(network.startswith("10.1.99.") for network in config.relay.networks)
    assert "relayed.example" in config.domains
    assert (config.smtp.max_message_bytes, config.queue.lifetime_s) == (31457280, 4 * 86400.0)


def test_what_the_postfix_example_becomes(postfix: tuple[int, dict[str, Any], Path]) -> None:
    config = load_config(str(postfix[2] / "gatepost.toml"))
    assert config.domains["third.example"].next_hop == ["smtp://smart.example.org:587"]
    assert config.domains["boxes.example"].next_hop == ["lmtp://10.0.0.30:24"]
    assert config.domains["virtual.example"].recipients == []
    assert config.relay.next_hop == ["smtp://smart.example.org:587"]
    assert "192.0.2.128/25" in config.relay.networks
    assert "10.1.99.0/24" not in config.relay.networks
    assert config.tls.outbound == "encrypt"
    assert [(row.level, row.domains, row.next_hops, row.names) for row in config.tls.policies][1:4] == [
        ("verify", [], ["smtp://smart.example.org:587"], ["smart.example.org", "*.example.org"]),
        ("verify", ["partner.example"], ["mx:partner.example"], []),
        ("dane-only", [".lower.example"], [], []),
    ]
    assert (config.smtp.dsn, config.smtp.chunking, config.smtp.pipelining) == (False, False, True)
    assert config.smtp.xclient_from == ["127.0.0.1/32", "10.0.0.4/32"]
    assert (config.smtp.xforward_from, config.smtp.proxy_from) == ([], [])
    assert (config.auth.dovecot, config.auth.on_edge) == ("unix:/run/dovecot/auth-client", True)
    assert (config.aliases[0].endswith("etc/aliases"), config.alias_domains) == (
        True,
        ["gate.example.net", "example.org"],
    )
    assert config.sources["people"].filter == "(&(objectClass=person)(mail={key}))"
    assert config.sources["boxes"].query == "SELECT 1 FROM boxes WHERE address = {key}"
    assert config.sources["forwards"].query == "SELECT target FROM forwards WHERE address = {key} AND active = 1"
    assert config.domains["boxes.example"].recipients == ["sql:boxes"]
    assert (postfix[2] / "sender_relay").read_text().count("smtp:") == 1
    assert config.smtp.max_message_bytes == 20971520


# --- Debian's defaults ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian_mail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/etc/mail as the package writes it at its installation."""
    files = unpacked("sendmail-base", "sendmail-cf") / "usr/share/sendmail"
    mail = tmp_path_factory.mktemp("debian") / "etc/mail"
    mail.mkdir(parents=True)
    for name in ("sendmail.mc", "submit.mc"):
        shutil.copy(files / "cf/debian" / name, mail / name)
    for path in (files / "examples/db").iterdir():
        shutil.copy(path, mail / path.name)
    (mail / "tls").mkdir()
    shutil.copy(files / "examples/tls/starttls.m4", mail / "tls")
    (mail / "local-host-names").write_text("localhost\nbox.example.org\n")
    (mail.parent / "mailname").write_text("box.example.org\n")
    return mail


def test_debians_default_of_sendmail(debian_mail: Path, tmp_path: Path) -> None:
    status, answer = run_import("sendmail", debian_mail, tmp_path / "out")
    assert answer["ok"], answer["problems"]
    assert untold(answer, debian_mail) == []
    refused = [item for item in answer["items"] if item["result"] == Result.REFUSED.value]
    named = sorted((Path(item["file"]).name, item["line"]) for item in refused)
    # what the package makes at its installation (dialup.m4, provider.m4), and a listener without a certificate
    assert named == [("sendmail.mc", 59), ("sendmail.mc", 97), ("sendmail.mc", 98)], refused
    assert status == 1
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert config.hostname == "box.example.org"
    assert config.listen == ["127.0.0.1:25"]
    check_written(tmp_path / "out")


def test_a_certificate_makes_a_listener_for_submission(debian_mail: Path, tmp_path: Path) -> None:
    source = tmp_path / "etc/mail"
    shutil.copytree(debian_mail, source)
    for name in ("dialup.m4", "provider.m4"):
        (source / "m4").mkdir(exist_ok=True)
        (source / "m4" / name).write_text("divert(0)dnl\n")
    status, answer = run_import("sendmail", source, tmp_path / "out")
    refused = [item["line"] for item in answer["items"] if item["result"] == "refused"]
    assert (status, refused) == (1, [59])


@pytest.mark.peer("postfix")
def test_debians_default_of_postfix(tmp_path: Path) -> None:
    require("postfix")
    source = tmp_path / "etc/postfix"
    source.mkdir(parents=True)
    files = unpacked("postfix")
    shutil.copy(files / "usr/share/postfix/main.cf.debian", source / "main.cf")
    shutil.copy(files / "usr/share/postfix/master.cf.dist", source / "master.cf")
    with open(source / "main.cf", "a", encoding="utf-8") as file:
        file.write((files / "usr/share/postfix/main.cf.tls").read_text())
        file.write(  # what the package's installation adds for an Internet site
            "myhostname = box.example.org\nalias_maps = hash:/etc/aliases\nalias_database = hash:/etc/aliases\nmyorigin = /etc/mailname\n"
            "mydestination = $myhostname, box.example.org, localhost.example.org, localhost\nrelayhost =\n"
            "mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\nmailbox_size_limit = 0\nrecipient_delimiter = +\n"
            "inet_interfaces = all\ninet_protocols = all\n"
            "smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination\n"
        )
    (tmp_path / "etc/aliases").write_text("# See man 5 aliases for format\npostmaster:    root\n")
    status, answer = run_import("postfix", source, tmp_path / "out")
    assert answer["ok"], answer["problems"]
    assert untold(answer, source) == []
    refused = sorted(item["construct"].split()[0] for item in answer["items"] if item["result"] == "refused")
    pipes = ["bsmtp", "ifmail", "maildrop", "mailman", "scalemail-backend", "uucp"]
    assert [name for name in refused if name not in pipes] == ["smtpd_tls_cert_file", "smtpd_tls_key_file"]
    assert status == 1
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert sorted(config.domains) == ["box.example.org"]
    assert config.relay.networks == ["127.0.0.0/8", "::1/128"]
    check_written(tmp_path / "out")


def test_the_whole_main_cf_dist_of_postfix_with_every_example_switched_on(tmp_path: Path) -> None:
    """Each `#name = value` of Postfix's commented configuration, one at a time, ends in a report and not in an exception."""
    source = tmp_path / "etc/postfix"
    source.mkdir(parents=True)
    (source / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    text = (unpacked("postfix") / "usr/share/postfix/main.cf.dist").read_text()
    rows = [
        line[1:] for line in text.split("\n") if line.startswith("#") and " = " in line[:40] and line[1:2].islower()
    ]
    rows = [row for row in rows if " " not in row.partition(" =")[0]]
    assert len(rows) > 40
    for row in rows:
        (source / "main.cf").write_text(f"myhostname = box.example.org\n{row}\n")
        status, answer = run_import("postfix", source, tmp_path / "out", "--force")
        assert status in (0, 1), (row, answer["problems"])
        assert results(answer, "main.cf").get(2), row


# --- compiled tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hash", "btree"])
def test_tables_that_are_only_there_compiled(tmp_path: Path, kind: str) -> None:
    mail = tmp_path / "etc/mail"
    mail.mkdir(parents=True)
    (mail / "sendmail.mc").write_text(
        "define(`confDOMAIN_NAME', `g.example.net')dnl\nFEATURE(`access_db')dnl\nFEATURE(`virtusertable', `hash /etc/mail/v.db')dnl\n"
        "FEATURE(`use_cw_file')dnl\n"
    )
    (mail / "local-host-names").write_text("a.example\n")
    root = unpacked("db5.3-util")
    text = "connect:10.1\nRELAY\nfrom:a.example\nRELAY\nauthinfo:h\nP:Sup3rSecret\n"
    run_tool(root, "db5.3_load", "-T", "-t", kind, str(mail / "access.db"), text=text)
    run_tool(root, "db5.3_load", "-T", "-t", kind, str(mail / "v.db"), text="anna@a.example\nanna@b.example\n")
    run_tool(root, "db5.3_load", "-T", "-t", kind, str(mail / "aliases.db"), text="@\n@\nroot\nbob@c.example\n")
    status, answer = run_import("sendmail", mail, tmp_path / "out")
    assert (status, answer["ok"]) == (1, True)
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert "10.1.0.0/16" in config.relay.networks
    assert (tmp_path / "out/v").read_text().endswith("anna@a.example\tanna@b.example\n")
    assert "root: bob@c.example" in (tmp_path / "out/aliases").read_text()
    check_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "name", "hop"),
    [
        ("sendmail", "mail/authinfo", "smtp://smart.example.org:587"),
        ("postfix", "postfix/sasl_passwd", "smtp://smart.example.org:587"),
    ],
)
def test_logins_that_nobody_else_can_read_are_used_where_they_lie(
    tmp_path: Path, kind: str, name: str, hop: str
) -> None:
    shutil.copytree(EXAMPLES / kind / "etc", tmp_path / "etc")
    listed = tmp_path / "etc" / name
    listed.write_text(
        'AuthInfo:smart.example.org:587 "U:gate" "P:T0pSecret"\n'
        if kind == "sendmail"
        else "[smart.example.org]:587 gate:T0pSecret\n"
    )
    listed.chmod(0o600)
    directory = listed.parent
    _, answer = run_import(kind, directory, tmp_path / "out")
    assert answer["ok"], answer
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert config.delivery.credentials_file == str(listed)
    assert [(row.next_hop, row.user) for row in config.delivery.credentials] == [(hop, "gate")]
    if kind == "postfix":
        assert results(answer, "main.cf")[49] == {"exact"}  # smtp_sasl_auth_enable
    assert "T0pSecret" not in json.dumps(answer) + (tmp_path / "out/gatepost.toml").read_text()


# --- the command ----------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_and_nothing_else_is_touched(tmp_path: Path) -> None:
    source = tmp_path / "etc/mail"
    shutil.copytree(EXAMPLES / "sendmail/etc/mail", source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    run_import("sendmail", source, tmp_path / "out")
    again = CliRunner().invoke(cli, ["import", "sendmail", str(source), "--output", str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "give --force" in again.stderr
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_copies_of_all_tables(tmp_path: Path) -> None:
    for kind, source in (("sendmail", "sendmail/etc/mail"), ("postfix", "postfix/etc/postfix")):
        output = tmp_path / kind
        _, answer = run_import(kind, EXAMPLES / source, output, "--copy")
        assert answer["ok"], answer["problems"]
        config = load_config(str(output / "gatepost.toml"))
        files = {file for table in config.tables.values() for file in table.files}  # type: ignore[attr-defined]
        assert files
        assert all(Path(file).parent == output for file in files)
        check_written(output)


def test_an_empty_directory_is_no_gateway(tmp_path: Path) -> None:
    for kind in ("sendmail", "postfix"):
        (tmp_path / kind).mkdir()
        status, answer = run_import(kind, tmp_path / kind, tmp_path / f"{kind}-out", "--hostname", "g.example.net")
        assert status == 1
        assert answer["counts"]["refused"] >= 1


def test_a_file_that_may_not_be_read_is_told_of(tmp_path: Path) -> None:
    source = tmp_path / "etc/mail"
    shutil.copytree(EXAMPLES / "sendmail/etc/mail", source)
    (source / "more-relays").unlink()
    (source / "virtusertable").unlink()
    os.mkdir(source / "virtusertable")
    _, answer = run_import("sendmail", source, tmp_path / "out")
    notes = " ".join(item["note"] for item in answer["items"])
    assert "more-relays: it cannot be read (No such file or directory)" in notes
    assert "virtusertable: there is no such file" in notes


def test_text_for_people(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["import", "postfix", str(EXAMPLES / "postfix/etc/postfix"), "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 1
    assert "main.cf:7: exact: myhostname = gate.example.net: hostname = gate.example.net" in done.output
    assert (tmp_path / "out/migration-report.txt").read_text().startswith("Import of ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('AuthInfo:a.b "U:x" "P:y z"', "AuthInfo:a.b ***"),
        ('x "P:secret" y', 'x "P:*** y'),
        ("password = hunter2", "password = ***"),
        ("bind_pw: x", "bind_pw: ***"),
        ("P=smtp, TCP:25", "P=smtp, TCP:25"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text).replace('***"', "***") == shown
