"""SCRAM: the vectors of RFC 5802 and RFC 7677, scramp as a client, and what a client may do wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.model import ScramVerifier
from gatepost.smtp.sasl import scram as module
from gatepost.smtp.sasl.mechanism import Challenge, Done, Malformed, Security, VerifierOf
from gatepost.smtp.sasl.scram import derive_verifier, is_password, parse_saslname, scram

VECTORS = [
    (
        "sha1", "QSXCR+Q6sek8bf92", b"fyko+d2lbbFgONRv9qkxdawL", b"3rfcNHYJY1ZVvWVs7j",
        b"biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", b"rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        "sha256", "W22ZaJ0SNY7soEsUEjb6gQ==", b"rOprNGfwEbeRWgbNEkqO", b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        b"biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]  # fmt: skip
VERIFIER = derive_verifier("pencil", b"salt of sixteen!", 4096)
NO_TLS = Security()
TLS = Security(bindings={"tls-server-end-point": (b"\x00" * 32, b"\x01" * 32), "tls-unique": (b"\x02" * 12,)})


@pytest.mark.parametrize(("algorithm", "salt", "client_nonce", "server_nonce", "tail", "signature"), VECTORS)
def test_vectors(
    algorithm: str, salt: str, client_nonce: bytes, server_nonce: bytes, tail: bytes, signature: bytes
) -> None:
    verifier = derive_verifier("pencil", base64.b64decode(salt), 4096, algorithm)
    exchange = scram(b"n,,n=user,r=" + client_nonce, NO_TLS, False, algorithm, plus=False, nonce=server_nonce)
    assert next(exchange) == VerifierOf("user", algorithm)
    first = exchange.send(verifier)
    assert first == Challenge(b"r=" + client_nonce + server_nonce + b",s=" + salt.encode() + b",i=4096")
    assert exchange.send(b"c=" + tail) == Challenge(b"v=" + signature)
    with pytest.raises(StopIteration) as end:
        exchange.send(b"")
    assert end.value.value == Done(True, "user")


def play(
    client: scramp.client.ScramClient,
    verifier: ScramVerifier = VERIFIER,
    security: Security = NO_TLS,
    plus: bool = False,
    change: Callable[[str], str] = lambda text: text,
) -> Done:
    """The whole exchange with scramp; `change` is done to the client's last message."""
    first = client.get_client_first()
    exchange = scram(first.encode(), security, False, "sha256", plus=plus)
    assert isinstance(next(exchange), VerifierOf)
    challenge = exchange.send(verifier)
    assert isinstance(challenge, Challenge)
    client.set_server_first(challenge.octets.decode())
    try:
        last = exchange.send(change(client.get_client_final()).encode())
        assert isinstance(last, Challenge)
        client.set_server_final(last.octets.decode())
        exchange.send(b"")
    except StopIteration as end:
        assert isinstance(end.value, Done)
        return end.value
    raise AssertionError("the exchange did not end")


def client(password: str = "pencil", user: str = "anna", **more: object) -> scramp.client.ScramClient:
    return scramp.ScramClient(["SCRAM-SHA-256-PLUS" if more else "SCRAM-SHA-256"], user, password, **more)


def test_scramp_is_content() -> None:
    assert play(client()) == Done(True, "anna")
    assert play(client(user="Anna,=@Example.Test")) == Done(True, "anna,=@example.test")


def test_a_wrong_password_and_an_unknown_user_end_alike() -> None:
    wrong = play(client("pencil2"))
    nobody = play(client(), ScramVerifier("sha256", 4096, b"s" * 16, bytes(32), bytes(32)))
    assert wrong == nobody == Done(False, "anna", "wrong name or password")


@pytest.mark.parametrize("kind", ["tls-server-end-point", "tls-unique"])
def test_channel_binding(kind: str) -> None:
    binding = (kind, TLS.bindings[kind][-1])
    assert play(client(channel_binding=binding), security=TLS, plus=True) == Done(True, "anna")
    other = (kind, b"\x03" * len(binding[1]))  # another TLS connection: somebody sits between
    done = play(client(channel_binding=other), security=TLS, plus=True)
    assert (done.granted, done.cause) == (False, "the channel binding does not match")


def test_a_client_that_was_told_there_is_no_binding_is_refused() -> None:
    exchange = scram(b"y,,n=anna,r=abc", TLS, True, "sha256", plus=False)
    next(exchange)
    challenge = exchange.send(VERIFIER)
    assert isinstance(challenge, Challenge)
    nonce = challenge.octets.split(b",")[0]
    with pytest.raises(StopIteration) as end:
        exchange.send(b"c=eSws," + nonce + b",p=" + base64.b64encode(bytes(32)))
    assert not end.value.value.granted
    assert "downgrade" in end.value.value.cause


def test_acting_as_another_is_refused() -> None:
    for acting_as, granted in ((b"anna", True), (b"ANNA", True), (b"boss", False)):
        with_scramp = client()
        first = with_scramp.get_client_first()
        exchange = scram(
            first.encode().replace(b"n,,", b"n,a=" + acting_as + b",", 1), NO_TLS, False, "sha256", plus=False
        )
        next(exchange)
        exchange.send(VERIFIER)
        with pytest.raises(StopIteration) as end:
            exchange.send(_final(first[3:].encode(), b"n,a=" + acting_as + b",", exchange))
        assert not granted or end.value.value.granted is False  # a proof for other words never counts
        assert ("another user" in end.value.value.cause) is not granted


