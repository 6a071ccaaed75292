"""The embedded spool keeps the contract."""

from __future__ import annotations

import pytest
from spool_bed import TRACE, Writer, make_body, open_spool
from spool_contract import SpoolContract


class TestJournalSpool(SpoolContract):
    @pytest.fixture(autouse=True)
    def _spool(self, tmp_path):
        self.path = tmp_path / "spool"
        self.writer = None
        self.spool = self.open_spool()
        yield
        if self.writer is not None:
            self.writer.close()
        self.spool.abandon()

    def open_spool(self, **settings):
        return open_spool(self.path, **settings)

    def accept(self, *ids: str, recipients: int = 1) -> list:
        if self.writer is None or self.writer.spool is not self.spool:
            self.writer = Writer(self.spool)
        return self.writer.take(*ids, recipients=recipients)

    def content(self, message_id: str) -> bytes:
        return TRACE + make_body(message_id)
