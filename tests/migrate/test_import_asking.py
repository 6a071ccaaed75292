"""Imports of what is asked while a client waits: next hops for recipients, databases, Dovecot, policies by MTA-STS."""

from __future__ import annotations

from pathlib import Path

import pytest
from migrate.test_import import check_written, results, run_import, untold

from gatepost.config.load import load_config


def write_postfix(tmp_path: Path, main: str) -> Path:
    """The directory of a Postfix with that main.cf, which takes mail by SMTP."""
    source = tmp_path / "etc/postfix"
    source.mkdir(parents=True)
    (source / "main.cf").write_text(main)
    (source / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    return source


def test_recipients_that_postfix_verifies_are_asked_for(tmp_path: Path) -> None:
    source = write_postfix(
        tmp_path,
        "myhostname = g.example.net\nmydestination =\nrelay_domains = a.example, b.example, c.example\nrelay_recipient_maps =\n"
        "transport_maps = texthash:/etc/postfix/transport\nparent_domain_matches_subdomains =\n"
        "smtpd_recipient_restrictions = reject_unauth_destination, reject_unverified_recipient\n"
        "address_verify_negative_expire_time = 1h\nluser_relay = admin\n",
    )
    (source / "transport").write_text("a.example smtp:[10.0.0.5]:26\nb.example smtp:mail.b.example\n")
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert (answer["ok"], untold(answer, source)) == (True, [])
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert {name: (domain.recipients, domain.next_hop) for name, domain in config.domains.items()} == {
        "a.example": (["call-ahead:smtp://10.0.0.5:26"], ["mx"]),
        "b.example": (["call-ahead:next-hop"], ["mx:mail.b.example"]),
        "c.example": (["call-ahead:next-hop"], ["mx"]),
    }
    assert config.call_ahead.missing_s == 3600.0
    assert results(answer, "main.cf")[9] == {"refused"}


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("hosts = unix:/run/pg\nuser = u\ndbname = m\nquery = SELECT 1 FROM t WHERE a = '%s'", "hosts"),
        ("hosts = db\nuser = u\ndbname = m\nquery = SELECT 1 FROM t WHERE a = '%1'", "query"),
        ("hosts = db\nuser = u\ndbname = m\nquery = SELECT 1 FROM t WHERE a LIKE '%%.%d'", "query"),
        ("hosts = db\nuser = u\ndbname = m", "query"),
        (
            "hosts = db\nuser = u\ndbname = m\nquery = SELECT x FROM t WHERE a = '%s'\nresult_format = %s@x.example",
            "result_format",
        ),
    ],
)
def test_a_database_that_cannot_be_asked_alike_is_refused_whole(tmp_path: Path, settings: str, what: str) -> None:
    source = write_postfix(
        tmp_path,
        "myhostname = g.example.net\nrelay_domains = a.example\nvirtual_alias_maps = pgsql:/etc/postfix/v.cf\n",
    )
    (source / "v.cf").write_text(f"{settings}\npassword = Sup3rSecret\n")
    status, answer = run_import("postfix", source, tmp_path / "out")
    assert (status, answer["ok"], untold(answer, source)) == (1, True, [])
    told = [item for item in answer["items"] if item["file"].endswith("v.cf")]
    assert told and all(item["result"] == "refused" for item in told)
    assert any(what in item["note"] + item["construct"] for item in told)
    assert load_config(str(tmp_path / "out/gatepost.toml")).virtual == []
    check_written(tmp_path / "out")


