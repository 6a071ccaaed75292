"""The maildir role: writes Maildirs below one root, which is its root directory. No network, no spool."""

from __future__ import annotations

import time

from gatepost.delivery.maildir import MaildirEngine
from gatepost.roles.delivering import Delivering


class MaildirDeliverer(Delivering):
    """Maildir; one process for each Maildir root, which is its root directory."""

    def before_lock_in(self) -> None:
        time.strftime("%z")  # loads the zone

    def begin(self) -> None:
        self.engine = MaildirEngine(
            self.config, root=".", prefix=self.start.root, read=self.read, done=self.attempt_done, event=self.event
        )
