"""What `gatepost check` says where there is nothing to verify web servers by."""

from __future__ import annotations

import pytest

from gatepost.cli.check_tls import inspect_tls
from gatepost.config.schema import Config, Sts, Tls, TlsReports
from gatepost.privsep import material


def warned(tls: Tls) -> list[str]:
    config = Config(hostname="g.test", listen=[], spool="", domains={}, tls=tls)
    errors, warnings = inspect_tls(config, "gatepost.toml", 0.0)
    assert errors == []
    return [str(warning) for warning in warnings if "certification authorities" in str(warning)]


@pytest.fixture
def no_authorities(tmp_path, monkeypatch):
    monkeypatch.setattr(material, "SYSTEM_CA_FILE", str(tmp_path / "nothing"))


@pytest.mark.parametrize("tls", [Tls(), Tls(outbound="none", reports=TlsReports(contact="a@g.test"))])
def test_it_is_a_warning_where_they_are_wanted(no_authorities, tls):
    (text,) = warned(tls)
    assert "install ca-certificates" in text


@pytest.mark.parametrize("tls", [Tls(outbound="opportunistic"), Tls(sts=Sts(enabled=False))])
def test_it_is_none_where_nobody_is_asked(no_authorities, tls):
    assert warned(tls) == []
