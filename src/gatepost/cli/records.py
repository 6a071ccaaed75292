"""The recorded facts of a spool, for the commands that read them; by who may read the spool, running or not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
import msgspec

from gatepost.cli.output import complain
from gatepost.policy.record import FactRecord, decode_records
from gatepost.privsep.factskey import read_facts_key
from gatepost.spool.factring import read_batches


def read_records(spool: str, since_s: float = 0.0) -> Iterator[FactRecord]:
    """Every record not older than that, in the order in which they were written; exits with 1 if they may not be read."""
    try:
        for batch in read_batches(spool, since_s):
            try:
                records = decode_records(batch)
            except msgspec.MsgspecError:  # of another version, or damaged in a way that its checksum knows
                continue
            yield from (record for record in records if record.time_s >= since_s)
    except OSError as error:
        complain(f"gatepost: the recorded facts cannot be read: {error.filename or spool}: {error.strerror}")
        raise click.exceptions.Exit(1) from error


def key_of(spool: str) -> bytes:
    """The key of hashed addresses; empty if there is none."""
    try:
        return read_facts_key(os.path.abspath(spool))
    except OSError as error:
        complain(f"gatepost: the key of hashed addresses cannot be read: {error.strerror}")
        raise click.exceptions.Exit(1) from error
