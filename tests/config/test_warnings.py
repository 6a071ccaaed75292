"""What check warns of, and what is published in DNS."""

from __future__ import annotations

import msgspec

from gatepost.config.publish import records_to_publish
from gatepost.config.schema import Config, Delivery, Domain, Queue, Relay, Source
from gatepost.config.warnings import warnings_of

GOOD = Config(
    hostname="mx.example.net",
    listen=["192.0.2.5:25", "[2001:db8::5]:25"],
    spool="/var/spool/gatepost",
    domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["anna"])},
    relay=Relay(networks=["10.0.0.0/8"]),
)


def keys(**changes: object) -> set[str]:
    return {warning.key for warning in warnings_of(msgspec.structs.replace(GOOD, **changes))} - {"tls.certificates"}


def test_each_warning_has_its_cause() -> None:
    assert keys() == set()
    assert [warning.key for warning in warnings_of(GOOD)] == ["tls.certificates"]
    assert keys(domains={"a.test": Domain(next_hop=["smtp://10.0.0.5:25"])}) == {'domains."a.test"'}
    assert keys(domains={"a.test": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=[])}) == {'domains."a.test"'}
    assert keys(domains={"a.test": Domain(next_hop=["mx"], recipients=["x"])}) == {'domains."a.test".next_hop'}
    assert keys(domains={"a.test": Domain(next_hop=["mx"], recipients=["x"], backup_mx=True)}) == set()
    caught = Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["x"], catch_all="x@a.test")
    assert keys(domains={"a.test": caught}) == {'domains."a.test".catch_all'}
    assert keys(relay=Relay(networks=["8.0.0.0/9"])) == {"relay.networks"}
    assert keys(relay=Relay(networks=["127.0.0.0/8"]), listen=["0.0.0.0:25"]) == {"relay.networks"}
    assert keys(relay=Relay(networks=["127.0.0.0/8"]), listen=["127.0.0.1:2525"]) == set()
    assert keys(listen=["192.0.2.5:2525"]) == {"listen"}
    assert keys(queue=Queue(allow_volatile=True)) == {"queue.allow_volatile"}
    assert keys(queue=Queue(lifetime_s=3600)) == {"queue.lifetime_s"}
    assert keys(delivery=Delivery(port=2525)) == {"delivery.port"}
    source = Source(type="ldap", attribute="route")
    assert keys(routes=["ldap:routes"], sources={"routes": source}) == {"sources.routes.next_hops"}
    assert keys(sender_routes=["ldap:routes"], sources={"routes": source}) == {"sources.routes.next_hops"}
    limited = Source(type="ldap", attribute="route", next_hops=["smtp://10.0.0.5:25"])
    assert keys(routes=["ldap:routes"], sources={"routes": limited}) == set()
    assert keys(sandbox="best-effort") == {"sandbox"}


def test_records() -> None:
    records = [str(record) for record in records_to_publish(GOOD)]
    assert records == [
        "mx.example.net. IN A 192.0.2.5",
        "5.2.0.192.in-addr.arpa. IN PTR mx.example.net.",
        "mx.example.net. IN AAAA 2001:db8::5",
        "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mx.example.net.",
        'mx.example.net. IN TXT "v=spf1 a -all"',
        "example.net. IN MX 10 mx.example.net.",
        'example.net. IN TXT "v=spf1 mx -all"',
        '_dmarc.example.net. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@example.net"',
    ]
    inside = msgspec.structs.replace(GOOD, listen=["0.0.0.0:25"])
    assert [record.type for record in records_to_publish(inside)][:2] == ["A", "PTR"]
    assert "<public IPv4 address>" in str(records_to_publish(inside)[0])
