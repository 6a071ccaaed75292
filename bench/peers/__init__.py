"""The mail servers that the bench measures: one file for each, one table of them.

A peer is started as a relay gateway: it takes mail for `example.test` on a loopback port, checks that the recipient
exists, queues with fsync (Haraka: without), and passes on to the sink. Each has its vendor's defaults; what differs is written and
explained in its file.
"""

from __future__ import annotations

from peers.chasquid import Chasquid
from peers.exim import Exim
from peers.gatepost import Gatepost, GatepostWithoutFacts
from peers.haraka import Haraka
from peers.opensmtpd import OpenSmtpd
from peers.peer import Peer
from peers.postfix import Postfix
from peers.sendmail import Sendmail

VARIANTS = ("gatepost-without-facts",)  # only where they are asked for
PEERS: dict[str, type[Peer]] = {
    "gatepost": Gatepost,
    "postfix": Postfix,
    "exim": Exim,
    "opensmtpd": OpenSmtpd,
    "sendmail": Sendmail,
    "chasquid": Chasquid,
    "haraka": Haraka,
    "gatepost-without-facts": GatepostWithoutFacts,
}
