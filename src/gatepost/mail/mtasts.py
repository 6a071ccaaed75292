"""MTA-STS (RFC 8461): the TXT record, the policy file, and which MX hosts a policy lets mail go to.

Sans-IO and pure: `net/https.py` fetches, `roles/stspolicies.py` keeps, `delivery/` applies. Strict where a sender must be: what is
not well formed is no policy, and the error says why in words for a report. Invariants: work is linear in the input, which is bounded
before it is looked at; a policy that is returned can be kept, compared and written out again.
"""

from __future__ import annotations

import re

import msgspec

MAX_POLICY_BYTES = 64 * 1024  # RFC 8461 3.2, 10.2
MAX_LINES = 1000
MAX_MX = 200
MAX_AGE_S = 31_557_600  # RFC 8461 3.2: a year
MAX_RECORDS = 20  # TXT records looked at
MODES = ("enforce", "testing", "none")

_RECORD_START = re.compile(r"v=STSv1[ \t]*;")
_FIELD_GAP = re.compile(r"[ \t]*;[ \t]*")
_RECORD_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_NAME = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*)")
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_MX = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_DIGITS = re.compile(r"[0-9]{1,10}")


class StsError(Exception):
    """A record or a policy that is none; the text says why."""


class Policy(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a policy file says. `mx` holds host names in lower case, `*.` in front for one label in its place."""

    mode: str  # one of MODES
    max_age_s: int
    mx: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """As a report quotes it (RFC 8460 4.4, policy-string)."""
        hosts = [f"mx: {pattern}" for pattern in self.mx]
        return ["version: STSv1", f"mode: {self.mode}", *hosts, f"max_age: {self.max_age_s}"]


def parse_record(texts: list[str]) -> str:
    """The policy id of the TXT records of `_mta-sts.DOMAIN`; StsError if there is no single good one (RFC 8461 3.1)."""
    records = [text for text in texts[:MAX_RECORDS] if _RECORD_START.match(text)]
    if len(records) != 1 or len(texts) > MAX_RECORDS:
        raise StsError(f"{len(records) or 'no'} TXT record{'s' * (len(records) != 1)} with v=STSv1")
    found = ""
    fields = _FIELD_GAP.split(records[0].rstrip(" \t"))
    if not fields[-1]:
        fields.pop()
    for field in fields[1:]:
        match = _RECORD_FIELD.fullmatch(field)
        if match is None:
            raise StsError("a field of the TXT record is malformed")
        if match[1] == "id" and not found:
            if _ID.fullmatch(match[2]) is None:
                raise StsError("the id of the TXT record is not 1 to 32 letters and digits")
            found = match[2]
    if not found:
        raise StsError("the TXT record has no id")
    return found


def parse_policy(data: bytes) -> Policy:
    """The policy of a file as fetched; StsError says what is wrong with it (RFC 8461 3.2)."""
    if len(data) > MAX_POLICY_BYTES:
        raise StsError(f"the policy has more than {MAX_POLICY_BYTES} octets")
    lines = data.rstrip(b"\r\n\t ").split(b"\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        raise StsError(f"the policy has more than {MAX_LINES} lines")
    single: dict[str, str] = {}
    hosts: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(b"\r").rstrip(b" \t")
        key, value = _parse_line(line, number)
        if key == "mx":
            hosts[_parse_host(value)] = None
            if len(hosts) > MAX_MX:
                raise StsError(f"the policy has more than {MAX_MX} hosts")
        else:
            single.setdefault(key, value)  # of a repeated field the first counts
    return _build_policy(single, tuple(hosts))


def _parse_line(line: bytes, number: int) -> tuple[str, str]:
    match = _NAME.fullmatch(line)
    if match is None or not match[2]:
        raise StsError(f"line {number} of the policy is not a name and a value")
    try:
        value = match[2].decode("utf-8")
    except UnicodeDecodeError:
        raise StsError(f"line {number} of the policy is not UTF-8") from None
    if not value.isprintable():
        raise StsError(f"line {number} of the policy has a control character")
    return match[1].decode("ascii"), value


def _parse_host(value: str) -> str:
    host = value.lower().removesuffix(".")
    if len(host) > 255 or _MX.fullmatch(host) is None:
        raise StsError("an mx of the policy is no host name")
    return host


def _build_policy(single: dict[str, str], hosts: tuple[str, ...]) -> Policy:
    if single.get("version") != "STSv1":
        raise StsError("the policy is not of version STSv1")
    mode = single.get("mode", "")
    if mode not in MODES:
        raise StsError("the policy has no mode of enforce, testing, none")
    age = single.get("max_age", "")
    if _DIGITS.fullmatch(age) is None or int(age) > MAX_AGE_S:
        raise StsError(f"the policy has no max_age of 0 to {MAX_AGE_S}")
    if not hosts and mode != "none":
        raise StsError("the policy names no mx")
    return Policy(mode, int(age), hosts)


def is_match(policy: Policy, host: str) -> bool:
    """Whether mail may go to this MX host (lower case, A-labels): a wildcard stands for one label (RFC 8461 4.1)."""
    host = host.removesuffix(".")
    below = host.partition(".")[2]
    return host in policy.mx or bool(below) and f"*.{below}" in policy.mx
