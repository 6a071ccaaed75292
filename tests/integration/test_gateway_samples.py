"""Every sample message goes through the real processes and arrives as it was sent, over SMTP and in a Maildir.

Each is sent once, by DATA or by BDAT in chunks of some size, to one recipient behind an SMTP next hop and one with a Maildir.
"""

from __future__ import annotations

import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import Talk, message
from peers import wait_until
from samples.corpus import same_message, samples

SAMPLES = dict(samples())
CHUNKS = (1 << 30, 7, 1000, 65_536)  # octets
REPAIRED = "127.0.0.3"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    with NextHop() as hop:
        gateway = Gateway(directory, next_hop=hop.name)
        gateway.boxes = gateway.directory / "boxes"
        gateway.extra = (
            f'[domains."box.test"]\nnext_hop = "maildir:{gateway.boxes}/{{local}}"\n'
            f'[smtp]\nrepair_networks = ["{REPAIRED}/32"]\nbody_file_bytes = 100000\nmax_transactions = 100000\n'
        )
        gateway.hop = hop
        with gateway:
            yield gateway
            gateway.assert_no_bugs()


def in_box(gateway: Gateway, user: str) -> bytes | None:
    """The message in this user's Maildir, once it is there, without the field that names the user."""
    new = gateway.boxes / user / "new"
    files = list(new.iterdir()) if new.is_dir() else []
    return files[0].read_bytes() if files else None


def assert_arrived(gateway: Gateway, user: str, content: bytes) -> None:
    over_smtp = gateway.hop.wait_to(f"{user}@example.test").content
    in_maildir = wait_until(lambda: in_box(gateway, user), f"the message of {user} in its Maildir")
    assert same_message(content, over_smtp, arrived_lf=False) is None
    assert same_message(content, in_maildir, arrived_lf=True) is None


def parameters_of(content: bytes) -> str:
    return f"SIZE={len(content)}" + ("" if content.isascii() else " BODY=8BITMIME SMTPUTF8")


@pytest.fixture(scope="module")
def sent(gateway):
    """All samples, sent over a few connections; name -> user."""
    users = {}
    names = list(SAMPLES)
    for part in range(4):
        with Talk(gateway.port) as talk:
            talk.hello()
            for number, name in enumerate(names[part::4]):
                user = users[name] = f"s{part}-{number}"
                content = SAMPLES[name]
                recipients = (f"{user}@example.test", f"{user}@box.test")
                talk.envelope(recipients, parameters=parameters_of(content) if number % 3 else "")
                if number % 2:
                    chunk = CHUNKS[number // 2 % len(CHUNKS)]
                    talk.bdat(content, chunk if len(content) < 2000 or chunk > 100 else 8192)
                else:
                    talk.data(content)
    return users


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_arrives_as_it_was_sent(gateway, sent, name):
    assert_arrived(gateway, sent[name], SAMPLES[name])


def test_the_transparent_header_is_ours_alone(gateway, sent):
    """One Received field of ours stands on top, and nothing else over SMTP."""
    name = "ends/header-only"
    arrived = gateway.hop.wait_to(f"{sent[name]}@example.test").content
    added = arrived[: -len(SAMPLES[name])]
    assert added.startswith(b"Received: from client.outside.test ([127.0.0.1])") and added.count(
        b"\r\n"
    ) == added.count(b"\n")
    assert len([line for line in added.split(b"\r\n") if line and line[:1] not in b" \t"]) == 1


def test_text_of_bdat_without_a_final_line_end(gateway):
    """By BDAT a message may end anywhere. DATA cannot say that, so an SMTP next hop gets one CRLF more; a Maildir keeps it."""
    content = message("no end", b"the last line")
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.envelope(["noend@example.test", "noend@box.test"])
        talk.bdat(content)
    assert gateway.hop.wait_to("noend@example.test").content.endswith(content + b"\r\n")
    kept = wait_until(lambda: in_box(gateway, "noend"), "the message in its Maildir")
    assert kept.endswith(content.replace(b"\r\n", b"\n"))


FORBIDDEN = {
    "bare-lf": b"one\ntwo\r\n",
    "bare-cr": b"one\rtwo\r\n",
    "nul": b"one\0two\r\n",
    "lf-dot": b"one\n.\r\ntwo\r\n",
    "cr-dot": b"one\r.\rtwo\r\n",
    "lf-at-the-end": b"one\n",
    "crcrlf": b"one\r\r\ntwo\r\n",
}
MENDED = {
    "bare-lf": b"one\r\ntwo\r\n",
    "bare-cr": b"one\r\ntwo\r\n",
    "crcrlf": b"one\r\n\r\ntwo\r\n",
}


@pytest.mark.parametrize("by", ["data", "bdat"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden_octets_are_refused(gateway, name, by):
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.envelope([f"refused-{name}@example.test"])
        if by == "data":
            talk.data(message(name, FORBIDDEN[name]), b"550 5.6.11")
        else:
            talk.bdat(message(name, FORBIDDEN[name]), expect=b"550 5.6.11")
        assert talk.is_closed()
    assert gateway.hop.find(f"refused-{name}@example.test") is None


@pytest.mark.parametrize("by", ["data", "bdat"])
@pytest.mark.parametrize("name", MENDED)
def test_bare_line_ends_of_a_listed_network_are_repaired(gateway, name, by):
    user = f"mended-{name}-{by}"
    with Talk(gateway.port, source=REPAIRED) as talk:
        talk.hello()
        talk.envelope([f"{user}@example.test", f"{user}@box.test"])
        getattr(talk, by)(message(name, FORBIDDEN[name]))
    assert_arrived(gateway, user, message(name, MENDED[name]))


def test_nul_is_refused_from_a_listed_network_too(gateway):
    """There is no way to mend a NUL that keeps the message what it was."""
    with Talk(gateway.port, source=REPAIRED) as talk:
        talk.hello()
        talk.envelope(["nul@example.test"])
        talk.data(message("nul", FORBIDDEN["nul"]), b"550 5.6.11")


def test_nothing_is_left_in_the_queue(gateway, sent):
    wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
    ledger = gateway.ledger()
    assert ledger["accepted"] == ledger["delivered"] >= 2 * len(SAMPLES)
