"""The TLS layer between two transports in memory: both sides of it, whole and octet by octet, and what breaks it."""

from __future__ import annotations

import ssl

import pytest
from certificates import RSA, Authority, fingerprint, pem_pair

from gatepost.net.tls import TlsFacts, TlsLayer
from gatepost.net.tlscontext import CertificateError, Pair, ServerTls, new_client_context, new_server_context


class Wire:
    """A transport in memory: what is written waits in `sent`."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.protocol = None
        self.state = "open"

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol

    def write(self, data) -> None:
        assert self.state == "open"
        self.sent += data

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def is_closing(self) -> bool:
        return self.state != "open"

    def get_extra_info(self, name, default=None):
        return default


class End:
    """The protocol above a layer."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.told: list[object] = []

    def tls_begun(self, facts) -> None:
        self.told.append(facts)

    def tls_failed(self, reason) -> None:
        self.told.append(reason)

    def data_received(self, data) -> None:
        self.heard += data

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, error) -> None:
        self.told.append("lost")


class Side:
    def __init__(self, context, *, is_server, name=None, **more) -> None:
        self.wire = Wire()
        self.end = End()
        self.layer = TlsLayer(context, self.end, self.wire, is_server=is_server, server_name=name, **more)
        self.layer.begin()

    @property
    def facts(self) -> TlsFacts:
        assert isinstance(self.end.told[0], TlsFacts), self.end.told
        return self.end.told[0]


def exchange(one: Side, other: Side, step: int = 1 << 20) -> None:
    """Carry what was written until nothing is left."""
    while one.wire.sent or other.wire.sent:
        for here, there in ((one, other), (other, one)):
            octets, here.wire.sent = bytes(here.wire.sent), bytearray()
            for at in range(0, len(octets), step):
                there.layer.data_received(octets[at : at + step])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificates(authority):
    return {
        "ec": authority.issue("ec", ["DNS:gate.example.test"]),
        "rsa": authority.issue("rsa", ["DNS:gate.example.test"], algorithm=RSA),
        "other": authority.issue("other", ["DNS:other.test", "DNS:*.wild.test"]),
        "client": authority.issue("client", ["DNS:client.test", "email:user@client.test"], usage="clientAuth"),
    }


@pytest.fixture(scope="module")
def server(certificates):
    return ServerTls([Pair(name, pem_pair(certificates[name])) for name in ("ec", "rsa", "other")])


