"""What the import says of single constructs that are easily misjudged: what counts, what only warns, what nobody asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from migrate.test_import import run_import

from gatepost.config.load import load_config
from gatepost.migrate.postfix_access import convert_action

MASTER = "smtp inet n - y - - smtpd\n"


def postfix_of(directory: Path, main: str, **files: str) -> dict[str, Any]:
    """The answer of an import of this main.cf; `@` stands for /etc/postfix/."""
    source = directory / "etc/postfix"
    source.mkdir(parents=True)
    head = "myhostname = gate.example.net\nmynetworks = 10.0.0.0/8\nrelay_domains = example.net\n"
    (source / "main.cf").write_text((head + main).replace("@", "/etc/postfix/"))
    (source / "master.cf").write_text(MASTER)
    for name, text in files.items():
        (source / name).write_text(text)
    answer = run_import("postfix", source, directory / "out")[1]
    assert answer["ok"], answer["problems"]
    return answer


def sendmail_of(directory: Path, text: str, **files: str) -> dict[str, Any]:
    """The same of a sendmail.mc."""
    source = directory / "etc/mail"
    source.mkdir(parents=True)
    (source / "sendmail.mc").write_text(text + "MAILER(`smtp')dnl\n")
    for name, content in files.items():
        (source / name.replace("_", "-")).write_text(content)
    answer = run_import("sendmail", source, directory / "out", "--hostname", "gate.example.net")[1]
    assert answer["ok"], answer["problems"]
    return answer


def told(answer: dict[str, Any], begin: str) -> list[tuple[str, str]]:
    """Result and note of each construct that begins so."""
    return [(item["result"], item["note"]) for item in answer["items"] if item["construct"].startswith(begin)]


def test_the_host_of_default_transport_comes_before_relayhost(tmp_path: Path) -> None:
    answer = postfix_of(tmp_path, "relayhost = [smart.example]\ndefault_transport = smtp:[out.example]\n")
    assert [result for result, _ in told(answer, "relayhost")] == ["unused"]
    assert [result for result, _ in told(answer, "default_transport")] == ["exact"]
    assert load_config(str(tmp_path / "out/gatepost.toml")).relay.next_hop == ["smtp://out.example:25"]


def test_a_default_transport_without_a_host_leaves_relayhost(tmp_path: Path) -> None:
    answer = postfix_of(tmp_path, "relayhost = [smart.example]\ndefault_transport = smtp\n")
    assert [result for result, _ in told(answer, "default_transport")] == ["exact"]
    assert load_config(str(tmp_path / "out/gatepost.toml")).relay.next_hop == ["smtp://smart.example:25"]


def test_what_only_warns_and_what_is_never_asked_is_left_out(tmp_path: Path) -> None:
    answer = postfix_of(
        tmp_path,
        "smtpd_sender_restrictions = warn_if_reject check_sender_access hash:@tried,\n"
        "  check_sender_access hash:@asked, permit, check_sender_access hash:@never\n"
        "smtpd_client_restrictions = permit_mynetworks, check_client_access hash:@clients\n",
        tried="tried.example REJECT\n",
        asked="asked.example REJECT\n",
        never="never.example REJECT\n",
        clients="192.0.2 REJECT\n",
    )
    access = (tmp_path / "out/access").read_text()
    assert "asked.example" in access and "tried.example" not in access and "never.example" not in access
    results = [result for result, _ in told(answer, "smtpd_sender_restrictions: check_sender_access")]
    assert sorted(results) == ["approximated", "exact", "unused"]
    [(result, note)] = told(answer, "smtpd_client_restrictions: check_client_access")
    assert result == "approximated" and "behind permit_mynetworks" in note


@pytest.mark.parametrize(
    ("value", "converted"),
    [
        ("REJECT", "REJECT"),
        ("REJECT closed for good", "ERROR:5.7.1:550 closed for good"),
        ("REJECT 5.2.1 closed", "ERROR:5.2.1:550 closed"),
        ("REJECT 5.2.1", "ERROR:5.2.1:550 Access denied"),
        ("DEFER 4.2.0 busy", "ERROR:4.2.0:450 busy"),
        ("DEFER", "ERROR:4.7.1:450 Try again later"),
        ("550 5.1.1 gone", "ERROR:5.1.1:550 gone"),
    ],
)
def test_replies_of_access_tables(value: str, converted: str) -> None:
    assert convert_action(value) == converted


def test_defer_if_reject_does_not_refuse_what_postfix_would_take() -> None:
    assert isinstance(convert_action("DEFER_IF_REJECT later"), tuple)


def test_networks_within_an_if_are_told_by_their_lines(tmp_path: Path) -> None:
    answer = postfix_of(
        tmp_path,
        "smtpd_client_restrictions = check_client_access cidr:@clients\n",
        clients="192.0.2.1 REJECT\nif 198.51.100.0/24\n203.0.113.1 REJECT\nendif\n192.0.2.2 REJECT\n",
    )
    lines = {item["line"]: item["result"] for item in answer["items"] if item["file"].endswith("clients")}
    assert lines == {1: "exact", 2: "refused", 3: "refused", 4: "refused", 5: "exact"}


def test_a_file_that_is_named_and_not_read_is_not_called_unnamed(tmp_path: Path) -> None:
    answer = postfix_of(
        tmp_path,
        "smtpd_client_restrictions = check_client_access pcre:@patterns\n",
        patterns="/x/ REJECT\n",
        loose="a b\n",
    )
    assert told(answer, "patterns") == [("unused", "what names it is not imported")]
    assert told(answer, "loose") == [("unused", "nothing in main.cf or master.cf names it")]


@pytest.mark.parametrize(
    ("parameter", "result"),
    [
        ("smtpd_client_restrictions = reject_unknown_client_hostname", "refused"),
        ("smtpd_upstream_proxy_protocol = haproxy", "refused"),
        ("postscreen_upstream_proxy_protocol = haproxy", "refused"),
        ("smtpd_etrn_restrictions = reject", "exact"),
        ("unknown_local_recipient_reject_code = 550", "unused"),
        ("unknown_to_everybody = yes", "refused"),
    ],
)
def test_single_parameters(tmp_path: Path, parameter: str, result: str) -> None:
    answer = postfix_of(tmp_path, parameter + "\n")
    assert [found for found, _ in told(answer, parameter.split()[0])] == [result]


def test_logins_that_are_not_understood_are_named_by_their_lines(tmp_path: Path) -> None:
    main = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:@sasl_passwd\n"
    source = tmp_path / "etc/postfix"
    answer = postfix_of(tmp_path, main, sasl_passwd="[a.example] user:word\n[b.example] nothing\n")
    assert "chmod 600" in next(item["advice"] for item in answer["items"] if item["file"].endswith("sasl_passwd"))
    (source / "sasl_passwd").chmod(0o600)
    answer = run_import("postfix", source, tmp_path / "again")[1]
    assert "line 2," in next(item["advice"] for item in answer["items"] if item["file"].endswith("sasl_passwd"))


def test_all_below_a_top_level_domain_is_not_imported(tmp_path: Path) -> None:
    answer = postfix_of(tmp_path, "virtual_alias_domains = org\n", more="")
    assert answer["ok"]
    (tmp_path / "etc/postfix/main.cf").write_text(
        "myhostname = gate.example.net\nrelay_domains = example.net, com, .org\n"
    )
    answer = run_import("postfix", tmp_path / "etc/postfix", tmp_path / "again")[1]
    assert answer["ok"], answer["problems"]
    assert [result for result, _ in told(answer, "relay_domains: ")] == ["refused", "refused"]
    assert {".com", ".org"}.isdisjoint(load_config(str(tmp_path / "again/gatepost.toml")).domains)


def test_relay_domains_of_sendmail_are_not_the_world(tmp_path: Path) -> None:
    answer = sendmail_of(tmp_path, "", relay_domains="example.net\ncom\n")
    assert [result for result, _ in told(answer, "com")] == ["refused"]
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert ".example.net" in config.domains and {"com", ".com"}.isdisjoint(config.domains)


@pytest.mark.parametrize("value", ["[HUB]", "esmtp:[HUB]"])
def test_a_value_that_m4_would_make_is_not_guessed(tmp_path: Path, value: str) -> None:
    answer = sendmail_of(tmp_path, f"define(`HUB', `hub.example')dnl\ndefine(`SMART_HOST', `{value}')dnl\n")
    assert [result for result, _ in told(answer, "define(SMART_HOST")] == ["refused"]
    assert load_config(str(tmp_path / "out/gatepost.toml")).relay.next_hop == ["mx"]


def test_definitions_that_count_no_more_are_told(tmp_path: Path) -> None:
    answer = sendmail_of(
        tmp_path,
        "define(`SMART_HOST', `[a.example]')dnl\ndefine(`SMART_HOST', `[b.example]')dnl\n"
        "define(`MAIL_HUB', `smtp:[c.example]')dnl\nundefine(`MAIL_HUB')dnl\n",
    )
    assert [result for result, _ in told(answer, "define(SMART_HOST")] == ["unused", "exact"]
    assert [result for result, _ in told(answer, "define(MAIL_HUB")] == ["unused"]
    assert load_config(str(tmp_path / "out/gatepost.toml")).relay.next_hop == ["smtp://b.example:25"]


def test_a_host_name_that_is_none_is_not_called_exact(tmp_path: Path) -> None:
    answer = postfix_of(tmp_path, "myhostname = $nobody_has_said\n")
    assert [result for result, _ in told(answer, "myhostname = $nobody")] == ["approximated"]


def test_addresses_in_a_list_of_domains_are_no_domains(tmp_path: Path) -> None:
    main = "virtual_alias_maps = hash:@virtual\nvirtual_alias_domains = $virtual_alias_maps\n"
    answer = postfix_of(tmp_path, main, virtual="v.example x\na@v.example b@example.net\n")
    lines = {(item["line"], item["result"]) for item in answer["items"] if item["file"].endswith("virtual")}
    assert lines == {(1, "exact"), (2, "exact"), (2, "unused")}
