"""The maildir role: writes Maildirs below one root, which is its root directory. No network, no spool.

The group of what it writes is the group it runs as, or, where it was not started by root, that of the setgid root; it never changes one.
"""

from __future__ import annotations

import os
import time

from gatepost.delivery.maildir import MaildirEngine, Rights
from gatepost.roles.delivering import Delivering


class MaildirDeliverer(Delivering):
    """Maildir; one process for each Maildir root, which is its root directory."""

    def before_lock_in(self) -> None:
        time.strftime("%z")  # loads the zone

    def begin(self) -> None:
        os.umask(Rights.of_config(self.config).umask)
        self.engine = MaildirEngine(
            self.config,
            root=".",
            prefix=self.start.root,
            gid=int(self.start.extra.get("group", "-1")),
            read=self.read,
            done=self.attempt_done,
            event=self.event,
        )
