"""What the tests take from whoever starts them: nothing that would make them come out otherwise.

Servers and gateways of tests inherit umask and environment from here.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FOREIGN = (
    "GATEPOST_CONFIG", "GATEPOST_SUBMIT", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
    "MAILRC", "PYTHONWARNINGS", "ALL_PROXY", "all_proxy", "SMTP_PROXY", "smtp_proxy",
)  # fmt: skip


def pytest_configure() -> None:
    """Before anything is collected."""
    # with another one, files of tests are too open for the gateway, or closed to the users of real servers
    os.umask(0o022)
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ["LC_ALL"] = "C.UTF-8"  # what programs print is compared
    # The same inputs in every run: one that breaks something is found by who looks for it (TEST_EXPLORE=1, `make fuzz`), not by
    # whoever changes something else.
    explores = os.environ.get("TEST_EXPLORE") == "1"
    settings.register_profile(
        "of this project",
        derandomize=not explores,
        database=settings().database if explores else None,
        deadline=None,  # however slow the machine is
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("of this project")
