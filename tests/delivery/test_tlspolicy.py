"""Which TLS policy holds for whom, and what a connection is told to verify."""

from __future__ import annotations

import pytest
from certificates import Authority

from gatepost.config.schema import Config, Domain, Tls, TlsPolicy
from gatepost.delivery.tlspolicy import Policy, TlsPolicies, plan
from gatepost.net.tlscontext import CertificateError, new_client_context
from gatepost.privsep.material import authority_files
from gatepost.smtp.outgoing import Tls as Asks

CONTEXT = new_client_context()


def policies(*rows: TlsPolicy, outbound: str = "opportunistic", **files: bytes) -> TlsPolicies:
    config = Config(
        hostname="gate.example.test",
        listen=["127.0.0.1:25"],
        spool="/spool",
        domains={"example.test": Domain(next_hop=["mx"])},
        tls=Tls(outbound=outbound, policies=list(rows)),
    )
    return TlsPolicies(config, files)


def test_without_rows_the_general_one_holds():
    table = policies()
    assert table.is_uniform and table.of("mx:a.test", "a.test") is table.general
    assert table.general.level == "opportunistic" and table.general.may_be_clear


def test_the_first_row_that_names_the_domain_or_the_next_hop_holds():
    table = policies(
        TlsPolicy(level="none", domains=["exact.test"]),
        TlsPolicy(level="encrypt", domains=[".below.test", "exact.test"]),
        TlsPolicy(level="none", next_hops=["smtp://10.0.0.5:25"], domains=["x.below.test"]),
        TlsPolicy(level="encrypt", domains=["late.test"], next_hops=["smtp://10.0.0.6:25"]),
    )
    hop = "mx:any.test"
    assert table.of(hop, "exact.test").key == "#1"
    assert table.of(hop, "x.below.test").key == table.of(hop, "y.x.below.test").key == "#2"
    assert table.of(hop, "below.test") is table.of(hop, "elsewhere.test") is table.general
    assert table.of("smtp://10.0.0.5:25", "elsewhere.test").key == "#3"
    assert table.of("smtp://10.0.0.5:25", "exact.test").key == "#1"
    assert table.of("smtp://10.0.0.5:25", "late.test").key == "#3"
    assert table.of("smtp://10.0.0.6:25", "late.test").key == "#4"


@pytest.mark.parametrize(
    ("level", "asks", "clear"),
    [
        ("none", Asks.NEVER, True),
        ("opportunistic", Asks.IF_OFFERED, True),
        ("encrypt", Asks.ALWAYS, False),
        ("verify", Asks.ALWAYS, False),
    ],
)
def test_only_two_levels_ever_send_in_clear(level, asks, clear):
    policy = Policy(level, CONTEXT)
    assert policy.tls is asks and policy.may_be_clear is clear


@pytest.mark.parametrize(
    ("names", "host", "mx_domain", "verified"),
    [
        ((), "mx.example.org", "", "mx.example.org"),  # the operator named the host
        ((), "10.0.0.5", "", "10.0.0.5"),
        ((), "mx.example.org", "example.org", "mx.example.org"),
        ((), "example.org", "example.org", "example.org"),
        ((), "mx.provider.test", "example.org", "example.org"),  # the MX record may be anybody's
        ((), "mx.notexample.org", "example.org", "example.org"),
        (("mx.provider.test",), "mx.provider.test", "example.org", "mx.provider.test"),
        (("*.provider.test",), "mx.provider.test", "example.org", "mx.provider.test"),
        (("*.provider.test",), "mx.evil.test", "example.org", "provider.test"),
        (("mx.provider.test",), "mx.evil.test", "example.org", "mx.provider.test"),
        (("mx.provider.test",), "10.0.0.5", "", "mx.provider.test"),
    ],
)  # fmt: skip
def test_the_name_that_is_verified(names, host, mx_domain, verified):
    assert plan(Policy("verify", CONTEXT, names=names), host, mx_domain).server_name == verified


@pytest.mark.parametrize(
    ("level", "relaxed"),
    [("best", "opportunistic"), ("dane", "opportunistic"), ("sts", "opportunistic")]
    + [(level, level) for level in ("none", "opportunistic", "encrypt", "dane-only")],
)
def test_tls_required_no_relaxes_what_others_publish_and_not_the_operator(level, relaxed):
    """RFC 8689 4.3."""
    policies = TlsPolicies(Config(hostname="g.test", listen=[], spool="", domains={}, tls=Tls(outbound=level)), {})
    found = policies.relaxed(policies.general)
    assert found.level == relaxed
    assert (found is policies.general) == (level == relaxed)
    assert found is policies.relaxed(policies.general)


def test_an_address_is_no_server_name():
    assert plan(Policy("opportunistic", CONTEXT), "127.0.0.1").server_name is None
    assert plan(Policy("opportunistic", CONTEXT), "[IPv6:::1]").server_name is None
    assert plan(Policy("encrypt", CONTEXT), "mx.example.org", "example.org").server_name == "mx.example.org"


def test_authorities_are_loaded_once_and_must_be_certificates(tmp_path):
    pem = Authority(tmp_path).file.read_bytes()
    rows = [TlsPolicy(level="verify", domains=[domain], ca_file="/ca") for domain in ("a.test", "b.test")]
    table = policies(*rows, **{"/ca": pem})
    assert table.of("mx:a.test", "a.test").context is table.of("mx:b.test", "b.test").context
    with pytest.raises(CertificateError):
        policies(*rows, **{"/ca": b"rubbish"})


def test_which_files_are_read():
    def files(*rows: TlsPolicy, outbound: str = "opportunistic") -> list[str]:
        config = Config(hostname="g", listen=[], spool="", domains={}, tls=Tls(outbound=outbound, policies=list(rows)))
        return authority_files(config)

    assert files() == files(TlsPolicy(level="encrypt", domains=["a.test"])) == []
    assert files(TlsPolicy(level="verify", domains=["a.test"], fingerprints=["0" * 64])) == []
    assert files(TlsPolicy(level="verify", domains=["a.test"], ca_file="/ca")) == ["/ca"]
    assert files(outbound="verify") == ["/etc/ssl/certs/ca-certificates.crt"]
