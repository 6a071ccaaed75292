"""A dictionary attack on recipients is slowed down and cut off; a user of ours is not."""

from __future__ import annotations

from pathlib import Path

from integration.gateway import Gateway

LIMITS = "[smtp]\nmax_unknown_recipients = 4\nunknown_recipient_delay_s = 0.2\nmax_errors = 100\nunknown_recipient_ban_s = 3600\n"


def test_guessing(tmp_path: Path) -> None:
    guesses = [f"RCPT TO:<u{number}@example.test>\r\n".encode() for number in range(6)]
    with Gateway(tmp_path, recipients=["anna"], networks=["127.0.0.2/32"], extra=LIMITS) as bed:
        begin = (b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n")
        replies = bed.dialog(
            *begin, b"".join(guesses[:4]), b"NOOP\r\n", b"NOOP\r\n", b"NOOP\r\n", b"RCPT TO:<anna@example.test>\r\n"
        )
        assert [reply[:9] for reply in replies[3:7]] == [b"550 5.1.1"] * 4
        assert bed.stats()["receiver/0"]["waits"] >= 3
        last = bed.dialog(*begin, guesses[4], guesses[5])[3:]
        assert last[0].startswith(b"421 4.7.0") and last[1] == b""
        assert bed.wait_for_event("recipients_guessed", address="127.0.0.1")["unknown"] == 5
        assert bed.dialog()[0].startswith(b"421 4.7.0 Too many unknown")
        assert bed.wait_for_event("connection_refused", address="127.0.0.1")["code"] == 421
        stats = bed.stats()["receiver/0"]
        assert stats["recipients_unknown"] == 5 and stats["guessers_kept_away"] == stats["guessers_banned_now"] == 1
        ours = bed.dialog(*begin, *guesses[:5], b"RCPT TO:<anna@example.test>\r\n", source="127.0.0.2")[3:]
        assert [reply[:9] for reply in ours] == [b"550 5.1.1"] * 5 + [b"250 2.1.5"]
        bed.assert_no_bugs()
