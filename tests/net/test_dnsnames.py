"""Names that need no query, server addresses, resolv.conf."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import dns.reversename
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatepost.net import dnsnames


@given(st.ip_addresses())
@example(ipaddress.ip_address("::ffff:192.0.2.1"))
@example(ipaddress.ip_address("::1"))
def test_reverse_name_as_dnspython(address):
    assert dnsnames.reverse_name(str(address)) == dns.reversename.from_address(str(address)).to_text(True)


@pytest.mark.parametrize(
    ("kind", "name", "status", "records"),
    [
        ("A", "localhost", "ok", ["127.0.0.1"]),
        ("AAAA", "mail.localhost", "ok", ["::1"]),
        ("MX", "localhost", "nodata", []),
        ("A", "x.invalid", "nxdomain", []),
        ("A", "abc.onion", "nxdomain", []),
        ("A", "192.0.2.1", "ok", ["192.0.2.1"]),
        ("AAAA", "2001:db8:0::1", "ok", ["2001:db8::1"]),
        ("A", "2001:db8::1", "nodata", []),
        ("MX", "192.0.2.1", "nodata", []),
        ("A", "[192.0.2.1]", "nxdomain", []),
        ("A", "a:b", "nxdomain", []),
    ],
)
def test_local_answers(kind, name, status, records):
    done = dnsnames.local_answer(kind, name)
    assert (done.status, done.records, done.secure) == (status, records, False)


@pytest.mark.parametrize(
    "name", ["example.test", "notlocalhost", "invalid.example", "1.2.0.192.in-addr.arpa", "a.1", ""]
)
def test_other_names_are_asked_for(name):
    assert dnsnames.local_answer("A", name) is None


@pytest.mark.parametrize(
    ("text", "shown", "socket_address", "loopback"),
    [
        ("192.0.2.1:5353", "192.0.2.1:5353", ("192.0.2.1", 5353), False),
        ("127.0.0.53", "127.0.0.53:53", ("127.0.0.53", 53), True),
        ("[::1]:53", "[::1]:53", ("::1", 53, 0, 0), True),
        ("2001:db8::1", "[2001:db8::1]:53", ("2001:db8::1", 53, 0, 0), False),
        ("[fe80::1%3]:54", "[fe80::1%3]:54", ("fe80::1", 54, 0, 3), False),
    ],
)
def test_server_addresses(text, shown, socket_address, loopback):
    server = dnsnames.parse_server(text)
    assert (server.text, server.socket_address, server.loopback) == (shown, socket_address, loopback)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:x",
        "[::1",
        "[::1]x",
        "1.2.3:53",
        "[fe80::1%e0]:53",
    ],
)
def test_wrong_server_addresses(text):
    with pytest.raises(ValueError, match="not a DNS server address"):
        dnsnames.parse_server(text)


def test_read_resolv_conf(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# nameserver 1.1.1.1\n; no\nsearch example\nnameserver\nnameserver dns.example\nnameserver fe80::1%nosuchif\n"
        "nameserver 192.0.2.1 # one\n\tnameserver\t2001:db8::1\nnameserver fe80::1%lo\nnameserver 192.0.2.4\n"
    )
    servers = dnsnames.read_resolv_conf(str(path))
    assert servers == ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]
    assert [dnsnames.parse_server(text).text for text in servers] == servers


def test_resolv_conf_without_servers(tmp_path):
    assert dnsnames.read_resolv_conf(str(tmp_path / "missing")) == ["127.0.0.1:53"]


def test_resolver_loads_no_event_loop_or_tls():
    program = "import sys, gatepost.net.dns; print([m for m in ('asyncio', 'ssl') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