def connected(server, client=None, *, name="gate.example.test", step=1 << 20) -> tuple[Side, Side]:
    there = Side(server.default, is_server=True)
    here = Side(client or new_client_context(), is_server=False, name=name)
    exchange(here, there, step)
    return here, there


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_is_written_arrives_on_both_sides(server, step):
    here, there = connected(server, step=step)
    assert here.facts.version == there.facts.version == "TLSv1.3"
    for size in (1, 100, 16384, 16385, 100_000) if step > 1 else (1, 100):
        text = bytes(range(256)) * (size // 256 + 1)
        here.layer.write(text[:size])
        there.layer.write(text[:size])
        exchange(here, there, step)
        assert there.end.heard[-size:] == here.end.heard[-size:] == text[:size]


def test_nothing_is_written_in_clear_before_or_during_the_handshake(server):
    there = Side(server.default, is_server=True)
    there.layer.write(b"220 too early\r\n")
    assert not there.wire.sent
    here = Side(new_client_context(), is_server=False)
    here.layer.write(b"MAIL FROM:<>\r\n")
    assert here.wire.sent.startswith(b"\x16\x03") and b"MAIL" not in here.wire.sent
    there.layer.close()
    assert there.wire.state == "aborted" and not there.wire.sent


def test_clear_text_in_place_of_a_handshake_fails(server):
    there = Side(server.default, is_server=True)
    there.layer.data_received(b"EHLO client.test\r\nMAIL FROM:<>\r\n")
    assert len(there.end.told) == 1 and isinstance(there.end.told[0], str)
    assert not there.end.heard and there.wire.state == "closed"


def test_a_handshake_without_end_is_cut(server):
    there = Side(server.default, is_server=True, max_handshake_bytes=20_000)
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(16380)  # a ClientHello of 65,535 octets
    there.layer.data_received(record)
    assert there.end.told == []
    there.layer.data_received(record)
    assert there.end.told == ["handshake of more than 20000 octets"] and there.wire.state == "closed"


def test_close_notify_ends_both_sides(server):
    here, there = connected(server)
    here.layer.close()
    assert here.wire.sent and here.wire.state == "closed"
    exchange(here, there)
    assert there.end.told[-1] == "eof" and there.wire.state == "closed"
    there.layer.connection_lost(None)
    assert there.end.told[-1] == "lost"
    assert not [told for told in there.end.told if isinstance(told, str) and told not in ("eof", "lost")]


def test_a_forged_record_closes_and_is_not_heard(server):
    here, there = connected(server)
    here.layer.write(b"first")
    exchange(here, there)
    here.layer.write(b"second")
    here.wire.sent[-1] ^= 1
    exchange(here, there)
    assert there.end.heard == b"first" and there.wire.state == "closed"


def test_lost_in_the_handshake_is_told_once(server):
    there = Side(server.default, is_server=True)
    there.layer.connection_lost(None)
    assert there.end.told == ["the connection was lost during the handshake", "lost"]


@pytest.mark.parametrize(
    ("name", "shown"), [("gate.example.test", "ec"), ("other.test", "other"), ("a.wild.test", "other"), ("b.a.wild.test", "ec"), (None, "ec"), ("stranger.test", "ec")]
)  # fmt: skip
def test_the_certificate_is_chosen_by_name(server, certificates, name, shown):
    here, there = connected(server, name=name)
    assert here.facts.fingerprint == fingerprint(certificates[shown])
    assert there.facts.server_name == (name or "")


def test_rsa_is_for_clients_without_ecdsa(server, certificates):
    client = new_client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    here, _ = connected(server, client)
    assert here.facts.fingerprint == fingerprint(certificates["ec"]) and here.facts.version == "TLSv1.2"
    client.set_ciphers("aRSA")
    here, _ = connected(server, client)
    assert here.facts.fingerprint == fingerprint(certificates["rsa"])


def test_old_versions_and_weak_ciphers_are_refused(server):
    client = new_client_context()
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    client.set_ciphers("ALL:@SECLEVEL=0")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.warns(DeprecationWarning):
            client.maximum_version = version
        here, there = connected(server, client)
        assert isinstance(there.end.told[0], str)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for ciphers in ("kRSA:@SECLEVEL=0", "NULL:@SECLEVEL=0", "ADH:@SECLEVEL=0", "CAMELLIA:@SECLEVEL=0"):
        client.set_ciphers(ciphers)
        here, there = connected(server, client)
        assert isinstance(there.end.told[0], str), here.facts


def test_a_verified_peer_is_named(server, authority, certificates):
    client = new_client_context(authorities=authority.file.read_bytes(), label="ca")
    here, _ = connected(server, client)
    assert here.facts.peer == "gate.example.test" and here.facts.peer_names == ("dns:gate.example.test",)
    assert here.facts.anchor == fingerprint(authority.file)
    here, _ = connected(server, client, name="elsewhere.test")
    assert str(here.end.told[0]).startswith("certificate not verified: Hostname mismatch")


def test_a_client_certificate_is_verified(authority, certificates):
    server = ServerTls(
        [Pair("ec", pem_pair(certificates["ec"]))],
        client_authorities=[authority.file.read_bytes()],
        asks_client=True,
    )
    client = new_client_context()
    _, there = connected(server, client)
    assert there.facts.peer == there.facts.fingerprint == ""  # none was shown
    client.load_cert_chain(certificates["client"], certificates["client"].with_suffix(".key"))
    _, there = connected(server, client)
    assert there.facts.peer_names == ("dns:client.test", "email:user@client.test")
    assert there.facts.fingerprint == fingerprint(certificates["client"])
    assert there.facts.anchor == fingerprint(authority.file)


def test_a_client_certificate_of_a_stranger_fails(tmp_path, authority, certificates):
    stranger = Authority(tmp_path, "stranger").issue("client", ["DNS:client.test"], usage="clientAuth")
    server = ServerTls(
        [Pair("ec", pem_pair(certificates["ec"]))],
        client_authorities=[authority.file.read_bytes()],
        asks_client=True,
    )
    client = new_client_context()
    client.load_cert_chain(stranger, stranger.with_suffix(".key"))
    _, there = connected(server, client)
    assert str(there.end.told[0]).startswith("certificate not verified")


def test_names_of_a_peer_cannot_break_a_header(tmp_path):
    facts = TlsFacts("TLSv1.3", "X", 256, peer="a")
    assert facts.comment == "(version=TLSv1.3 cipher=X bits=256 peer=a)"


def test_pairs_that_do_not_work_are_refused(tmp_path, certificates):
    ec, rsa = pem_pair(certificates["ec"]), pem_pair(certificates["rsa"])
    mixed = certificates["ec"].read_bytes() + certificates["rsa"].with_suffix(".key").read_bytes()
    for pem in (b"", b"rubbish", certificates["ec"].read_bytes(), ec[:300], mixed):
        with pytest.raises(CertificateError) as error:
            Pair("file.pem", pem)
        assert "file.pem" in error.value.problem and error.value.advice
    assert Pair("x", ec).names == Pair("x", rsa).names == {"gate.example.test"}
    with pytest.raises(CertificateError):
        new_server_context("1.2", "NO-SUCH-CIPHER")


def test_an_expired_certificate_is_a_pair_all_the_same(authority):
    expired = authority.issue("expired", ["DNS:old.test"], days=-1)
    assert Pair("x", pem_pair(expired)).names == {"old.test"}


def test_channel_bindings(server, certificates):
    one = ServerTls([Pair("other", pem_pair(certificates["other"]))])
    _, there = connected(one)
    (end_point,) = one.bindings(there.layer.object)["tls-server-end-point"]
    assert end_point.hex() == fingerprint(certificates["other"])
    client = new_client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    here, there = connected(server, client)
    bindings = server.bindings(there.layer.object)
    assert bindings["tls-unique"] == (here.layer.object.get_channel_binding("tls-unique"),)
    possible = {fingerprint(certificates[name]) for name in ("ec", "rsa")}
    assert {end_point.hex() for end_point in bindings["tls-server-end-point"]} == possible
