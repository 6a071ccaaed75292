"""Where the administrator's socket is; the supervisor makes it, the command line finds it."""

from __future__ import annotations

import os

from gatepost.config.schema import Config


def control_path(config: Config) -> str:
    """`control_socket` of the configuration, else SPOOL/run/control.sock."""
    return config.control_socket or os.path.join(config.spool, "run", "control.sock")