def _final(bare: bytes, header: bytes, exchange: object) -> bytes:
    frame = exchange.gi_frame.f_locals  # type: ignore[attr-defined]
    return b"c=" + base64.b64encode(header) + b",r=" + frame["whole_nonce"] + b",p=" + base64.b64encode(bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("c=biws", "c=biwt"),  # another header than in the first message
        lambda text: text.replace("r=", "r=x"),
        lambda text: text[: text.index(",p=")] + ",p=" + base64.b64encode(bytes(32)).decode(),
        lambda text: text[: text.index(",p=")] + ",p=" + base64.b64encode(bytes(31)).decode(),
    ],
)
def test_a_changed_final_message_is_refused(change: Callable[[str], str]) -> None:
    assert not play(client(), change=change).granted


@pytest.mark.parametrize(
    "first",
    [
        b"", b"n", b"n,,", b"n,,n=user", b"n,,n=user,r=", b"n,,r=abc,n=user", b"x,,n=user,r=abc", b"p=tls-unique,,n=user,r=abc",
        b"n,,m=x,n=user,r=abc", b"n,,n=us=er,r=abc", b"n,,n=us\0er,r=abc", b"n,,n=\xff,r=abc", b"n,,n=user,r=a\x7fc",
        b"n,,n=" + b"u" * 400 + b",r=abc", b"n,,n=user,r=" + b"x" * 300, b"n,,n=user,r=abc," + b"x=" + b"y" * 5000,
    ],
)  # fmt: skip
def test_malformed_first(first: bytes) -> None:
    with pytest.raises(Malformed):
        next(scram(first, TLS, True, "sha256", plus=False))


@pytest.mark.parametrize("first", [b"n,,n=user,r=abc", b"y,,n=user,r=abc", b"p=tls-exporter,,n=user,r=abc"])
def test_plus_wants_a_binding_that_we_have(first: bytes) -> None:
    with pytest.raises(Malformed):
        next(scram(first, TLS, True, "sha256", plus=True))


@pytest.mark.parametrize(
    "final", [b"", b"c=biws", b"c=biws,r=abc", b"r=abc,c=biws,p=AA==", b"c=biws,r=abc,p=A", b"c=b,r=abc,p=AA=="]
)
def test_malformed_final(final: bytes) -> None:
    exchange = scram(b"n,,n=user,r=abc", NO_TLS, False, "sha256", plus=False)
    next(exchange)
    exchange.send(VERIFIER)
    with pytest.raises(Malformed):
        exchange.send(final)


def test_names() -> None:
    assert parse_saslname(b"a=2Cb=3D=3D2C") == "a,b==2C"
    for bad in (b"a=", b"a=2", b"a=2c", b"=3d"):
        with pytest.raises(Malformed):
            parse_saslname(bad)


def test_a_verifier_checks_a_password_and_does_not_show_itself() -> None:
    assert is_password(VERIFIER, "pencil")
    assert not is_password(VERIFIER, "Pencil")
    assert repr(VERIFIER) == "ScramVerifier(sha256, 4096)"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from([b"n,,n=user,r=abc", b"y,,n=u,r=a", b"p=tls-unique,,n=u,r=a", b"c=biws,r=abc,p=AAAA", b""]),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_input_ends_in_a_value_or_malformed(messages: list[bytes], plus: bool) -> None:
    exchange = scram(None, TLS, True, "sha256", plus=plus)
    try:
        step = next(exchange)
        for message in messages:
            step = exchange.send(message)
            if isinstance(step, VerifierOf):
                step = exchange.send(VERIFIER)
            assert isinstance(step, Challenge)
    except Malformed:
        pass
    except StopIteration as end:
        assert not end.value.granted


def test_a_proof_over_another_nonce_is_refused() -> None:
    for nonce, granted in ((b"abcSERVER", True), (b"abcOTHER", False)):
        exchange = scram(b"n,,n=anna,r=abc", NO_TLS, False, "sha256", plus=False, nonce=b"SERVER")
        next(exchange)
        challenge = exchange.send(VERIFIER)
        assert isinstance(challenge, Challenge)
        salted = hashlib.pbkdf2_hmac("sha256", b"pencil", VERIFIER.salt, VERIFIER.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        bare = b"c=biws,r=" + nonce
        message = b"n=anna,r=abc," + challenge.octets + b"," + bare
        signature = hmac.digest(VERIFIER.stored_key, message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        final = bare + b",p=" + base64.b64encode(proof)
        if granted:
            assert isinstance(exchange.send(final), Challenge)
            continue
        with pytest.raises(StopIteration) as end:
            exchange.send(final)
        assert end.value.value == Done(False, "anna", "the nonce does not match")


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    kept = derive_verifier("secret", b"0123456789abcdef", 4096)
    assert is_password(kept, "secret") and not is_password(kept, "Secret")
    assert not module._is_proof(kept, b"\0" * 32, b"message")
    assert compared == [kept.stored_key] * 3
