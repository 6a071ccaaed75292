"""With hashed addresses nobody stands in the recorded facts, and why and replay still decide as the gateway did."""

from __future__ import annotations

import re

from integration.gateway import Gateway
from peers import wait_until


def test_hashed_addresses(tmp_path):
    extra = "[facts]\nhash_addresses = true\n"
    with Gateway(tmp_path, recipients=["anna"], extra=extra) as gateway:
        replies = gateway.dialog(
            b"EHLO stranger.example.net\r\n",
            b"MAIL FROM:<very.secret@example.net>\r\n",
            b"RCPT TO:<anna@example.test>\r\n",
            b"RCPT TO:<hidden.person@example.test>\r\n",
        )
        assert [reply[:3] for reply in replies[3:]] == [b"250", b"550"]
        session = re.search(rb"\((\w+)\)", replies[-1])[1].decode()
        wait_until(lambda: gateway.run("why", session).returncode == 0, "facts")
        kept = b"".join(path.read_bytes() for path in (gateway.spool / "facts").iterdir())
        assert session.encode() in kept
        assert not any(name in kept for name in (b"anna", b"hidden", b"secret"))
        told = gateway.run("why", session).stdout
        assert "RCPT TO:<anna@example.test>" in told and "550 5.1.1" in told
        assert (gateway.spool / "run" / "facts.key").stat().st_mode & 0o777 == 0o600
        assert "nothing would change" in gateway.run("replay").stdout
        gateway.assert_no_bugs()
