"""The receiver's side of AUTH: users that do not exist look like those that do, threads are bounded, keys are chosen with care."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gatepost.config import argon2id
from gatepost.config.schema import Auth
from gatepost.config.usersfile import User, Users
from gatepost.model import ScramVerifier
from gatepost.roles import authenticator
from gatepost.roles.authenticator import Authenticator
from gatepost.roles.tokens import TokenKeysError, Tokens
from gatepost.smtp.auth import AWAY
from gatepost.smtp.events import AuthEnd, AuthQuestion
from gatepost.smtp.reply import Reply
from gatepost.smtp.sasl.mechanism import PasswordOf, VerifierOf
from gatepost.smtp.sasl.scram import derive_verifier


class Loop:
    """Runs nothing by itself; `later` are delays and calls, `calls` come from threads."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.calls: list[Callable[[], None]] = []
        self.came = threading.Semaphore(0)

    def time(self) -> float:
        return 1000.0

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        self.later.append((delay_s, lambda: call(*arguments)))

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(lambda: call(*arguments))
        self.came.release()

    def run_one(self) -> None:
        assert self.came.acquire(timeout=60)
        self.calls.pop(0)()


class Session:
    def __init__(self) -> None:
        self.answers: list[object] = []

    def answer_auth(self, value: object) -> None:
        self.answers.append(value)

    def answer(self, reply: Reply | None = None) -> None:
        self.answers.append(reply)


def connection(address: str = "192.0.2.1") -> Any:
    transport = SimpleNamespace(is_closing=lambda: False)
    return SimpleNamespace(
        session=Session(), address=address, session_id="s", transport=transport, advance=lambda: None
    )


ANNA = User(name="anna", scram={"sha256": derive_verifier("secret", b"s" * 16, 4096)})
BOB = User(name="bob", argon2id=argon2id.derive("secret"))


def make(*users: User, secret: bytes = b"k" * 32, **auth: Any) -> tuple[Authenticator, Loop, list[dict[str, Any]]]:
    loop, events = Loop(), []
    made = Authenticator(
        Auth(**({"delay_s": 1.0, "max_failures": 3} | auth)),
        Users(secret, {user.name: user for user in users}),
        None,
        loop,
        event=lambda name, **fields: events.append({"event": name} | fields),
        granted=lambda connection, user: events.append({"event": "granted", "user": user}),
    )
    return made, loop, events


def verifier(made: Authenticator, name: str, address: str = "192.0.2.1") -> ScramVerifier:
    asking = connection(address)
    made.answer(asking, AuthQuestion("SCRAM-SHA-256", VerifierOf(name, "sha256")))
    (found,) = asking.session.answers
    assert isinstance(found, ScramVerifier)
    return found


def test_a_user_that_does_not_exist_has_a_verifier_like_the_others_and_always_the_same() -> None:
    first = verifier(make(ANNA)[0], "nobody")
    again = verifier(make(ANNA)[0], "nobody")
    other = verifier(make(ANNA)[0], "nobody2")
    another_gateway = verifier(make(ANNA, secret=b"x" * 32)[0], "nobody")
    known = verifier(make(ANNA)[0], "anna")
    assert first == again
    assert len({first.salt, other.salt, another_gateway.salt, known.salt}) == 4
    for found in (first, other):
        assert (found.iterations, len(found.salt)) == (known.iterations, len(known.salt))
        assert [len(found.stored_key), len(found.server_key)] == [32, 32]
    assert verifier(make(BOB)[0], "bob").iterations == authenticator.NEW_ITERATIONS  # has none of his own


@pytest.mark.parametrize(
    ("name", "password", "matches"),
    [
        ("anna", "secret", True),
        ("anna", "Secret", False),
        ("bob", "secret", True),
        ("bob", "wrong", False),
        ("nobody", "secret", False),
        ("nobody2", "secret", False),
        ("nobody3", "secret", False),
    ],
)
def test_passwords(name: str, password: str, matches: bool) -> None:
    made, loop, _ = make(ANNA, BOB)
    asking = connection()
    made.answer(asking, AuthQuestion("PLAIN", PasswordOf(name, password)))
    assert asking.session.answers == []
    loop.run_one()
    assert asking.session.answers == [matches]


