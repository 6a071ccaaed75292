"""Tokens that the authorization server is asked about: what counts as yes, as no, and as no answer; limits; what is kept."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
import uvloop
from certificates import Authority
from webserver import TEXT, WebServer

from gatepost.config.schema import Auth
from gatepost.ipc.messages import Introspected, LookupDone
from gatepost.roles import introspector as module
from gatepost.roles.introspector import Introspector, NoAnswer, parse_answer
from gatepost.roles.tokenquestions import MAX_UNDER_WAY, TokenQuestions

HOST = "login.test"
JSON = {"Content-Type": "application/json;charset=UTF-8"}
NOW_S = 1_000_000.0
GOOD = {
    "active": True,
    "aud": "gatepost",
    "iss": "https://login.test",
    "exp": NOW_S + 600,
    "username": "Anna@example.test",
}


def auth(**changes) -> Auth:
    """Asked at /introspect; all that can be checked is."""
    return Auth(
        **{
            "introspection_url": f"https://{HOST}/introspect?tenant=one", "audience": "gatepost", "issuer": "https://login.test",
            "user_claim": "username", "introspection_timeout_s": 60.0, **changes,
        }
    )  # fmt: skip


def parse(changes, **of_auth):
    claims = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return parse_answer(json.dumps(claims).encode(), auth=auth(**of_auth), now_s=NOW_S)


@pytest.mark.parametrize(
    ("changes", "of_auth"),
    [
        ({}, {}),
        ({"aud": ["other", "gatepost"]}, {}),
        ({"exp": None}, {}),
        ({"exp": NOW_S - 20}, {}),  # clocks differ
        ({"nbf": NOW_S}, {}),
        ({"token_type": "Bearer"}, {}),
        ({"iss": None}, {"issuer": None}),
        ({"email": "anna@example.test", "email_verified": True}, {"user_claim": "email"}),
        ({"sub": "anna@example.test"}, {"user_claim": "sub"}),
    ],
)
def test_good(changes, of_auth):
    assert parse(changes, **of_auth).user == "anna@example.test"


@pytest.mark.parametrize(
    ("changes", "of_auth", "why"),
    [
        ({"active": False}, {}, ""),
        ({"exp": NOW_S - 31}, {}, "exp"),
        ({"exp": "soon"}, {}, "exp"),
        ({"exp": True}, {}, "exp"),
        ({"nbf": NOW_S + 31}, {}, "nbf"),
        ({"token_type": "DPoP"}, {}, "bearer"),
        ({"iss": None}, {}, "iss"),
        ({"iss": "https://evil.test"}, {}, "iss"),
        ({"aud": None}, {}, "aud"),
        ({"aud": "gatepost2"}, {}, "aud"),
        ({"aud": ["other"]}, {}, "aud"),
        ({"aud": {"gatepost": 1}}, {}, "aud"),
        ({"username": None}, {}, "username"),
        ({"username": ["anna@example.test"]}, {}, "username"),
        ({"username": "anna example"}, {}, "username"),
        ({"email": "anna@example.test", "email_verified": False}, {"user_claim": "email"}, "email"),
        ({"email": "anna@example.test", "email_verified": "false"}, {"user_claim": "email"}, "email"),
    ],
)
def test_not_good(changes, of_auth, why):
    found = parse(changes, **of_auth)
    assert found.user == ""
    assert why in found.why and bool(why) == bool(found.why)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"true", b"{}", b'{"active": 1}', b'{"active": "true"}', b"\xff", b"[" * 100_000, b'{"active": true'],
)
def test_what_is_no_answer(body):
    with pytest.raises(NoAnswer):
        parse_answer(body, auth=auth(), now_s=NOW_S)


# --- with a server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("login"))


@pytest.fixture(scope="module")
def web(authority):
    with WebServer({HOST: authority.issue("login", [f"DNS:{HOST}"])}) as web:
        web.loop = uvloop.new_event_loop()  # one for all: a connection that was given up ends a little later
        web.askers = []
        yield web
        for asker in web.askers:
            web.loop.run_until_complete(asker.made.close())
    web.loop.close()


class Asker:
    """An introspector that asks the server of the test; `say(...)` is what that answers from now on."""

    def __init__(self, web, authority, credentials=b"gate way:s3cret/+\n", **of_auth) -> None:
        self.web, self.events, self.now_s = web, [], NOW_S
        self.host = of_auth.pop("host", HOST)
        settings = auth(introspection_url=f"https://{self.host}:{web.port}/introspect?tenant=one", **of_auth)
        self.made = Introspector(settings, authority.file.read_bytes(), credentials, web.loop, clock=lambda: self.now_s)

        async def query(kind: str, name: str) -> LookupDone:
            return LookupDone(0, "ok" if kind == "A" else "nodata", ["127.0.0.1"] if kind == "A" else [], 60)

        self.made.begin(query, lambda name, **fields: self.events.append((name, fields)))
        self.say()
        web.askers.append(self)

    def say(self, claims=GOOD, status=200, headers=JSON):
        self.web.answers[self.host, "/introspect?tenant=one"] = (status, headers, json.dumps(claims).encode())

    def ask(self, *tokens):
        """(user, failed) for each token, all asked at once."""

        async def one(token):
            done = asyncio.get_running_loop().create_future()
            self.made.submit(token, lambda *answer: done.set_result(answer))
            return await done

        async def all_():
            return await asyncio.gather(*map(one, tokens))

        return self.web.loop.run_until_complete(asyncio.wait_for(all_(), 60))


def test_what_the_server_is_asked_and_that_a_yes_is_kept_a_short_time(web, authority):
    asker = Asker(web, authority, introspection_keep_s=0.0)
    before = len(web.asked)
    assert asker.ask("a.b+c", "a.b+c") == [("anna@example.test", "")] * 2
    asked = web.asked[before:]
    assert len(asked) == 2
    assert (asked[0].method, asked[0].body) == ("POST", b"token=a.b%2Bc&token_type_hint=access_token")
    # each form-encoded (RFC 6749 2.3.1)
    assert asked[0].headers["Authorization"] == "Basic Z2F0ZSt3YXk6czNjcmV0JTJGJTJC"
    keeping = Asker(web, authority, b"Bearer our.token")
    assert keeping.ask("t") == keeping.ask("t") == [("anna@example.test", "")]
    assert len(web.asked) == before + 3
    assert web.asked[-1].headers["Authorization"] == "Bearer our.token"
    keeping.say({"active": False})
    assert keeping.ask("u") == keeping.ask("u") == [("", "")]  # a no is not kept
    assert len(web.asked) == before + 5


def test_a_yes_is_kept_no_longer_than_the_token_lives(web, authority):
    asker = Asker(web, authority)
    asker.say(GOOD | {"exp": NOW_S - 10})  # within what clocks may differ
    before = len(web.asked)
    asker.ask("old")
    asker.ask("old")
    assert len(web.asked) == before + 2


def test_what_is_kept_is_bounded(web, authority, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    asker = Asker(web, authority)
    before = len(web.asked)
    for token in ("a", "b", "c", "c", "b", "a"):
        asker.ask(token)
    assert len(web.asked) == before + 4


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((401, JSON, b"{}"), "status 401"),
        ((500, JSON, b"{}"), "status 500"),
        ((302, {"Location": "/elsewhere"}, b""), "status 302"),
        ((200, TEXT, json.dumps(GOOD).encode()), "text/plain"),
        ((200, JSON, b"yes"), "not a JSON object"),
        ((200, JSON, b" " * 70_000), "more than 65536 octets"),
        ((200, JSON | {"Content-Encoding": "gzip"}, b"x"), "compressed"),
    ],
)
def test_anything_else_is_neither_yes_nor_no(web, authority, answer, why):
    asker = Asker(web, authority)
    web.answers[HOST, "/introspect?tenant=one"] = answer
    [(user, failed)] = asker.ask("t")
    assert user == "" and why in failed and failed.startswith(HOST)


def test_a_server_with_another_certificate_gets_no_token(web, authority):
    before = len(web.asked)
    [(user, failed)] = Asker(web, authority, host="other.test").ask("t")
    assert user == "" and "other.test" in failed
    assert len(web.asked) == before


def test_time_and_questions_are_bounded(web, authority, monkeypatch):
    monkeypatch.setattr(module, "MAX_AT_ONCE", 1)
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    asker = Asker(web, authority, introspection_timeout_s=0.5)
    done = threading.Event()

    def wait(_):
        done.wait(60)
        return 200, JSON, json.dumps(GOOD).encode()

    web.answers[HOST, "/introspect?tenant=one"] = wait
    before = len(web.asked)
    try:
        answers = asker.ask("a", "b", "c", "d")
    finally:
        done.set()
    assert answers[3] == ("", "too many tokens are being asked about")
    assert [(user, failed.partition(": ")[2]) for user, failed in answers[:3]] == [("", "no answer within 0.5 s")] * 3
    assert len(web.asked) <= before + 1


def test_the_log_says_why_an_active_token_is_not_good_and_never_the_token(web, authority):
    asker = Asker(web, authority)
    asker.say(GOOD | {"aud": "shop"})
    assert asker.ask("t0ken") == [("", "")]
    assert asker.events == [("token_refused", {"reason": "its aud is not auth.audience"})]


# --- the receiver's side ------------------------------------------------------------------------------------------------


class Loop:
    """Timers by hand."""

    def __init__(self) -> None:
        self.timers = []

    def call_later(self, delay_s, call, *arguments):
        timer = SimpleNamespace(
            delay_s=delay_s, fire=lambda: call(*arguments), cancel=lambda: self.timers.remove(timer)
        )
        self.timers.append(timer)
        return timer

    def call_soon(self, call, *arguments):
        self.call_later(0, call, *arguments)


class Link:
    def __init__(self) -> None:
        self.posted = []

    def post(self, message) -> None:
        self.posted.append(message)


@pytest.fixture
def side():
    side = SimpleNamespace(loop=Loop(), link=Link(), events=[], told=[])
    side.questions = TokenQuestions(
        side.loop, timeout_s=5, event=lambda name, **fields: side.events.append(fields["reason"])
    )
    return side


def test_an_answer_is_told_once(side):
    side.questions.linked(side.link)
    for token in ("one", "two", "three"):
        side.questions.ask(token, side.told.append)
    one, two, three = side.link.posted
    assert [message.token for message in side.link.posted] == ["one", "two", "three"] and side.told == []
    side.questions.answered(Introspected(two.query, "anna"))
    side.questions.answered(Introspected(two.query, "boss"))
    side.questions.answered(Introspected(one.query, ""))
    side.questions.answered(Introspected(three.query, "", "login.test: away"))
    assert side.told == ["anna", "", None]
    assert side.events == ["login.test: away"] and side.loop.timers == []


def test_no_resolver_a_new_one_and_none_in_time_are_no_answer(side):
    side.questions.ask("t", side.told.append)
    assert side.told == []
    side.loop.timers.pop().fire()
    side.questions.linked(side.link)
    side.questions.ask("t", side.told.append)
    side.questions.linked(Link())
    side.questions.answered(Introspected(side.link.posted[0].query, "anna"))
    side.questions.ask("t", side.told.append)
    side.questions.unlinked()
    side.questions.linked(side.link)
    side.questions.ask("t", side.told.append)
    assert side.told == [None, None, None]
    side.loop.timers[0].fire()
    assert side.told == [None] * 4 and side.events[-1] == "no answer in time"


def test_questions_under_way_are_bounded(side):
    side.questions.linked(side.link)
    for _ in range(MAX_UNDER_WAY + 1):
        side.questions.ask("t", side.told.append)
    assert len(side.link.posted) == MAX_UNDER_WAY
    assert side.events == ["too many tokens are being asked about"]
