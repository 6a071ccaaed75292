"""Asks an authorization server whether a token is good (RFC 7662), in the resolver role: a receiver cannot connect.

Only an answer of the server is yes or no; whatever else comes of it, late, refused, compressed, not JSON, is that nobody could say. A yes is
kept for a short time and never longer than the token lives, by the digest of the token; a no is not kept. Time, questions
at once, questions that wait, and what is kept are bounded. Loaded only where it is configured.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from gatepost.config.introspection import parse_credentials, parse_place
from gatepost.config.schema import Auth
from gatepost.net.https import HttpsClient, HttpsError, warm_up
from gatepost.net.tlscontext import new_client_context
from gatepost.roles.tokens import LEEWAY_S, user_of_claims

MAX_ANSWER_BYTES = 64 * 1024
MAX_TOKEN_CHARACTERS = 64 * 1024  # a receiver's limits of AUTH are far below
MAX_AT_ONCE = 20
MAX_WAITING = 500
MAX_KEPT = 10_000

Answered = Callable[[str, str], None]
"""Called once with the user ("": the token is not good) and why nobody could say ("": it was said)."""


class Found(NamedTuple):
    """What a server says of a token: the user, "" if it is not good here, and then why; `expires_s` is wall clock, None: not said."""

    user: str
    expires_s: float | None = None
    why: str = ""


class NoAnswer(Exception):
    """What came is no answer of introspection."""


def parse_answer(body: bytes, *, auth: Auth, now_s: float) -> Found:
    """RFC 7662 2.2; raises NoAnswer. What is configured must be there and right; a time that is there must be right."""
    try:
        claims = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NoAnswer("the answer is not a JSON object") from None
    active = claims.get("active")
    if active is False:
        return Found("")
    if active is not True:
        raise NoAnswer('the answer does not say "active"')
    why = _find_fault(claims, auth, now_s)
    user = "" if why else user_of_claims(claims, auth.user_claim)
    if not user:
        return Found("", None, why or f"its {auth.user_claim} names no user")
    expires_s = claims.get("exp")
    return Found(user, float(expires_s) if expires_s is not None else None)


def _find_fault(claims: dict[str, Any], auth: Auth, now_s: float) -> str:
    """Why a token that the server calls active is not good here; "" if it is."""
    for name, sign in (("exp", 1), ("nbf", -1)):
        when = claims.get(name)
        if when is None:
            continue
        if type(when) not in (int, float) or not abs(when) < 1e15:
            return f"its {name} is not a time"
        if (when - now_s) * sign + LEEWAY_S <= 0:
            return f"its {name} does not hold now"
    kind = claims.get("token_type")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in ("bearer", "access_token")):
        return "it is not a bearer token"
    if auth.issuer is not None and claims.get("iss") != auth.issuer:
        return "its iss is not auth.issuer"
    audience = claims.get("aud")
    if auth.audience not in (audience if isinstance(audience, list) else [audience]):
        return "its aud is not auth.audience"
    return ""


class Introspector:
    """Made before the lock-in; `begin` comes behind it. `credentials` was checked with the configuration."""

    def __init__(
        self, auth: Auth, authorities: bytes, credentials: bytes, loop: Any, *, clock: Callable[[], float]
    ) -> None:
        self._auth = auth
        self._place = parse_place(auth.introspection_url or "")
        self._context = new_client_context(authorities=authorities, label="authorities")
        self._headers = {
            "Authorization": parse_credentials(credentials),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        self._loop = loop
        self._clock = clock
        # digest of a token -> until when (loop time), user; oldest first
        self._kept: dict[bytes, tuple[float, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self.counts = {"tokens": 0, "tokens_asked": 0, "tokens_unanswered": 0}
        self._client: HttpsClient
        self._event: Callable[..., None]
        loop.run_until_complete(warm_up())

    def begin(self, query: Any, event: Callable[..., None]) -> None:
        """The role is locked in; `query` asks the DNS. The server may be this host: the operator named it."""
        self._client = HttpsClient(query, self._context, any_address=True)
        self._event = event

    async def close(self) -> None:
        await self._client.close()

    def submit(self, token: str, answered: Answered) -> None:
        """Whose this token is."""
        self.counts["tokens"] += 1
        if len(token) > MAX_TOKEN_CHARACTERS:
            answered("", "it is longer than any token")
            return
        digest = hashlib.sha256(token.encode("ascii", "replace")).digest()
        until_s, user = self._kept.get(digest, (0.0, ""))
        if until_s > self._loop.time():
            answered(user, "")
        elif len(self._tasks) >= MAX_WAITING:
            self.counts["tokens_unanswered"] += 1
            answered("", "too many tokens are being asked about")
        else:
            task = self._loop.create_task(self._answer(token, digest, answered))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, token: str, digest: bytes, answered: Answered) -> None:
        user, failed = "", ""
        try:
            found = await self._ask(token)
        except (HttpsError, NoAnswer) as error:
            failed = str(error)
        except TimeoutError:
            failed = f"no answer within {self._auth.introspection_timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - the one broad catch of a question: whoever asks must hear something
            self._event("internal_error", what="introspection of a token", error=type(error).__name__)
            failed = "internal error"
        else:
            user = found.user
            if user:
                self._keep(digest, found)
            elif found.why:
                self._event("token_refused", reason=found.why)
        if failed:
            self.counts["tokens_unanswered"] += 1
            failed = f"{self._place.host}: {failed}"
        answered(user, failed)

    async def _ask(self, token: str) -> Found:
        timeout_s = self._auth.introspection_timeout_s
        body = urlencode({"token": token, "token_type_hint": "access_token"}).encode("ascii")
        async with asyncio.timeout(timeout_s), self._places:
            self.counts["tokens_asked"] += 1
            answer = await self._client.post(
                *self._place, body, self._headers, limit_bytes=MAX_ANSWER_BYTES, timeout_s=timeout_s
            )
        if answer.status != 200:  # 401: our credentials (RFC 7662 2.3)
            raise NoAnswer(f"the server answers with status {answer.status}")
        if answer.content_type != "application/json":
            raise NoAnswer(f"the answer is of type {answer.content_type[:60]!r}, not application/json")
        return parse_answer(answer.body, auth=self._auth, now_s=self._clock())

    def _keep(self, digest: bytes, found: Found) -> None:
        left_s = self._auth.introspection_keep_s
        if found.expires_s is not None:
            left_s = min(left_s, found.expires_s - self._clock())
        if left_s <= 0:
            return
        self._kept.pop(digest, None)
        self._kept[digest] = self._loop.time() + left_s, found.user
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
