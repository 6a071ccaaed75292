"""SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, the server that it knows the verifier.

Own code, with scramp as the oracle of its tests: see docs/decisions. Invariants: a user that does not exist gets the same
messages and the same work as one that does; every comparison of a secret takes constant time; a client that says "y" where
-PLUS was offered has been lied to by somebody between, and is refused (RFC 5802 6).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from gatepost.model import ScramVerifier
from gatepost.smtp.sasl.mechanism import Challenge, Done, Exchange, Malformed, Security, VerifierOf, parse_name
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name

NONCE_BYTES = 18
MAX_CLIENT_NONCE = 256
MAX_MESSAGE_BYTES = 4096

_FIRST = re.compile(
    rb"(n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,(n=([^,]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,]*)*)"
).fullmatch
_FINAL = re.compile(rb"(c=([A-Za-z0-9+/]+=*),r=([!-+\--~]+)(?:,[A-Za-oq-z]=[^,]*)*),p=([A-Za-z0-9+/]+=*)").fullmatch


def derive_verifier(password: str, salt: bytes, iterations: int, algorithm: str = "sha256") -> ScramVerifier:
    """What a server keeps of a prepared password. Slow on purpose; OpenSSL does it without the interpreter's lock."""
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode("utf-8"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return ScramVerifier(algorithm, iterations, salt, hashlib.new(algorithm, client_key).digest(), server_key)


def is_password(verifier: ScramVerifier, password: str) -> bool:
    """Whether a prepared password belongs to the verifier; slow on purpose."""
    derived = derive_verifier(password, verifier.salt, verifier.iterations, verifier.algorithm)
    return hmac.compare_digest(derived.stored_key, verifier.stored_key)


def parse_saslname(octets: bytes) -> str:
    """RFC 5802 5.1: "=2C" is a comma, "=3D" an equals sign, any other "=" an error."""
    if b"\0" in octets or b"=" in octets.replace(b"=2C", b"").replace(b"=3D", b""):
        raise Malformed("not a name of SCRAM")
    return parse_name(octets.replace(b"=2C", b",").replace(b"=3D", b"="))


def scram_sha_256(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """SCRAM-SHA-256 without channel binding."""
    return scram(initial, security, plus_offered, "sha256", plus=False)


def scram_sha_256_plus(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """SCRAM-SHA-256-PLUS: the proof is bound to this TLS connection."""
    return scram(initial, security, plus_offered, "sha256", plus=True)


def scram_sha_1(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """SCRAM-SHA-1, for clients that know nothing better."""
    return scram(initial, security, plus_offered, "sha1", plus=False)


def scram(
    initial: bytes | None,
    security: Security,
    plus_offered: bool,
    algorithm: str,
    *,
    plus: bool,
    nonce: bytes | None = None,
) -> Exchange:
    """The exchange; `nonce` is the server's part, random unless a test vector says otherwise."""
    first = initial if initial is not None else (yield Challenge(b""))
    match = _FIRST(first) if len(first) <= MAX_MESSAGE_BYTES else None
    if match is None or len(match[6]) > MAX_CLIENT_NONCE:
        raise Malformed("not a first message of SCRAM")
    flag, binding_type, acting_as, first_bare, raw_name, client_nonce = match.groups()
    name = parse_saslname(raw_name)
    cause = ""
    try:
        name = prepare_name(name)
        if acting_as and prepare_name(parse_saslname(acting_as)) != name:
            cause = "it wants to act as another user"
    except NotPreparable:
        cause = "the name cannot be prepared"
    bound = _bound_data(flag, binding_type, security, plus)
    if flag == b"y" and plus_offered:
        cause = "channel binding was hidden from the client: a downgrade"
    verifier = yield VerifierOf(name, algorithm)
    whole_nonce = client_nonce + (nonce or b2a_base64(os.urandom(NONCE_BYTES), newline=False))
    salt = b2a_base64(verifier.salt, newline=False)
    server_first = b"r=%b,s=%b,i=%d" % (whole_nonce, salt, verifier.iterations)
    final = yield Challenge(server_first)
    match = _FINAL(final) if len(final) <= MAX_MESSAGE_BYTES else None
    if match is None:
        raise Malformed("not a final message of SCRAM")
    without_proof, binding, echoed, proof = match.groups()
    header = first[: len(first) - len(first_bare)]
    if _decode(binding) not in [header + data for data in bound]:
        cause = cause or "the channel binding does not match"
    if not hmac.compare_digest(echoed, whole_nonce):
        cause = cause or "the nonce does not match"
    message = b"%b,%b,%b" % (first_bare, server_first, without_proof)
    proves = _is_proof(verifier, _decode(proof), message)
    if cause or not proves:
        return Done(False, name, cause or "wrong name or password")
    signature = hmac.digest(verifier.server_key, message, algorithm)
    last = yield Challenge(b"v=" + b2a_base64(signature, newline=False))
    if last:
        raise Malformed("an empty line was expected")
    return Done(True, name)


def _bound_data(flag: bytes, binding_type: bytes | None, security: Security, plus: bool) -> tuple[bytes, ...]:
    if plus != (binding_type is not None):
        raise Malformed("-PLUS and channel binding belong together")
    if binding_type is None:
        return (b"",)
    bound = security.bindings.get(binding_type.decode("ascii"))
    if not bound:
        raise Malformed("a kind of channel binding that is not supported")
    return bound


def _is_proof(verifier: ScramVerifier, proof: bytes, message: bytes) -> bool:
    signature = hmac.digest(verifier.stored_key, message, verifier.algorithm)
    if len(proof) != len(signature):
        return False
    size = len(signature)
    client_key = (int.from_bytes(proof, "big") ^ int.from_bytes(signature, "big")).to_bytes(size, "big")
    return hmac.compare_digest(hashlib.new(verifier.algorithm, client_key).digest(), verifier.stored_key)


def _decode(octets: bytes) -> bytes:
    try:
        return a2b_base64(octets, strict_mode=True)
    except Base64Error:
        raise Malformed("not base64") from None