def test_an_open_list_of_submission_and_mta_sts(tmp_path: Path) -> None:
    """Dovecot named by the service alone; a daemon for MTA-STS becomes what the gateway does itself."""
    source = write_postfix(
        tmp_path,
        "myhostname = g.example.net\nrelay_domains = a.example\nsmtp_tls_security_level = dane\n"
        "smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix\n",
    )
    (source / "master.cf").write_text(
        "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd -o smtpd_sasl_type=dovecot -o smtpd_sasl_path=inet:localhost:12345\n"
    )
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert (answer["ok"], untold(answer, source)) == (True, [])
    config = load_config(str(tmp_path / "out/gatepost.toml"))
    assert (config.auth.dovecot, config.auth.on_edge, config.tls.outbound) == ("inet:127.0.0.1:12345", False, "best")


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("disable_dns_lookups = yes", "refused"),
        ("disable_dns_lookups = no", "exact"),
        ("smtp_host_lookup = dns, native", "exact"),
        ("authorized_submit_users = root, www-data", "refused"),
        ("smtpd_upstream_proxy_protocol = haproxy", "refused"),
        ("smtpd_authorized_xclient_hosts = 0.0.0.0/0", "refused"),
        ("smtpd_authorized_xclient_hosts = proxy.example.net", "refused"),
        ("smtpd_discard_ehlo_keywords = starttls", "refused"),
        ("smtpd_sasl_auth_enable = no", "exact"),
        ("smtp_address_preference = any", "approximated"),
        ("smtpd_tls_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1", "exact"),
        ("smtpd_tls_protocols = !SSLv2, !SSLv3", "approximated"),
        ("permit_mx_backup_networks = 192.0.2.0/24", "refused"),
        ("smtp_tls_wrappermode = yes", "refused"),
        ("smtp_sasl_auth_enable = no", "exact"),
    ],
)
def test_single_parameters(tmp_path: Path, line: str, result: str) -> None:
    source = tmp_path / "etc/postfix"
    source.mkdir(parents=True)
    (source / "main.cf").write_text(f"myhostname = g.example.net\nrelay_domains = a.example\n{line}\n")
    (source / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert results(answer, "main.cf")[3] == {result}
    check_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "dovecot"),
    [
        ("private/auth", "unix:/run/dovecot/auth-client"),  # Postfix's user could put another socket there
        ("unix:/var/spool/postfix/private/auth", "unix:/run/dovecot/auth-client"),
        ("/run/dovecot/auth-other", "unix:/run/dovecot/auth-other"),
        ("inet:[127.0.0.1]:12345", None),
        ("inet:192.0.2.1:12345", None),
    ],
)
def test_sockets_of_dovecot(tmp_path: Path, path: str, dovecot: str | None) -> None:
    source = tmp_path / "etc/postfix"
    source.mkdir(parents=True)
    (source / "main.cf").write_text(
        f"myhostname = g.example.net\nrelay_domains = a.example\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {path}\n",
    )
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert load_config(str(tmp_path / "out/gatepost.toml")).auth.dovecot == dovecot
    assert results(answer, "main.cf")[4] == {"approximated" if dovecot else "refused"}


def test_logins_that_give_no_right_there_give_none_here(tmp_path: Path) -> None:
    source = write_postfix(
        tmp_path,
        "myhostname = g.example.net\nrelay_domains = a.example\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n"
        "smtpd_sasl_auth_enable = yes\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
    )
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert results(answer, "main.cf")[5] == {"refused"}
    assert load_config(str(tmp_path / "out/gatepost.toml")).auth.on_edge is False


def test_clients_by_name_and_access_tables_in_databases(tmp_path: Path) -> None:
    """Names are looked up here too; a table over the network is asked for keys with tags, which Postfix's has not."""
    source = write_postfix(
        tmp_path,
        "myhostname = g.example.net\nrelay_domains = a.example\n"
        "smtpd_client_restrictions = check_client_access texthash:/etc/postfix/clients\n"
        "smtpd_sender_restrictions = check_sender_access ldap:/etc/postfix/senders.cf\n",
    )
    (source / "clients").write_text("bad.example REJECT\n192.0.2.1 REJECT\n.good.example OK\n")
    _, answer = run_import("postfix", source, tmp_path / "out")
    assert (answer["ok"], untold(answer, source)) == (True, [])
    assert results(answer, "clients") == {1: {"approximated"}, 2: {"exact"}, 3: {"approximated"}}
    table = (tmp_path / "out/access").read_text()
    assert "Connect:bad.example" in table
    (told,) = [item for item in answer["items"] if "senders.cf" in item["construct"] and item["result"] == "refused"]
    assert 'access = ["ldap:NAME"]' in told["advice"] and '"from:user@example.org"' in told["advice"]


def test_an_access_table_of_sendmail_in_ldap_is_refused_with_the_source_to_write(tmp_path: Path) -> None:
    source = tmp_path / "etc/mail"
    source.mkdir(parents=True)
    (source / "sendmail.mc").write_text("FEATURE(`access_db', `LDAP')dnl\nFEATURE(`mailertable', `LDAP')dnl\n")
    (source / "access").write_text("From:old.example REJECT\n")  # of before, and not what sendmail reads
    status, answer = run_import("sendmail", source, tmp_path / "out")
    told = {
        item["line"]: item for item in answer["items"] if item["file"].endswith(".mc") and item["result"] == "refused"
    }
    assert status == 1 and told.keys() == {1, 2}
    assert "sendmailMTAMapName=access" in told[1]["advice"]
    assert load_config(str(tmp_path / "out/gatepost.toml")).access == []
