"""THE table: one row for each role. A reader of it knows what a break-in gains.

Syscall filter, Landlock rules, descriptors, links and accepted messages are all taken from here; `gatepost privs` compares the kernel's
records of the live processes with it, and a test compares `docs/security.md`.
"""

from __future__ import annotations

from gatepost.ipc import messages as m
from gatepost.privsep.rights import (
    BASE,
    DATAGRAMS,
    FILES,
    POSITIONED,
    READ_WRITE,
    RESIZE,
    SOCKET_ACCEPT,
    SOCKET_CONNECT,
    SYNC,
    THREADS,
    RoleRights,
)

_ORDINARY = BASE | READ_WRITE | THREADS
# links to peers, event log, standard error
_LINKS = frozenset({"unix-seqpacket", "file-append", "file-write", "terminal"})

FROM_SUPERVISOR: frozenset[type[m.Message]] = frozenset({m.Link, m.Drain, m.Ping})

ROLES: dict[str, RoleRights] = {
    row.name: row
    for row in (
        RoleRights(
            name="receiver",
            user="gatepost-in",
            syscalls=_ORDINARY | SOCKET_ACCEPT | SYNC,
            may_accept=True,
            holds_keys=True,
            nofile=65536,
            descriptors=_LINKS | {"tcp-listen", "tcp", "unix-stream-listen", "unix-stream"},
            peers={
                "supervisor": FROM_SUPERVISOR | {m.AuthSocket},
                "queue": frozenset({m.SegmentOpened, m.BodyFilesOpened, m.SpoolHealth}),
                "resolver": frozenset({m.LookupDone, m.TableLookupDone, m.Introspected}),
                "control": frozenset({m.Ask}),
            },
        ),
        RoleRights(
            name="resolver",
            user="gatepost-dns",
            syscalls=_ORDINARY | SOCKET_CONNECT | DATAGRAMS,
            socket_families=frozenset({"inet", "inet6"}),
            may_connect=True,
            descriptors=_LINKS | {"udp", "tcp"},
            peers={
                "supervisor": FROM_SUPERVISOR,
                "deliverer": frozenset({m.Lookup, m.CallAheadDone}),
                "receiver": frozenset({m.Lookup, m.TableLookup, m.Introspect}),
                "queue": frozenset({m.StsRestored, m.RecipientsRestored, m.Lookup, m.Post}),
                "control": frozenset({m.Ask}),
            },
        ),
        RoleRights(
            name="queue",
            user="gatepost-queue",
            root="spool",
            syscalls=_ORDINARY | FILES | POSITIONED | SYNC | RESIZE,
            landlock_fs=(("/", "read-write"),),
            nofile=16384,
            descriptors=_LINKS | {"file-read", "directory"},
            peers={
                "supervisor": FROM_SUPERVISOR | {m.Reconfigure, m.OldGeneration, m.PeerGone},
                "receiver": frozenset(
                    {m.Holding, m.NeedSegment, m.SegmentSealed, m.NeedBodyFiles, m.BodyFileUnused, m.Accepted, m.Facts}
                ),
                "deliverer": frozenset({m.AttemptDone, m.TlsVerified, m.TlsResults}),
                "resolver": frozenset({m.StsKept, m.RecipientsKept, m.LookupDone, m.PostDone}),
                "maildir": frozenset({m.AttemptDone}),
                "control": frozenset({m.Ask}),
            },
        ),
        RoleRights(
            name="deliverer",
            user="gatepost-out",
            syscalls=_ORDINARY | SOCKET_CONNECT | POSITIONED,
            socket_families=frozenset({"inet", "inet6"}),
            may_connect=True,
            nofile=16384,
            descriptors=_LINKS | {"tcp", "file-read"},
            peers={
                "supervisor": FROM_SUPERVISOR,
                "queue": frozenset({m.SourceShared, m.SourceGone, m.Attempt, m.TlsRemembered, m.TlsForgotten}),
                "resolver": frozenset({m.LookupDone, m.CallAhead}),
                "control": frozenset({m.Ask}),
            },
        ),
        RoleRights(
            name="maildir",
            user="gatepost-box",
            root="maildir",
            syscalls=_ORDINARY | FILES | POSITIONED | SYNC,
            landlock_fs=(("/", "read-write"),),
            nofile=4096,
            descriptors=_LINKS | {"file-read", "directory"},
            peers={
                "supervisor": FROM_SUPERVISOR,
                "queue": frozenset({m.SourceShared, m.SourceGone, m.Attempt}),
                "control": frozenset({m.Ask}),
            },
        ),
        RoleRights(
            name="control",
            user="gatepost-ctl",
            loop="asyncio",
            syscalls=_ORDINARY | SOCKET_ACCEPT,
            may_accept=True,
            descriptors=_LINKS | {"unix-stream-listen"},
            peers={
                "supervisor": FROM_SUPERVISOR | {m.ReloadDone, m.Answer},
                "queue": frozenset({m.Answer}),
                "receiver": frozenset({m.Answer}),
                "resolver": frozenset({m.Answer}),
                "deliverer": frozenset({m.Answer}),
                "maildir": frozenset({m.Answer}),
            },
        ),
    )
}
"""By role name. The signer (gatepost-key) and the scanner (gatepost-scan) get their rows with their code."""


def are_peers(one: str, other: str) -> bool:
    """Whether two roles talk to each other at all."""
    return other in ROLES[one].peers or one in ROLES[other].peers


def accepted_from(role: str, peer: str) -> frozenset[type[m.Message]]:
    """The messages that `role` takes from `peer`; any other is fatal to it."""
    return ROLES[role].peers.get(peer, frozenset())
