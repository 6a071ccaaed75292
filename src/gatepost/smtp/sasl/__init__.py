"""SASL mechanisms of the server side, without I/O: `MECHANISMS` is the list of all, by their registered names.

A mechanism is a generator: it yields a `Challenge` for the client or a question for the owner, is sent the answer, and returns
`Done`; `Malformed` ends it. Where verifiers are kept, and who may try how often, is not known here (RFC 4422, RFC 4954).
"""

from __future__ import annotations

from gatepost.smtp.sasl.bearer import oauthbearer, xoauth2
from gatepost.smtp.sasl.external import external
from gatepost.smtp.sasl.mechanism import Mechanism
from gatepost.smtp.sasl.password import login, plain
from gatepost.smtp.sasl.scram import scram_sha_1, scram_sha_256, scram_sha_256_plus

MECHANISMS: dict[str, Mechanism] = {  # strongest first: the order in which EHLO names them
    "SCRAM-SHA-256-PLUS": scram_sha_256_plus,
    "SCRAM-SHA-256": scram_sha_256,
    "SCRAM-SHA-1": scram_sha_1,
    "EXTERNAL": external,
    "OAUTHBEARER": oauthbearer,
    "XOAUTH2": xoauth2,
    "PLAIN": plain,
    "LOGIN": login,
}
