"""The form in which the supervisor hands a configuration to the roles: msgpack, recipients merged, no file needed.

Apart from `load.py`, so that a role does not carry the reader of TOML and all its messages in its memory.
"""

from __future__ import annotations

import msgspec

from gatepost.config.schema import Config, Domain
from gatepost.config.tables import LoadedConfig, TableData, without_notes
from gatepost.config.tlsdemands import DELIVERY_KEYS, SERVER_KEYS, TRY_KEYS

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LoadedConfig)


QUEUE_TABLES = ("routes ", "virtual ", "aliases ")  # by which the queue routes its own mail, DSNs to senders of ours
SENDER_TABLES = "sender_routes "  # of them the queue knows where they may send mail, not whose


def encode_config(config: Config, role: str = "receiver") -> bytes:
    """The bytes for a role; without the lists of recipients for one that does not ask whether a recipient exists."""
    if role != "receiver":
        is_asked = role in ("resolver", "deliverer")  # they need to know whom they may ask
        domains = {
            name: msgspec.structs.replace(domain, recipients=_tables_of(domain) if is_asked else None)
            for name, domain in config.domains.items()
        }
        config = msgspec.structs.replace(config, domains=domains)
    if isinstance(config, LoadedConfig):
        tables = without_notes(config.tables) if role in ("receiver", "queue") else {}
        if role == "deliverer":
            tables = _demands_only(config.tables)
        if role == "queue":
            tables = {
                key: _values_only(data) if key.startswith(SENDER_TABLES) else data
                for key, data in tables.items()
                if key.startswith((*QUEUE_TABLES, SENDER_TABLES))
            }
        config = msgspec.structs.replace(config, tables=tables)
    return _encoder.encode(config)


def _tables_of(domain: Domain) -> list[str] | None:
    return [entry for entry in domain.recipients or () if ":" in entry] or None


def _values_only(data: TableData) -> TableData:
    """A table of the values of another, under keys that nobody asks for."""
    values = dict.fromkeys((*data.entries.values(), *(rule[-1] for rule in data.rules if rule[0] in ("rule", "value"))))
    return TableData("inline", data.argument, {str(number): value for number, value in enumerate(values)})


def _demands_only(tables: dict[str, TableData]) -> dict[str, TableData]:
    """Of the access tables what they demand of servers; nothing of who may send or receive."""
    found = {}
    for key, data in tables.items():
        entries = {name: value for name, value in data.entries.items() if name.startswith(DELIVERY_KEYS)}
        if key.startswith("access ") and any(name.startswith((*SERVER_KEYS, *TRY_KEYS)) for name in entries):
            found[key] = TableData(data.kind, data.argument, entries)
    return found


def decode_config(data: bytes) -> Config:
    """What `encode_config` encoded; raises msgspec.ValidationError."""
    return _decoder.decode(data)
