"""Tokens of an authorization server (RFC 7519, RFC 9068): checked against its public keys, which the supervisor hands over.

Only signatures that are listed here, and only with the key that the token names; issuer, audience and expiry must be right. pyjwt and
cryptography (the extra `oauth`) are loaded where keys are configured, before the lock-in. Tokens that only their server can read are asked about (`introspector.py`).
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name

LEEWAY_S = 30
MAX_KEYS = 64


class TokenKeysError(ValueError):
    """The key file, or what is installed, does not allow tokens to be checked; the text says what to do."""


class Tokens:
    """The keys of one configuration."""

    def __init__(self, jwks: bytes, *, issuer: str, audience: str, user_claim: str) -> None:
        try:
            self._jwt: Any = importlib.import_module("jwt")
            importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        except ImportError:
            raise TokenKeysError("tokens need the extra packages: pip install 'gatepost[oauth]'") from None
        self._issuer = issuer
        self._audience = audience
        self._user_claim = user_claim
        self._keys: dict[str, Any] = {}
        for key in _read_keys(jwks):
            algorithm = _algorithm_of(key)
            if algorithm is not None and key.get("use", "sig") == "sig":
                try:
                    self._keys[str(key.get("kid", ""))] = (self._jwt.PyJWK(key, algorithm), algorithm)
                except self._jwt.PyJWTError as error:
                    raise TokenKeysError(f"auth.jwks_file: a key cannot be used ({error})") from None
        if not self._keys:
            raise TokenKeysError("auth.jwks_file has no key for RS256, ES256 or EdDSA")
        self._warm_up()

    def user_of(self, token: str, claimed: str) -> str:
        """The user that a token stands for; empty if it is not valid or not for the user that is claimed."""
        try:
            kid = str(self._jwt.get_unverified_header(token).get("kid", ""))
            if kid not in self._keys and len(self._keys) == 1 and not kid:
                kid = next(iter(self._keys))
            key, algorithm = self._keys[kid]
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"], "verify_signature": True},
            )
            user = user_of_claims(claims, self._user_claim)
        except (self._jwt.PyJWTError, KeyError, ValueError, TypeError, RecursionError):
            return ""
        return user if not claimed or claimed == user else ""

    def _warm_up(self) -> None:
        """What is loaded lazily is loaded now: later there is no file system."""
        for kid, (_, algorithm) in self._keys.items():
            header = msgspec.json.encode({"alg": algorithm, "kid": kid, "typ": "JWT"})
            encode = self._jwt.utils.base64url_encode
            self.user_of(b".".join((encode(header), encode(b"{}"), encode(bytes(64)))).decode(), "")


def user_of_claims(claims: dict[str, Any], user_claim: str) -> str:
    """The user that claims name, as it is compared here; empty if they name none."""
    name = claims.get(user_claim)
    if user_claim == "email" and claims.get("email_verified", True) not in (True, "true"):  # some write it as text
        return ""
    try:
        return prepare_name(name) if isinstance(name, str) and name else ""
    except NotPreparable:
        return ""


def _read_keys(jwks: bytes) -> list[dict[str, Any]]:
    try:
        keys = msgspec.json.decode(jwks, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, KeyError):
        raise TokenKeysError('auth.jwks_file is not a JWKS: {"keys": [...]} is wanted') from None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(isinstance(key, dict) for key in keys):
        raise TokenKeysError(f"auth.jwks_file is not a JWKS of at most {MAX_KEYS} keys")
    return keys


def _algorithm_of(key: dict[str, Any]) -> str | None:
    """The one algorithm that a key is used with here; symmetric keys never are."""
    kind, curve = key.get("kty"), key.get("crv")
    found = {"RSA": "RS256"}.get(str(kind)) or {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}.get(
        (str(kind), str(curve))
    )
    return found if key.get("alg", found) == found else None
