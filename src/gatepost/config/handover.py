"""Whether a configuration, with its lists of recipients and tables, is small enough to be handed to the processes.

A role takes it in its first message, of at most 16 MiB (`ipc/wire.py`). What is larger would end every receiver at its start; it is an
error of the configuration instead, which names the largest list.
"""

from __future__ import annotations

from gatepost.config.encoded import encode_config
from gatepost.config.errors import ConfigError
from gatepost.config.schema import Config

MAX_HANDED_BYTES = 15 * 1024 * 1024
_ADVICE = "keep large lists in a table that is asked, such as LDAP or SQL, or take out what is not needed"


def too_large(config: Config, file: str) -> list[ConfigError]:
    """The error, if there is one."""
    size_bytes = len(encode_config(config))
    if size_bytes <= MAX_HANDED_BYTES:
        return []
    longest = max(config.domains, key=lambda name: len(config.domains[name].recipients or ()))
    listed = config.domains[longest]
    problem = (
        f"the configuration with all its recipients and tables has {size_bytes / 1048576:.1f} MiB, and at most "
        f"{MAX_HANDED_BYTES >> 20} are handed to the processes"
    )
    if listed.recipients:
        problem += f'; the longest list of recipients, that of "{longest}", has {len(listed.recipients)}'
    where = listed.recipients_file or file
    return [ConfigError(where, 0, "", problem, _ADVICE)]
