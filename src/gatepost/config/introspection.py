"""Where tokens are asked about (RFC 7662): the address of the authorization server, and what we show it. Pure.

A token is a password while it lives, so it goes to a verified server in TLS only. The credentials are the first line of a secret file:
`NAME:SECRET` (HTTP Basic), or `Bearer TOKEN`.
"""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import quote_plus, urlsplit

from gatepost.config.schema import Config
from gatepost.config.tlsvalues import SYSTEM_CA_FILE
from gatepost.config.values import InvalidValue, parse_domain

EXAMPLE = "https://login.example.net/oauth2/introspect"
MAX_CREDENTIALS_BYTES = 4096
_PATH = re.compile(r"/[!-~]*").fullmatch
_BEARER = re.compile(r"Bearer ([A-Za-z0-9._~+/-]+=*)").fullmatch  # RFC 6750 2.1


class Place(NamedTuple):
    """The parts of an address; `path` has the query too."""

    host: str
    port: int
    path: str


def parse_place(text: str) -> Place:
    """`https://HOST[:PORT]/PATH`; raises InvalidValue."""
    advice = f'write "{EXAMPLE}"'
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or 443
    except ValueError:
        raise InvalidValue(f'"{text}" is not an address of a web server', advice) from None
    if url.scheme != "https":
        raise InvalidValue(f'"{text}" does not begin with https: tokens would go there in clear', advice)
    if url.username is not None or url.password is not None:
        raise InvalidValue(
            f'"{url.hostname}" has a login in its address', "write it into introspection_credentials_file"
        )
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    if url.fragment or not _PATH(path):
        raise InvalidValue(f'"{text}" is not an address of a web server', advice)
    return Place(parse_domain(host), port, path)


def parse_url(text: str) -> str:
    """The same in one spelling."""
    host, port, path = parse_place(text)
    return f"https://{host}{path}" if port == 443 else f"https://{host}:{port}{path}"


def parse_credentials(content: bytes) -> str:
    """What `Authorization` says; raises ValueError that does not tell what it read."""
    line = content.decode("utf-8", "replace").split("\n", 1)[0].removesuffix("\r")
    bearer = _BEARER(line)
    if bearer is not None and len(line) <= MAX_CREDENTIALS_BYTES:
        return line
    name, colon, secret = line.partition(":")
    if not colon or not name or not secret or len(line) > MAX_CREDENTIALS_BYTES or not line.isprintable():
        raise ValueError('its first line is neither "NAME:SECRET" nor "Bearer TOKEN"')
    both = f"{quote_plus(name)}:{quote_plus(secret)}"  # RFC 6749 2.3.1
    return "Basic " + base64.b64encode(both.encode("ascii")).decode("ascii")


def introspection_files(config: Config) -> list[str]:
    """The files that a resolver is handed for it: authorities, then credentials."""
    auth = config.auth
    if auth.introspection_url is None or auth.introspection_credentials_file is None:
        return []
    return [auth.introspection_ca_file or config.tls.ca_file or SYSTEM_CA_FILE, auth.introspection_credentials_file]
