"""The command line of sendmail as cron, PHP, mailx and others write it."""

from __future__ import annotations

import pytest

from gatepost.sendmail.arguments import Arguments, parse_arguments
from gatepost.sendmail.sysexits import EX_USAGE, Failure


def parse(text: str, name: str = "sendmail") -> Arguments:
    return parse_arguments(name, text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-i -FCronDaemon -B8BITMIME -oem root", {"ignore_dots": True, "full_name": "CronDaemon", "recipients": ["root"]}),
        ("-t -i", {"from_header": True, "ignore_dots": True, "recipients": []}),
        ("-ti -fshop@example.net", {"from_header": True, "ignore_dots": True, "reverse_path": "shop@example.net"}),
        ("-oi -f <> -- a@x.test b@x.test", {"ignore_dots": True, "reverse_path": "", "recipients": ["a@x.test", "b@x.test"]}),
        ("-r bounce@x.test a@x.test,<b@x.test>", {"reverse_path": "bounce@x.test", "recipients": ["a@x.test", "b@x.test"]}),
        ("-oem -oi -odb -q15m -q a@x.test", {"ignore_dots": True, "recipients": ["a@x.test"]}),
        ("-v -N success,failure -R hdrs -V id1 a", {"verbose": True, "notify": ("SUCCESS", "FAILURE"), "ret": "HDRS", "envelope_id": "id1"}),
        ("-Nnever a", {"notify": ("NEVER",)}),
        ("-bm a", {"mode": "send"}),
        ("-bs", {"mode": "smtp"}),
        ("-bp", {"mode": "queue"}),
        ("-bi", {"mode": "aliases"}),
        ("-I", {"mode": "aliases"}),
        ("-bv a b@x.test", {"mode": "verify", "recipients": ["a", "b@x.test"]}),
        ("-q", {"mode": "flush"}),
        ("-q a@x.test", {"mode": "send"}),
        ("-q15m", {"mode": "send"}),
        ("-i -odi -oem -oi -t -froot", {"from_header": True, "reverse_path": "root"}),
        ("-oem -oi -f me@x.test -N failure,delay -- a@x.test", {"reverse_path": "me@x.test", "recipients": ["a@x.test"]}),
        ("-C /etc/mail/sendmail.cf -O QueueDirectory=/x -h 5 -m -n -G -U -L tag a", {"recipients": ["a"]}),
        ("a@x.test -t", {"recipients": ["a@x.test"]}),
    ],
)  # fmt: skip
def test_what_callers_write(text: str, expected: dict[str, object]) -> None:
    if text.endswith(" -t"):
        with pytest.raises(Failure):
            parse(text)
        return
    found = parse(text)
    assert {name: getattr(found, name) for name in expected} == expected


def test_names_of_the_program() -> None:
    assert [parse("", name).mode for name in ("sendmail", "mailq", "newaliases", "gatepost-mailq")] == [
        "send", "queue", "aliases", "queue",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["-bd", "-bD", "-bt", "-b", "-Z a", "-f", "-N sometimes a", "-R all a", "-- -bs", "-- -froot@x.test", "-f -x a", "-f -oQ/x", "a\x00b", "a>b"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Failure) as caught:
        parse(text)
    assert caught.value.status == EX_USAGE


def test_a_comma_in_a_quoted_local_part() -> None:
    assert parse_arguments("sendmail", ['"a,b"@x.test, c@x.test']).recipients == ['"a,b"@x.test', "c@x.test"]


def test_an_address_with_a_line_end_does_not_reach_the_gateway() -> None:
    for address in ("a@x.test>\r\nRCPT TO:<b@x.test", "a b@x.test", "a\n@x.test"):
        with pytest.raises(Failure):
            parse_arguments("sendmail", ["-f", address, "c@x.test"])


@pytest.mark.parametrize(
    ("text", "address"),
    [("Me Myself <me@x.test>", "me@x.test"), ("me@x.test (Me)", "me@x.test"), ("<>", ""), ("", ""), ("<me>", "me"), ('"a b"@x.test', '"a b"@x.test')],
)  # fmt: skip
def test_a_reverse_path_as_people_write_it(text: str, address: str) -> None:
    for letter in "fr":
        assert parse_arguments("sendmail", [f"-{letter}", text, "a@x.test"]).reverse_path == address


def test_two_reverse_paths_are_one_too_many() -> None:
    with pytest.raises(Failure):
        parse_arguments("sendmail", ["-f", "a@x.test b@x.test", "c@x.test"])
