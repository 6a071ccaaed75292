"""The snapshot of recipients in the running gateway: over an outage, over a restart, against lists that shrink; and who may confirm it."""

from __future__ import annotations

import json
from pathlib import Path

from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.process import wait_until

FAST = "[call_ahead]\nfound_s = 0\nmissing_s = 0\nretry_s = 0.1\ncheck_s = 0\n[smtp]\nmax_errors = 100\nmax_unknown_recipients = 0\n"
PEOPLE = [f"p{number:02}" for number in range(20)]


def codes(bed: Gateway, *locals_: str) -> list[bytes]:
    commands = [f"RCPT TO:<{local}@example.test>\r\n".encode() for local in locals_]
    return [reply[:9] for reply in bed.dialog(b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n", *commands)[3:]]


KNOWN, UNKNOWN, LATER = b"250 2.1.5", b"550 5.1.1", b"451 4.3.0"


def test_what_the_next_hop_said_holds_over_its_outage_and_our_restart(tmp_path: Path) -> None:
    with NextHop() as hop:
        here = {f"{local}@example.test" for local in PEOPLE}
        hop.answer = lambda stage, what: b"550 5.1.1 no" if stage == "rcpt" and what not in here else None
        bed = Gateway(tmp_path, next_hop=f"smtp://127.0.0.1:{hop.port}", recipients=["call-ahead:next-hop"], extra=FAST)
        with bed:
            assert codes(bed, *PEOPLE, "nobody") == [KNOWN] * 20 + [UNKNOWN]
            wait_until(lambda: bed.stats()["resolver/0"]["snapshot_told"] >= 20, "the queue has been told")
            bed.stats()  # it has read what it was told before it answers
            bed.halt()
            assert b"p19@example.test" in (bed.spool / "recipients" / "known").read_bytes()
            hop.close()
            bed.start()
            assert codes(bed, "p00", "p19", "nobody") == [KNOWN, KNOWN, LATER]
            assert bed.wait_for_event("snapshot_answers")["table"] == "call-ahead:next-hop"
            explained = bed.run("explain", "--ip", "192.0.2.1", "--to", "p01@example.test").stdout
            assert "by the snapshot, where it is from" in explained and "250 2.1.5" in explained
            assert bed.ask("recipients", "forget", "P00@example.test") == {"forgotten": 1}
            assert b"p00@example.test" not in (bed.spool / "recipients" / "known").read_bytes()  # when it is answered
            assert bed.ask("recipients", "forget", "P00@example.test") == {"forgotten": 0}
            assert codes(bed, "p00", "p19") == [LATER, KNOWN]
            hop.open()
            here.clear()
            wait_until(lambda: codes(bed, "nobody") == [UNKNOWN], "it is asked again")
            assert codes(bed, *PEOPLE[1:]).count(UNKNOWN) <= 4
            assert bed.wait_for_event("source_shrinks")["table"] == "call-ahead:next-hop"
            shown = bed.run("recipients", "status")
            assert shown.returncode == 1 and "NOT BELIEVED" in shown.stdout
            assert bed.ask("recipients", "confirm")["tables"] == ["call-ahead:next-hop"]
            assert codes(bed, *PEOPLE) == [UNKNOWN] * 20
            assert bed.run("recipients", "status").returncode == 0
            bed.assert_no_bugs()


def test_a_file_that_lost_its_recipients_is_not_believed(tmp_path: Path) -> None:
    people = tmp_path / "people"
    people.write_text("\n".join(PEOPLE) + "\n")
    top = f"recipients_file = {json.dumps(str(people))}\n"
    bed = Gateway(tmp_path, top=top)
    with bed:
        assert codes(bed, "p00", "p19", "nobody") == [KNOWN, KNOWN, UNKNOWN]
        people.write_text("\n".join(PEOPLE[:17]) + "\n")
        assert bed.run("reload").returncode == 0
        assert codes(bed, "p00", "p19") == [KNOWN, UNKNOWN]
        people.write_text("p00\n")
        done = bed.run("reload")
        assert done.returncode == 0 and "16 of 17 recipients are gone" in done.stderr
        assert bed.wait_for_event("recipients_held", list="example.test")["gone"] == 16
        assert codes(bed, "p16", "p19") == [KNOWN, UNKNOWN]
        shown = bed.run("recipients", "status")
        assert shown.returncode == 1 and "HELD" in shown.stdout
        explained = bed.run("explain", "--ip", "192.0.2.1", "--to", "p16@example.test").stdout
        assert "250 2.1.5" in explained and "the running gateway goes on with the 17 recipients" in explained
        assert "17 listed recipients" in bed.run("check").stdout
        replayed = bed.run("replay", "--since", "1h")
        assert "p16" not in replayed.stdout and "goes on with the 17" in replayed.stderr
        bed.halt()
        bed.start()
        assert codes(bed, "p16", "p19") == [KNOWN, UNKNOWN]
        assert bed.run("recipients", "confirm", "other.test").returncode == 1
        assert bed.ask("recipients", "confirm", "Example.Test")["lists"] == ["example.test"]
        assert codes(bed, "p00", "p16") == [KNOWN, UNKNOWN]
        assert bed.ask("recipients", "status")["held"] == []
        assert "550 5.1.1" in bed.run("explain", "--ip", "192.0.2.1", "--to", "p16@example.test").stdout
        assert bed.run("replay", "--since", "1h").returncode == 1  # p16 was known before
        bed.assert_no_bugs()
