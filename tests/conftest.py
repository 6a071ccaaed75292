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
    slow = settings(settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("however slow the machine is", slow)
    settings.load_profile("however slow the machine is")
