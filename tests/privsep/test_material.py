"""Certificates and keys on their way from the supervisor to the roles."""

from __future__ import annotations

import os

import msgspec
import pytest

from gatepost.config.schema import Certificate, Config, Relay, RelayCertificate, Tls, TlsPolicy
from gatepost.privsep import material
from gatepost.privsep.material import MaterialError, Materials
from gatepost.roles.material import take_material


@pytest.fixture
def files(tmp_path):
    for name in ("cert", "key", "clients", "servers"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


def config_of(files) -> Config:
    pair = Certificate(certificate_file=f"{files}/cert", key_file=f"{files}/key")
    policy = TlsPolicy(level="verify", domains=["a.test"], ca_file=f"{files}/servers")
    relay = Relay(certificates=[RelayCertificate(ca_file=f"{files}/clients", names=["c.test"])])
    tls = Tls(certificates=[pair], policies=[policy], outbound="opportunistic")
    return Config(hostname="g.test", listen=[], spool="", domains={}, relay=relay, tls=tls)


def test_each_role_gets_its_own_and_no_other(files):
    config = config_of(files)
    materials = Materials()
    materials.add(config)
    found = {role: taken(materials, config, role) for role in ("receiver", "deliverer", "queue", "control", "resolver")}
    assert found["receiver"] == [b"cert\n\nkey\n", b"clients\n"]
    assert found["deliverer"] == [b"servers\n"]
    assert found["queue"] == found["control"] == found["resolver"] == []


def test_where_policies_are_fetched_web_servers_and_hosts_are_verified_by_the_same_authorities(files):
    config = msgspec.structs.replace(config_of(files), tls=Tls(outbound="best", ca_file=f"{files}/servers"))
    materials = Materials()
    materials.add(config)
    assert taken(materials, config, "resolver") == taken(materials, config, "deliverer") == [b"servers\n"]
    (files / "servers").unlink()
    with pytest.raises(MaterialError, match="servers cannot be read"):
        Materials().add(config)


def test_authorities_of_the_system_need_not_be_there_for_it(files, monkeypatch):
    monkeypatch.setattr(material, "SYSTEM_CA_FILE", f"{files}/nothing")
    config = msgspec.structs.replace(config_of(files), tls=Tls(outbound="best"))
    materials = Materials()
    materials.add(config)
    assert taken(materials, config, "resolver") == [b""]
    with pytest.raises(MaterialError, match="nothing cannot be read"):
        Materials().add(msgspec.structs.replace(config, tls=Tls(outbound="verify")))


def taken(materials: Materials, config: Config, role: str) -> list[bytes]:
    return take_material([os.dup(descriptor) for descriptor in materials.of(config, role)])


def test_a_role_cannot_change_what_the_next_one_gets(files):
    config = config_of(files)
    materials = Materials()
    materials.add(config)
    for descriptor in materials.of(config, "receiver"):
        for change in (
            lambda fd: os.pwrite(fd, b"x", 0),
            lambda fd: os.ftruncate(fd, 0),
            lambda fd: os.pwrite(fd, b"x", 99),
        ):
            with pytest.raises(PermissionError):
                change(descriptor)


def test_a_change_is_seen_once_and_the_old_stays_until_it_is_replaced(files):
    config = config_of(files)
    materials = Materials()
    materials.add(config)
    assert not materials.have_changed(config)
    (files / "key").write_text("another\n")
    assert materials.have_changed(config)
    successor = config_of(files)
    materials.add(successor)
    assert taken(materials, config, "receiver")[0] == b"cert\n\nkey\n"
    assert taken(materials, successor, "receiver")[0] == b"cert\n\nanother\n"
    materials.keep(config)  # the successor did not start
    assert taken(materials, successor, "receiver") == []
    assert not materials.have_changed(config)  # it was tried in vain
    (files / "cert").write_text("fits again\n")
    assert materials.have_changed(config)


@pytest.mark.parametrize("name", ["cert", "key", "clients", "servers"])
def test_what_cannot_be_read_is_refused(files, name):
    (files / name).unlink()
    with pytest.raises(MaterialError, match=f"{files}/{name} cannot be read"):
        Materials().add(config_of(files))
    (files / name).symlink_to("/etc/passwd")
    with pytest.raises(MaterialError, match="symbolic link"):
        Materials().add(config_of(files))
