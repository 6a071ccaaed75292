"""The proof as the supervisor gets it: from a process of its own, and a failure of that is a refusal."""

from __future__ import annotations

import sys

from gatepost.config.schema import Config, Domain, Relay, RelayRule
from gatepost.privsep import proving


def config_with(*rules: RelayRule) -> Config:
    return Config(
        hostname="mx.example.net",
        listen=["192.0.2.5:25"],
        spool="/var/spool/gatepost",
        domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"])},
        relay=Relay(networks=["10.0.0.0/8"], rules=list(rules)),
    )


def test_proved_and_refuted():
    assert proving.refutation_of(config_with()) == []
    lines = proving.refutation_of(config_with(RelayRule(name="own", reverse_paths=["@example.net"])))
    assert "    C: MAIL FROM:<someone@example.net>" in lines


def test_a_proof_that_cannot_be_made_is_a_refusal(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "could not be made" in proving.refutation_of(config_with())[0]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "exit status 1" in proving.refutation_of(config_with())[0]