def test_without_users_a_password_is_checked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(authenticator, "is_password", lambda kept, password: checked.append(kept) or True)
    made, loop, _ = make()
    asking = connection()
    made.answer(asking, AuthQuestion("PLAIN", PasswordOf("nobody", "x")))
    loop.run_one()
    assert asking.session.answers == [False]
    assert len(checked) == 1


@pytest.mark.parametrize("users", [(ANNA,), (BOB,)])
def test_an_unknown_user_costs_what_a_wrong_password_costs(
    users: tuple[User, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[object] = []
    monkeypatch.setattr(authenticator, "is_password", lambda kept, password: checked.append(kept.iterations) or False)
    monkeypatch.setattr(argon2id, "is_password", lambda kept, password: checked.append("argon2id") or False)
    made, loop, _ = make(*users)
    for name in (users[0].name, "nobody"):
        asking = connection()
        made.answer(asking, AuthQuestion("PLAIN", PasswordOf(name, "wrong")))
        loop.run_one()
        assert asking.session.answers == [False]
    assert len(checked) == 2 and checked[0] == checked[1]


def test_checks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    at_once: list[int] = []
    lock = threading.Lock()
    running = 0

    def slow(kept: ScramVerifier, password: str) -> bool:
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        go_on.wait(60)
        with lock:
            running -= 1
        return False

    monkeypatch.setattr(authenticator, "is_password", slow)
    made, loop, events = make(ANNA, concurrent_checks=2, max_waiting_checks=3, max_failures=100)
    askers = [connection(f"192.0.2.{n}") for n in range(7)]
    for asking in askers:
        made.answer(asking, AuthQuestion("PLAIN", PasswordOf("anna", "x")))
    assert [asking.session.answers for asking in askers] == [[]] * 5 + [[AWAY]] * 2
    assert events[-1]["cause"] == "too many passwords wait to be checked"
    go_on.set()
    for _ in range(5):
        loop.run_one()
    assert max(at_once) <= 2
    assert [asking.session.answers for asking in askers[:5]] == [[False]] * 5
    late = connection()
    made.answer(late, AuthQuestion("PLAIN", PasswordOf("anna", "x")))
    loop.run_one()
    assert late.session.answers == [False]


def test_a_failed_check_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kept: ScramVerifier, password: str) -> bool:
        raise MemoryError("no memory")

    monkeypatch.setattr(authenticator, "is_password", broken)
    made, loop, events = make(ANNA, max_failures=1)
    for _ in range(3):  # and counts for nothing
        asking = connection()
        made.answer(asking, AuthQuestion("PLAIN", PasswordOf("anna", "x")))
        loop.run_one()
        assert asking.session.answers == [AWAY]
    assert events[-1]["event"] == "error"


def test_refusals_come_late_and_then_not_at_all() -> None:
    made, loop, events = make(ANNA)
    for delay_s in (1.0, 2.0, 4.0):
        verifier(made, "anna")
        asking = connection()
        made.end(asking, AuthEnd("SCRAM-SHA-256", "anna", False, "wrong name or password"))
        assert asking.session.answers == []
        assert loop.later[-1][0] == delay_s
        loop.later[-1][1]()
        assert asking.session.answers == [None]
    locked = connection()
    made.answer(locked, AuthQuestion("SCRAM-SHA-256", VerifierOf("anna", "sha256")))
    assert locked.session.answers == [AWAY]
    assert events[-1] == {
        "event": "auth_failed", "session": "s", "address": "192.0.2.1", "user": "anna", "mechanism": "SCRAM-SHA-256",
        "cause": "locked out",
    }  # fmt: skip


def test_a_login_is_answered_at_once() -> None:
    made, loop, events = make(ANNA)
    verifier(made, "anna")
    asking = connection()
    made.end(asking, AuthEnd("SCRAM-SHA-256", "anna", True, ""))
    assert asking.session.answers == [None]
    assert [event["event"] for event in events] == ["auth_ok", "granted"]
    assert loop.later == []


# --- tokens -------------------------------------------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSA, jwt.algorithms.RSAAlgorithm),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm),
}


