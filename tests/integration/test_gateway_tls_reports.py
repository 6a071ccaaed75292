"""TLS reports with the real roles: results are counted, shown, and reported by mail and by POST where a domain asks for it.

A period is two seconds here instead of a day.
"""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import ssl

import pytest
from certificates import Authority, key_of
from integration.names import Names
from integration.nexthop import NextHop
from integration.queuebed import queue_bed
from integration.talk import send
from peers import take_port, wait_until
from webserver import TEXT, WebServer

INSIDER = "127.0.0.2"
SECURED, PLAIN = "127.0.0.31", "127.0.0.32"
POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n"
STS = '_mta-sts 1 TXT "v=STSv1; id=1;"\nmta-sts 1 A 127.0.0.1\n'


def zone(address: str, rua: str, sts: str = STS) -> str:
    return f'@ 1 MX 10 mx\nmx 1 A {address}\n_smtp._tls 1 TXT "v=TLSRPTv1; rua={rua}"\n{sts}'


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world")
    directory.chmod(0o755)
    authority = Authority(directory)
    authority.file.chmod(0o644)
    hosts = authority.issue("hosts", ["DNS:mx.good.test"])
    webs = authority.issue("webs", ["DNS:mta-sts.good.test", "DNS:mta-sts.trial.test", "DNS:web.good.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hosts, key_of(hosts))
    port = take_port()
    with (
        WebServer({"webs": webs}) as web,
        NextHop(address=SECURED, port=port, tls=context) as secured,
        NextHop(address=PLAIN, port=port) as plain,
        Names(
            {
                "good.test": zone(SECURED, f"https://web.good.test:{web.port}/in, mailto:tls@example.test")
                + "web 1 A 127.0.0.1\n",
                "trial.test": zone(SECURED, "mailto:tls@example.test"),
                "clear.test": zone(PLAIN, "mailto:tls@clear.test", ""),
            }
        ) as names,
    ):
        web.policy("good.test", POLICY.format(mode="enforce", mx="mx.good.test"))
        web.policy("trial.test", POLICY.format(mode="testing", mx="mx.trial.test"))
        web.answers["web.good.test", "/in"] = (201, TEXT, b"")
        extra = (
            f'[dns]\nservers = ["{names.address}"]\ntimeout_s = 10\nattempts = 2\n'
            f'[delivery]\nport = {port}\n[tls]\nca_file = "{authority.file}"\n[tls.sts]\nport = {web.port}\n'
            '[tls.reports]\ncontact = "postmaster@example.test"\norganization = "Gate Inc"\nperiod_s = 2\nspread_s = 0\nkeep_days = 300\n'
        )
        with queue_bed(tmp_path_factory.mktemp("gate"), extra, port=port) as bed:
            bed.web, bed.secured, bed.plain = web, secured, plain
            yield bed


def relay(bed, name: str) -> None:
    sender, _ = bed.names_of_two()
    send(bed.gateway.port, f"user@{name}.test", reverse_path=sender, source=INSIDER)


def reported(message: bytes) -> dict:
    """The JSON in a report that came by mail."""
    parts = list(email.message_from_bytes(message, policy=email.policy.default).iter_parts())
    return json.loads(gzip.decompress(parts[1].get_payload(decode=True)))


def find_report(hop: NextHop, domain: str) -> bytes:
    field = f"TLS-Report-Domain: {domain}\r\n".encode()
    return next((taken.content for taken in list(hop.taken) if field in taken.content), b"")


def test_a_domain_is_told_by_post_and_by_mail(world):
    relay(world, "good")
    world.secured.wait_to("user@good.test")
    row = world.gateway.wait_for_event("tls_report_sent", domain="good.test", to="mailto:tls@example.test")
    assert row["sessions"] == 1
    asked = wait_until(lambda: next((one for one in world.web.asked if one.path == "/in"), None), "the report by post")
    assert asked.headers["Content-Type"] == "application/tlsrpt+gzip"
    data = json.loads(gzip.decompress(asked.body))
    message = wait_until(lambda: find_report(world.inside, "good.test"), "the report by mail")
    assert reported(message)["policies"] == data["policies"]
    assert (data["organization-name"], data["contact-info"]) == ("Gate Inc", "postmaster@example.test")
    (policy,) = data["policies"]
    assert policy["policy"]["policy-type"] == "sts"
    assert policy["policy"]["policy-string"][:2] == ["version: STSv1", "mode: enforce"]
    assert policy["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 0}


def test_testing_sends_all_the_same_and_tells_what_was_wrong(world):
    relay(world, "trial")
    world.secured.wait_to("user@trial.test")
    row = world.gateway.wait_for_event("connect_out", next_hop="mx:trial.test")
    assert row["tls"].startswith("TLSv1.") and not row["verified"]
    message = wait_until(lambda: find_report(world.inside, "trial.test"), "the report by mail")
    (policy,) = reported(message)["policies"]
    (failure,) = policy["failure-details"]
    assert failure["result-type"] == "certificate-host-mismatch"
    assert (failure["receiving-mx-hostname"], failure["receiving-ip"]) == ("mx.trial.test", SECURED)
    assert failure["failed-session-count"] == 1
    assert failure["sending-mta-ip"] == "127.0.0.1"


def test_a_report_goes_although_its_own_way_has_no_tls_and_is_not_reported_on(world):
    relay(world, "clear")
    world.plain.wait_to("tls@clear.test")
    message = find_report(world.plain, "clear.test")
    (policy,) = reported(message)["policies"]
    assert policy["policy"] == {
        "policy-type": "no-policy-found",
        "policy-domain": "clear.test",
        "mx-host": ["mx.clear.test"],
    }
    assert policy["failure-details"][0]["result-type"] == "starttls-not-supported"
    world.gateway.wait_for_event("delivered", recipient="tls@clear.test")


def test_the_operator_sees_it(world):
    relay(world, "good")
    wait_until(
        lambda: any(seen["domain"] == "good.test" for seen in world.gateway.ask("tls", "report")["seen"]), "the results"
    )
    answer = world.gateway.ask("tls", "report", "--since", "1d")
    rows = [row for seen in answer["seen"] for row in seen["results"] if seen["domain"] == "good.test"]
    assert {(row["policy"], row["mx"], row["result"]) for row in rows} == {("sts", "mx.good.test", "success")}
    done = world.gateway.run("tls", "report")
    assert done.returncode == 0 and "good.test" in done.stdout
    assert world.gateway.run("tls", "report", "--since", "x").returncode == 2
