"""Has the relay proof made by a process of its own, before a configuration is started or taken over.

The supervisor neither carries the policy in its memory nor waits for it in its own interpreter: the child gets the configuration on
its standard input, and answers with the lines that refute it, or none (`policy/__main__.py`). A proof that could not be made
counts as refuted.
"""

from __future__ import annotations

import subprocess
import sys

from gatepost.config.encoded import encode_config
from gatepost.config.schema import Config

LIMIT_S = 120.0


def refutation_of(config: Config) -> list[str]:
    """Why this configuration must not run, with the session that shows it; empty if the proof holds."""
    command = [sys.executable, "-m", "gatepost.policy"]
    try:
        made = subprocess.run(command, input=encode_config(config), capture_output=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"the relay proof could not be made: {error}; nothing is started without it"]
    if made.returncode == 0:
        return []
    lines = made.stdout.decode("utf-8", "replace").splitlines()
    return lines or [
        "the relay proof could not be made: "
        + (made.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"exit status {made.returncode}")
        + "; nothing is started without it"
    ]