def jwks(*names: str, **more: str) -> bytes:
    keys = []
    for name in names:
        key, algorithm = KEYS[name]
        keys.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name} | more)
    return json.dumps({"keys": keys}).encode()


def tokens(keys: bytes) -> Tokens:
    return Tokens(keys, issuer="https://i.test", audience="gatepost", user_claim="email")


def token(name: str, *, kid: str | None = None, **changes: Any) -> str:
    claims = {"iss": "https://i.test", "aud": "gatepost", "exp": int(time.time()) + 60, "email": "Anna@example.test"}
    headers = {"kid": kid if kid is not None else name}
    return jwt.encode(
        {k: v for k, v in (claims | changes).items() if v is not None}, KEYS[name][0], name, headers=headers
    )


@pytest.mark.parametrize("name", KEYS)
def test_each_algorithm(name: str) -> None:
    made = tokens(jwks(*KEYS))
    assert made.user_of(token(name), "") == "anna@example.test"
    assert made.user_of(token(name), "anna@example.test") == "anna@example.test"
    assert made.user_of(token(name), "bob@example.test") == ""
    assert made.user_of(token(name, aud=["x", "gatepost"]), "") == "anna@example.test"


@pytest.mark.parametrize(
    "changes",
    [{"iss": None}, {"aud": None}, {"exp": None}, {"exp": 1}, {"nbf": 2**40}, {"aud": "x"}, {"email": None}, {"email": ["a"]},
     {"email": "a b"}, {"email_verified": False}],
)  # fmt: skip
def test_claims(changes: dict[str, Any]) -> None:
    assert tokens(jwks("ES256")).user_of(token("ES256", **changes), "") == ""


def test_a_key_is_used_for_its_own_algorithm_only() -> None:
    made = tokens(jwks("RS256", "ES256"))
    assert made.user_of(token("ES256", kid="RS256"), "") == ""
    assert made.user_of(token("ES256", kid="unknown"), "") == ""
    assert made.user_of(token("ES256", kid=""), "") == ""
    assert tokens(jwks("ES256")).user_of(token("ES256", kid=""), "") == "anna@example.test"
    claims = {"iss": "https://i.test", "aud": "gatepost", "exp": int(time.time()) + 60, "email": "anna@example.test"}
    assert made.user_of(jwt.encode(claims, None, "none", headers={"kid": "RS256"}), "") == ""
    secret = jwks("RS256")[:64]
    assert made.user_of(jwt.encode(claims, secret, "HS256", headers={"kid": "RS256"}), "") == ""
    for garbage in ("", "a", "a.b.c", "." * 50, "e30.e30.e30"):
        assert made.user_of(garbage, "") == ""


@pytest.mark.parametrize(
    "keys",
    [b"", b"[]", b"{}", b'{"keys": 5}', b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}',
     b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "x"}]}', jwks("ES256", use="enc"), jwks("ES256", alg="HS256")],
)  # fmt: skip
def test_key_files_that_are_no_use(keys: bytes) -> None:
    with pytest.raises(TokenKeysError, match=r"auth\.jwks_file"):
        tokens(keys)


@pytest.mark.parametrize(
    ("said", "name"), [("anna", "anna"), ("", ""), ("uid:root", ""), ("*@example.test", ""), ("a\u0007", "")]
)
def test_a_name_that_dovecot_says_is_no_user_of_this_host_and_no_pattern(said: str, name: str) -> None:
    class Said:
        def check(self, user: str, password: str, told: Callable[[str], None], **about: object) -> None:
            told(said)

    loop = Loop()
    loop.call_soon = lambda call, *arguments: call(*arguments)  # type: ignore[attr-defined]
    made = Authenticator(
        Auth(), Users(b"k" * 32), None, loop, event=lambda *_, **__: None, granted=lambda *_: None, dovecot=Said()  # type: ignore[arg-type]
    )  # fmt: skip
    client = connection()
    client.local_address, client.session.settings = "192.0.2.2", SimpleNamespace(is_secured=True)
    made.answer(client, AuthQuestion("PLAIN", PasswordOf("someone", "secret")))
    assert client.session.answers == [name]
