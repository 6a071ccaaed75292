"""The HTTPS client against a real server on loopback, on the loop that the roles use."""

from __future__ import annotations

import asyncio
import threading

import pytest
import uvloop
from certificates import Authority
from webserver import TEXT, WebServer

from gatepost.ipc.messages import LookupDone
from gatepost.net.https import Answer, HttpsClient, HttpsError, is_public, warm_up
from gatepost.net.tlscontext import new_client_context

NAME = "web.test"
LIMIT = 1000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def web(authority):
    with WebServer({NAME: authority.issue("web", [f"DNS:{NAME}"])}) as web:
        web.loop = uvloop.new_event_loop()  # one for all: a connection that was given up ends a little later
        yield web
    web.loop.close()


def ask(web, authority, path="/x", host=NAME, *, addresses=("127.0.0.1",), timeout_s=60.0, body=None, any_address=True):
    """One GET, or POST with a body."""

    async def query(kind: str, name: str) -> LookupDone:
        found = list(addresses) if kind == "A" else []
        return LookupDone(0, "ok" if found else "tempfail", found, 60, reason="no server answers")

    async def talk() -> Answer:
        context = new_client_context(authorities=authority.file.read_bytes(), label="ca")
        client = HttpsClient(query, context, port=web.port, any_address=any_address)
        try:
            if body is None:
                return await client.get(host, path, limit_bytes=LIMIT, timeout_s=timeout_s)
            headers = {"Content-Type": "application/x"}
            return await client.post(host, 0, path, body, headers, limit_bytes=LIMIT, timeout_s=timeout_s)
        finally:
            await client.close()

    return web.loop.run_until_complete(talk())


def refused(*args, **kwargs) -> HttpsError:
    with pytest.raises(HttpsError) as caught:
        ask(*args, **kwargs)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_text(web, authority):
    web.answers[NAME, "/x"] = (200, {"Content-Type": "Text/Plain; charset=utf-8"}, b"x" * LIMIT)
    assert ask(web, authority) == Answer(200, "text/plain", b"x" * LIMIT)
    assert web.asked[-1].headers["Accept-Encoding"] == "identity"


def test_a_body_over_the_limit(web, authority):
    web.answers[NAME, "/x"] = (200, TEXT, b"x" * (LIMIT + 1))
    assert refused(web, authority).kind == "size"


def test_a_redirect_is_not_followed_and_no_cookie_is_kept(web, authority):
    web.answers[NAME, "/x"] = (302, {"Location": "/y", "Set-Cookie": "a=b"}, b"")
    before = len(web.asked)
    assert ask(web, authority).status == 302
    assert len(web.asked) == before + 1


def test_a_certificate_for_another_name(web, authority):
    error = refused(web, authority, host="other.test")
    assert error.kind == "certificate"
    assert "other.test" in str(error)


def test_an_authority_that_is_not_trusted(web, authority, tmp_path):
    error = refused(web, Authority(tmp_path, "stranger"))
    assert error.kind == "certificate"


def test_a_server_that_does_not_answer(web, authority):
    """One of its own: what it hears late would be taken for what another test asks."""
    done = threading.Event()

    def wait(_):
        done.wait(60)
        return 200, TEXT, b""

    with WebServer({NAME: authority.issue("slow", [f"DNS:{NAME}"])}) as slow:
        slow.answers[NAME, "/slow"], slow.loop = wait, web.loop
        try:
            assert refused(slow, authority, "/slow", timeout_s=0.5).kind == "timeout"
        finally:
            done.set()


def test_nobody_listens_and_the_next_address_is_tried(web, authority):
    web.answers[NAME, "/x"] = (200, TEXT, b"ok")
    assert refused(web, authority, addresses=("127.0.0.9",)).kind == "connect"
    assert ask(web, authority, addresses=("127.0.0.9", "127.0.0.1")).body == b"ok"


def test_no_address(web, authority):
    error = refused(web, authority, addresses=())
    assert error.kind == "dns"
    assert "no server answers" in str(error)


def test_addresses_of_this_host_are_for_tests_only(web, authority):
    before = len(web.asked)
    assert refused(web, authority, any_address=False).kind == "dns"
    assert len(web.asked) == before


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "::", "::ffff:127.0.0.1", "169.254.1.1", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255",
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::1",
        "2001:0:5ef5:79fd:0:0:f5ff:fffe",
    ],
)  # fmt: skip
def test_addresses_of_this_host_and_inside(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe", "64:ff9b::909:909"])
def test_addresses_of_others(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("mta-sts.x@inside.test/private#.example", "/x"), ("mta-sts.a.test:8443", "/x"), ("mta-sts.a.test?b", "/x"), ("127.0.0.1 ", "/x"),
        ("a.test", "x"), ("a.test", "/x\r\nX-Y: z"), ("a.test", "/x y"), ("", "/x"), ("-a.test", "/x"), ("a" * 64 + ".test", "/x"),
    ],
)  # fmt: skip
def test_names_that_would_be_another_place(web, authority, host, path):
    before = len(web.asked)
    assert str(refused(web, authority, path, host=host)) == "it is not the name of a web server"
    assert len(web.asked) == before


def test_a_compressed_answer_is_refused(web, authority):
    web.answers[NAME, "/x"] = (200, TEXT | {"Content-Encoding": "gzip"}, b"\x1f\x8b")
    assert refused(web, authority).kind == "http"


def test_a_header_without_end(web, authority):
    web.answers[NAME, "/x"] = (200, TEXT | {"X-Long": "y" * 20000}, b"")
    assert refused(web, authority).kind == "http"


def test_a_body_is_posted(web, authority):
    web.answers[NAME, "/in"] = (201, TEXT, b"")
    assert ask(web, authority, "/in", body=b"\x00report").status == 201
    assert web.asked[-1].method == "POST"
    assert web.asked[-1].body == b"\x00report"
    assert web.asked[-1].headers["Content-Type"] == "application/x"


def test_warming_up_works_on_both_loops():
    uvloop.run(warm_up())
    asyncio.run(warm_up())
