"""What spans several keys of `[auth]`, and what follows from them: the files a receiver is handed, the mechanisms of a listener. Pure
but for reading the users file, whose errors are errors of the configuration."""

from __future__ import annotations

from gatepost.config.errors import ConfigErrors, Findings
from gatepost.config.introspection import MAX_CREDENTIALS_BYTES, parse_credentials
from gatepost.config.schema import Auth
from gatepost.config.usersfile import read_users
from gatepost.config.values import InvalidValue, parse_address, parse_port, split_host_port
from gatepost.safeopen import LinkInPath, read_regular

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
        for key in ("users_file", "jwks_file", "introspection_url"):
            if auth.get(key) is not None:
                problem = f"{key} and dovecot both say who the users are"
                findings.add(("auth", "dovecot"), problem, f"remove dovecot or {key}")
        return
    if path is None:
        if auth and not any(error.key.startswith("auth") for error in findings.errors):
            advice = 'write users_file = "users", and add users with: gatepost user add'
            findings.add(("auth",), "the key users_file is missing: nobody can authenticate", advice)
        return
    _check_tokens(auth, findings)
    try:
        read_users(str(path))
    except ConfigErrors as errors:
        findings.errors.extend(errors.errors)


def _check_tokens(auth: dict[str, object], findings: Findings) -> None:
    how = next((key for key in ("jwks_file", "introspection_url") if auth.get(key)), None)
    if how is None:
        return
    for key in ("issuer", "audience") if how == "jwks_file" else ("audience",):
        if not auth.get(key):
            problem = f'tokens would be taken whatever their {key}: the key "{key}" is missing'
            findings.add(("auth", how), problem, f'write {key} = "..." as the authorization server does')
    if auth.get("introspection_url") and how == "jwks_file":
        problem = "jwks_file and introspection_url both say which tokens are good"
        findings.add(("auth", "introspection_url"), problem, "remove one of the two")
    here, path = ("auth", "introspection_credentials_file"), auth.get("introspection_credentials_file")
    if how == "jwks_file":
        return
    advice = 'write "NAME:SECRET" or "Bearer TOKEN" into it, mode 0600'
    if not path:
        if not any(error.key == ".".join(here) for error in findings.errors):
            findings.add(("auth", how), f"the key {here[1]} is missing: no server answers strangers", advice)
        return
    try:
        parse_credentials(read_regular(str(path), 2 * MAX_CREDENTIALS_BYTES))
    except LinkInPath:
        findings.add(here, f'"{path}" is a symbolic link, or lies behind one', "write its real path")
    except OSError as error:
        findings.add(here, f'"{path}" cannot be read ({error.strerror})', "correct the path or the permissions")
    except ValueError as error:
        findings.add(here, f'"{path}": {error}', advice)


def has_tokens(auth: Auth) -> bool:
    """Whether there is a way to tell good tokens from others."""
    return auth.jwks_file is not None or auth.introspection_url is not None


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
        return (
            ()
            if auth.dovecot is not None or auth.require_tls
            else tuple(name for name in auth.mechanisms if name in IN_CLEAR)
        )
    if auth.dovecot is not None:
        return tuple(name for name in auth.mechanisms if name in PASSWORDS)
    return tuple(
        name
        for name in auth.mechanisms
        if (name != "EXTERNAL" or asks_certificate) and (name not in TOKENS or has_tokens(auth))
    )
