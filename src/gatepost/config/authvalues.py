"""What spans several keys of `[auth]`, and what follows from them: the files a receiver is handed, the mechanisms of a listener. Pure
but for reading the users file, whose errors are errors of the configuration."""

from __future__ import annotations

from gatepost.config.errors import ConfigErrors, Findings
from gatepost.config.schema import Auth
from gatepost.config.usersfile import read_users
from gatepost.config.values import InvalidValue, parse_address, parse_port, split_host_port

IN_CLEAR = ("SCRAM-SHA-256", "SCRAM-SHA-1")  # nothing that could be used again goes over the wire
PASSWORDS = ("PLAIN", "LOGIN")
TOKENS = ("OAUTHBEARER", "XOAUTH2")


def check_auth(values: dict[str, object], findings: Findings) -> None:
    """Note what does not fit together, and every bad line of the users file."""
    auth = values.get("auth")
    if not isinstance(auth, dict):
        return
    path = auth.get("users_file")
    if auth.get("dovecot") is not None:
        for key in ("users_file", "jwks_file"):
            if auth.get(key) is not None:
                problem = f"{key} and dovecot both say who the users are"
                findings.add(("auth", "dovecot"), problem, f"remove dovecot or {key}")
        return
    if path is None:
        if auth and not any(error.key.startswith("auth") for error in findings.errors):
            advice = 'write users_file = "users", and add users with: gatepost user add'
            findings.add(("auth",), "the key users_file is missing: nobody can authenticate", advice)
        return
    if auth.get("jwks_file"):
        for key in ("issuer", "audience"):
            if not auth.get(key):
                problem = f'tokens would be taken whatever their {key}: the key "{key}" is missing'
                findings.add(("auth", "jwks_file"), problem, f'write {key} = "..." as the authorization server does')
    try:
        read_users(str(path))
    except ConfigErrors as errors:
        findings.errors.extend(errors.errors)


def parse_dovecot(text: str) -> str:
    """ "unix:/PATH", or "inet:ADDRESS:PORT" on this host, as passwords go over it in clear."""
    kind, _, rest = text.partition(":")
    advice = 'write "unix:/run/dovecot/auth-client" or "inet:127.0.0.1:12345"'
    if kind == "unix" and rest.startswith("/"):
        return text
    if kind != "inet":
        raise InvalidValue(f'"{text}" is no authentication socket', advice)
    host, port = split_host_port(rest, text)
    address = parse_address(host)
    if not address.is_loopback:
        raise InvalidValue(f"{address} is another host, and passwords would go there in clear", advice)
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"inet:{shown}:{parse_port(port, text)}"


def has_users(auth: Auth) -> bool:
    """Whether anybody can authenticate by AUTH at all."""
    return auth.users_file is not None or auth.dovecot is not None


def auth_files(auth: Auth) -> list[str]:
    """The files that a receiver is handed, in order: users, then keys of tokens."""
    if auth.users_file is None:
        return []
    return [auth.users_file] + ([auth.jwks_file] if auth.jwks_file is not None else [])


def offered_mechanisms(auth: Auth, kind: str, *, secured: bool, asks_certificate: bool) -> tuple[str, ...]:
    """What a listener of this kind offers, strongest first as configured."""
    if not has_users(auth) or (kind == "edge" and not auth.on_edge):
        return ()
    if not secured:
        return () if auth.dovecot is not None or auth.require_tls else tuple(name for name in auth.mechanisms if name in IN_CLEAR)
    if auth.dovecot is not None:
        return tuple(name for name in auth.mechanisms if name in PASSWORDS)
    return tuple(
        name
        for name in auth.mechanisms
        if (name != "EXTERNAL" or asks_certificate) and (name not in TOKENS or auth.jwks_file is not None)
    )
