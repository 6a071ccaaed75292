"""The table of extensions: what is announced, and that what is not announced does not exist."""

from __future__ import annotations

import pytest

from gatepost.config.schema import Config, Smtp
from gatepost.smtp.extensions import EXTENSIONS, SWITCHES
from gatepost.smtp.server import VERBS
from gatepost.smtp.settings import ServerSettings


def keywords(settings: ServerSettings) -> list[str]:
    return [line[4:].split(" ")[0] for line in settings.offer.ehlo.decode().splitlines()[1:]]


def all_on(**more) -> ServerSettings:
    """Every extension, inside TLS or not."""
    on = {row.setting: True for row in EXTENSIONS} | {"mechanisms": ("PLAIN",), "is_secured": True}
    more = on | more
    return ServerSettings(hostname="mx.example.test", **more)


def test_all_are_announced() -> None:
    settings = all_on(max_message_bytes=77)
    assert settings.offer.ehlo.startswith(b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 77\r\n")
    assert keywords(settings) == [row.keyword for row in EXTENSIONS]


@pytest.mark.parametrize("row", EXTENSIONS, ids=lambda row: row.keyword)
def test_each_switch_takes_its_row_away(row) -> None:
    settings = all_on(**{row.setting: False})
    assert row.keyword not in keywords(settings)
    assert not {name for name, parser in row.mail.items() if settings.offer.mail.get(name) is parser}
    assert not set(row.rcpt) & set(settings.offer.rcpt)
    assert settings.offer.missing_verbs >= set(row.verbs)


def test_smtputf8_needs_8bitmime() -> None:
    assert "SMTPUTF8" not in keywords(ServerSettings(hostname="mx.example.test", eightbitmime=False))


def test_verbs_of_extensions_have_a_row() -> None:
    for row in EXTENSIONS:
        for verb in row.verbs:
            assert VERBS[verb[:4]].name == verb


def test_settings_from_configuration() -> None:
    smtp = Smtp(
        banner_name="relay.example.test", max_message_bytes=1, max_recipients=2, max_command_bytes=3, max_line_bytes=4,
        long_lines="refuse", max_header_bytes=5, max_received_hops=6, max_errors=7, max_commands=8, max_idle_commands=9,
        max_transactions=10, **dict.fromkeys(SWITCHES, False),
    )  # fmt: skip
    config = Config(hostname="mx.example.test", listen=[], spool="", domains={}, smtp=smtp)
    assert ServerSettings.from_config(config, repair=True) == ServerSettings(
        hostname="relay.example.test", max_message_bytes=1, max_recipients=2, max_command_bytes=3, max_line_bytes=4,
        refuse_long_lines=True, max_header_bytes=5, max_received_hops=6, max_errors=7, max_commands=8, max_idle_commands=9,
        max_transactions=10, repair=True, **dict.fromkeys(SWITCHES, False),
    )  # fmt: skip
    plain = ServerSettings.from_config(Config(hostname="mx.example.test", listen=[], spool="", domains={}))
    assert plain == ServerSettings(hostname="mx.example.test", **dict.fromkeys(SWITCHES, True))


def test_each_switch_is_a_key_that_is_on_by_default() -> None:
    smtp = Smtp()
    assert all(getattr(smtp, name) is True for name in SWITCHES)
