"""TLS on the real gateway, locked in: real clients by STARTTLS and on 465, Postfix on both sides, new certificates while it runs."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import socketserver
import ssl
import subprocess
import threading

import pytest
from certificates import RSA, Authority, config_rows, fingerprint, key_of
from integration.gateway import COMMAND, Gateway
from integration.nexthop import EXTENSIONS, NextHop
from integration.talk import Talk, message, send
from peers import (
    PostfixServer,
    send_with_msmtp,
    send_with_smtplib,
    send_with_swaks,
    take_port,
    wait_until,
)

USER = "user@example.test"
PASSWORD = "correct horse battery"
TEXT = b"From: user@example.test\r\nTo: user@example.test\r\nSubject: Hello\r\n\r\nA line.\r\n"
EDGE, SUBMISSION, SUBMISSIONS = "edge", "submission", "submissions"


class Bed:
    """A gateway with certificates, a submission port and one with TLS from the first octet."""

    def __init__(self, directory, hop, extra: str = "", tls: str = "", **more) -> None:
        directory.chmod(0o755)
        self.authority = Authority(directory)
        names = ["DNS:gate.example.test", "DNS:localhost", "IP:127.0.0.1"]
        self.ec = self.authority.issue("gate-ec", names)
        self.rsa = self.authority.issue("gate-rsa", names, algorithm=RSA)
        self.other = self.authority.issue("other", ["DNS:other.test"])
        self.client = self.authority.issue("client", ["DNS:client.test"], usage="clientAuth")
        self.ports = {SUBMISSION: take_port(), SUBMISSIONS: take_port()}
        listeners = "".join(
            f'[[listeners]]\naddress = "127.0.0.1:{port}"\nkind = "{kind}"\n' for kind, port in self.ports.items()
        )
        rows = config_rows(self.ec, self.rsa, self.other) + f'[auth]\nusers_file = "{directory}/users"\n'
        self.gateway = Gateway(directory, next_hop=hop.name, extra=f"{listeners}[tls]\n{tls}\n{rows}{extra}", **more)
        self.gateway.write_config()
        command = ["user", "add", USER, "--stdin", "--config", str(self.gateway.config)]
        subprocess.run([*COMMAND, *command], input=PASSWORD + "\n", text=True, check=True, capture_output=True)
        self.ports[EDGE] = self.gateway.port

    @property
    def context(self) -> ssl.SSLContext:
        """A client that trusts the authority."""
        return ssl.create_default_context(cafile=str(self.authority.file))


@pytest.fixture(scope="module")
def hop():
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def bed(tmp_path_factory, hop):
    bed = Bed(tmp_path_factory.mktemp("bed"), hop)
    with bed.gateway as gateway:
        yield bed
        gateway.assert_no_bugs()


def s_client(port: int, *options: str, said: bytes = b"QUIT\r\n", implicit: bool = False):
    """openssl s_client; returns what it printed, and its exit status."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "gate.example.test", "-crlf"]
    command += [] if implicit else ["-starttls", "smtp"]
    done = subprocess.run([*command, *options], input=said, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode


# --- clients ----------------------------------------------------------------------------------------------------------


def send_by(client: str, bed: Bed, kind: str, text: bytes = TEXT) -> str:
    """Send a message with a real client by TLS, authenticated where that is asked for; what went wrong."""
    port, implicit, ca = bed.ports[kind], kind == SUBMISSIONS, str(bed.authority.file)
    authenticates = kind != EDGE
    if client == "swaks":
        options = ["--tls-on-connect" if implicit else "--tls"]
        options += ["--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD] if authenticates else []
        done = send_with_swaks(port, reverse_path=USER, message=text, options=options)
    elif client == "curl":
        url = f"{'smtps' if implicit else 'smtp'}://localhost:{port}/client.outside.test"
        command = ["curl", "-sS", "--ssl-reqd", "--cacert", ca, "--url", url, "--mail-from", USER, "--mail-rcpt", USER]
        command += ["--user", f"{USER}:{PASSWORD}"] if authenticates else []
        done = subprocess.run(
            [*command, "--upload-file", "-"],
            input=text.decode(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    elif client == "msmtp":
        options = ["--tls=on", f"--tls-starttls={'off' if implicit else 'on'}", f"--tls-trust-file={ca}"]
        options += ["--auth=plain", f"--user={USER}", f"--passwordeval=echo {PASSWORD}"] if authenticates else []
        done = send_with_msmtp(port, reverse_path=USER, message=text, options=options)
    else:
        make = smtplib.SMTP_SSL if implicit else smtplib.SMTP
        with make("localhost", port, **({"context": bed.context} if implicit else {})) as smtp:
            if not implicit:
                smtp.starttls(context=bed.context)
            if authenticates:
                smtp.login(USER, PASSWORD)
            return str(smtp.sendmail(USER, [USER], text) or "")
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("kind", [EDGE, SUBMISSION, SUBMISSIONS])
@pytest.mark.parametrize("client", ["swaks", "curl", "msmtp", "smtplib"])
def test_real_clients_send_by_tls(bed, hop, kind, client):
    before = len(hop.taken)
    assert send_by(client, bed, kind) == ""
    taken = hop.wait_for(before + 1)[-1]
    assert (b"with ESMTPS id" if kind == EDGE else b"with ESMTPSA id") in taken.content
    assert b"\r\n\t(version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256)\r\n" in taken.content
    assert bed.gateway.told("accepted")[-1]["tls"] == "TLSv1.3"


def test_the_protocol_of_an_internationalized_message_is_named(bed, hop):
    before = len(hop.taken)
    with smtplib.SMTP("localhost", bed.gateway.port) as smtp:
        smtp.starttls(context=bed.context)
        smtp.ehlo()
        smtp.mail("юзер@outside.test", ("SMTPUTF8",))
        smtp.rcpt(USER)
        assert smtp.data("Subject: привет\r\n\r\nпривет\r\n".encode())[0] == 250
    taken = hop.wait_for(before + 1)[-1]
    assert b"with UTF8SMTPS id" in taken.content
    assert taken.reverse_path == "юзер@outside.test"


@pytest.mark.parametrize("kind", [EDGE, SUBMISSIONS])
def test_a_large_message_arrives_whole(bed, hop, kind):
    before = len(hop.taken)
    text = TEXT + b"".join(b"%08d %b\r\n" % (number, b"x" * 60) for number in range(40_000))
    assert send_by("smtplib", bed, kind, text) == ""
    assert hop.wait_for(before + 1)[-1].content.endswith(text)


def test_postfix_sends_by_tls(bed, hop, tmp_path):
    before = len(hop.taken)
    settings = {
        "smtp_tls_security_level": "verify",
        "smtp_tls_CAfile": str(bed.authority.file),
        "smtp_tls_loglevel": "1",
    }
    settings["smtp_tls_verify_cert_match"] = "gate.example.test"
    relay = f"127.0.0.1:{bed.gateway.port}"
    with PostfixServer(tmp_path, domains=("outside.test",), relay_host=relay, settings=settings) as outside:
        assert send_with_smtplib(outside.port, (USER,)) == {}
        taken = hop.wait_for(before + 1)[-1]
        assert "Verified TLS connection established" in outside.wait_for_log("TLS connection established")
    assert b"with ESMTPS id" in taken.content


# --- what is offered --------------------------------------------------------------------------------------------------


def test_certificates_by_name_and_kind(bed):
    for name, certificate in (("gate.example.test", bed.ec), ("other.test", bed.other), ("stranger.test", bed.ec)):
        with smtplib.SMTP("127.0.0.1", bed.gateway.port) as smtp:
            smtp._host = name  # the name that it asks for
            smtp.starttls(context=unverified())
            found = smtp.sock.getpeercert(True)
        assert ssl.DER_cert_to_PEM_cert(found).strip() == certificate.read_text().strip()
    printed, status = s_client(bed.gateway.port, "-tls1_2", "-cipher", "aRSA", "-CAfile", str(bed.authority.file))
    assert status == 0 and "CN = gate-rsa" in printed and "Verify return code: 0 (ok)" in printed


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    "options",
    [
        ("-tls1",),
        ("-tls1_1",),
        ("-tls1_2", "-cipher", "AES128-SHA"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"),
        ("-tls1_2", "-cipher", "NULL"),
        ("-tls1_2", "-cipher", "ADH"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_old_versions_and_weak_ciphers_are_refused(bed, options, implicit):
    port = bed.ports[SUBMISSIONS if implicit else EDGE]
    ciphers = [f"{options[-1]}:@SECLEVEL=0"] if "-cipher" in options else ["-cipher", "ALL:@SECLEVEL=0"]
    options = (*options[:-1], *ciphers) if "-cipher" in options else (*options, *ciphers)
    printed, _ = s_client(port, *options, implicit=implicit)
    assert "Cipher is (NONE)" in printed and "alert" in printed, printed


def test_renegotiation_and_compression_are_off(bed):
    printed, _ = s_client(bed.gateway.port, "-tls1_2", "-comp", said=b"R\n")
    assert "no renegotiation" in printed.lower() or "NO_RENEGOTIATION" in printed, printed
    assert "Compression: NONE" in printed
    assert "Secure Renegotiation IS supported" in printed


def test_a_session_is_resumed(bed, tmp_path):
    ticket = str(tmp_path / "session")
    s_client(bed.gateway.port, "-tls1_2", "-sess_out", ticket)
    printed, _ = s_client(bed.gateway.port, "-tls1_2", "-sess_in", ticket)
    assert "Reused, TLSv1.2" in printed
    bed.gateway.wait_for_event("tls", resumed=True)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_pipelined_behind_starttls_is_never_executed(bed, hop):
    gateway = bed.gateway
    before = (
        len(gateway.told("violation")),
        len(gateway.events("accepted")),
        gateway.stats()["receiver/0"]["violations"],
    )
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.sock.sendall(b"STARTTLS\r\nMAIL FROM:<evil@outside.test>\r\nRCPT TO:<user@example.test>\r\n")
        assert talk.hear().startswith(b"501 5.5.4 ")
        assert talk.is_closed()
    row = gateway.wait_for_event("violation", kind="starttls-injection")
    assert "evil@outside.test" in row["detail"]
    assert len(gateway.told("accepted")) == before[1]
    assert gateway.stats()["receiver/0"]["violations"] == before[2] + 1


def test_what_comes_behind_220_in_clear_ends_the_connection(bed):
    with Talk(bed.gateway.port) as talk:
        talk.hello()
        talk.say(b"STARTTLS\r\n", b"220 2.0.0 ")
        talk.sock.sendall(b"EHLO evil.test\r\nMAIL FROM:<evil@outside.test>\r\n")
        assert talk.is_closed()
    bed.gateway.wait_for_event("tls_failed", reason="wrong version number")


def test_submission_asks_for_tls(bed):
    with Talk(bed.ports[SUBMISSION]) as talk:
        assert b"STARTTLS" in talk.hello()
        talk.say(b"MAIL FROM:<sender@outside.test>\r\n", b"530 5.7.0 ")
        talk.say(b"STARTTLS\r\n", b"220 ")


def test_clear_text_on_the_tls_port_is_not_answered(bed):
    with socket.create_connection(("127.0.0.1", bed.ports[SUBMISSIONS]), timeout=60) as sock:
        sock.sendall(b"EHLO client.test\r\n")
        while octets := sock.recv(4096):
            assert b"220" not in octets and b"250" not in octets


def test_a_slow_and_an_endless_handshake_are_cut(tmp_path, hop):
    (tmp_path / "slow").mkdir()
    bed = Bed(tmp_path / "slow", hop, tls="handshake_timeout_s = 1.0")
    with bed.gateway as gateway:
        for kind in (EDGE, SUBMISSIONS):
            with socket.create_connection(("127.0.0.1", bed.ports[kind]), timeout=60) as sock:
                if kind == EDGE:
                    sock.recv(4096)
                    sock.sendall(b"STARTTLS\r\n")
                    sock.recv(4096)
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it came too late to be read
                    sock.sendall(b"\x16\x03\x01")
                    assert sock.recv(4096) == b""
        gateway.wait_for_event("violation", kind="timeout", detail="no TLS in time")
        gateway.assert_no_bugs()
    (tmp_path / "endless").mkdir()
    bed = Bed(tmp_path / "endless", hop, tls="max_handshake_bytes = 20000")
    with bed.gateway as gateway:
        with socket.create_connection(("127.0.0.1", bed.ports[SUBMISSIONS]), timeout=60) as sock:
            record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(16380)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it may be cut while it is being sent
                sock.sendall(record * 2)
                while sock.recv(4096):
                    pass
        gateway.wait_for_event("tls_failed", reason="handshake of more than 20000 octets")
        gateway.assert_no_bugs()


def test_without_a_certificate_the_edge_is_plain_and_check_says_so(tmp_path, hop):
    with Gateway(tmp_path, next_hop=hop.name) as gateway, Talk(gateway.port) as talk:
        assert b"STARTTLS" not in talk.hello()
        talk.say(b"STARTTLS\r\n", b"502 5.5.1 ")
        assert "tls.certificates" in gateway.run("check").stderr


def test_a_key_that_does_not_fit_stops_the_start(tmp_path, hop):
    bed = Bed(tmp_path, hop)
    key_of(bed.ec).write_bytes(key_of(bed.other).read_bytes())
    bed.gateway.write_config()
    checked = bed.gateway.run("check")
    assert checked.returncode == 2 and f"{bed.ec} cannot be used: key values mismatch" in checked.stderr
    with pytest.raises(Exception, match="key values mismatch"):
        bed.gateway.start()


def test_a_key_that_others_may_read_stops_the_start(tmp_path, hop):
    bed = Bed(tmp_path, hop)
    key_of(bed.ec).chmod(0o644)
    bed.gateway.write_config()
    checked = bed.gateway.run("check")
    assert checked.returncode == 2 and str(key_of(bed.ec)) in checked.stderr and "chmod" in checked.stderr


# --- new certificates -------------------------------------------------------------------------------------------------


def shown(port: int) -> str:
    """The fingerprint of the certificate on the edge."""
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.starttls(context=unverified())
        pem = ssl.DER_cert_to_PEM_cert(smtp.sock.getpeercert(True))
    found = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256"], input=pem, capture_output=True, text=True, check=True
    )
    return found.stdout.strip().rpartition("=")[2].replace(":", "").lower()


def test_new_certificates_are_taken_up_without_a_dropped_connection(tmp_path, hop):
    bed = Bed(tmp_path, hop)
    with bed.gateway as gateway:
        assert shown(gateway.port) == fingerprint(bed.ec)
        with smtplib.SMTP("127.0.0.1", gateway.port) as kept:
            kept.starttls(context=unverified())
            kept.ehlo()
            key_of(bed.ec).write_bytes(key_of(bed.other).read_bytes())  # the certificate comes later
            done = gateway.run("reload")
            assert done.returncode != 0 and "key values mismatch" in done.stdout + done.stderr
            assert "key values mismatch" in str(gateway.wait_for_event("reload_refused")["errors"])
            assert shown(gateway.port) == fingerprint(bed.ec)
            new = bed.authority.issue("gate-ec", ["DNS:gate.example.test"])
            assert gateway.run("reload").returncode == 0
            wait_until(lambda: shown(gateway.port) == fingerprint(new), "the new certificate")
            kept.sendmail("sender@outside.test", [USER], message().decode())  # still the old session
        assert not gateway.events("bug") and not gateway.events("event_unknown")


# --- client certificates ----------------------------------------------------------------------------------------------


def test_a_client_certificate_gives_the_right_to_relay(tmp_path, hop):
    directory = tmp_path / "bed"
    directory.mkdir()
    strangers = Authority(tmp_path, "strangers")
    tmp_path.chmod(0o755)
    stranger = strangers.issue("client", ["DNS:client.test"], usage="clientAuth")
    rows = f'[[relay.certificates]]\nca_file = "{directory}/ca.pem"\nnames = ["client.test"]\n'
    bed = Bed(directory, hop, tls="client_certificates = true", extra=rows, relay_next_hop=hop.name)
    wrong_name = bed.authority.issue("wrong", ["DNS:other-client.test"], usage="clientAuth")

    def relay(certificate) -> int:
        context = unverified()
        if certificate is not None:
            context.load_cert_chain(certificate, key_of(certificate))
        with smtplib.SMTP("127.0.0.1", bed.gateway.port) as smtp:
            smtp.starttls(context=context)
            smtp.ehlo()
            smtp.mail("sender@outside.test")
            return smtp.rcpt("far@elsewhere.test")[0]

    with bed.gateway as gateway:
        assert relay(bed.client) == 250
        assert relay(None) == 550
        assert relay(wrong_name) == 550
        with pytest.raises((ssl.SSLError, smtplib.SMTPException, ConnectionError)):
            relay(stranger)
        gateway.wait_for_event("tls_failed")
        assert relay(stranger) == 550  # not asked again, so that its mail still comes by TLS
        gateway.assert_no_bugs()


# --- sending ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inside")
    directory.chmod(0o755)
    authority = Authority(directory)
    certificate = authority.issue("inside", ["DNS:inside.test", "IP:127.0.0.1"])
    settings = {
        "smtpd_tls_cert_file": str(certificate),
        "smtpd_tls_key_file": str(key_of(certificate)),
        "smtpd_tls_security_level": "may",
        "smtpd_tls_received_header": "yes",
    }
    with PostfixServer(directory, settings=settings) as postfix:
        postfix.authority, postfix.certificate = authority, certificate
        yield postfix


@pytest.mark.peer("postfix")
@pytest.mark.parametrize(
    ("tls", "verified"),
    [
        ('outbound = "opportunistic"', False),
        ('outbound = "encrypt"', False),
        ('outbound = "verify"\nca_file = "{ca}"', True),
        ('outbound = "none"\n[[tls.policies]]\ndomains = ["example.test"]\nlevel = "verify"\nca_file = "{ca}"', True),
        ('outbound = "none"\n[[tls.policies]]\nnext_hops = ["{hop}"]\nlevel = "verify"\nfingerprints = ["{fp}"]', True),
        ('[[tls.policies]]\ndomains = ["example.test"]\nlevel = "verify"\nnames = ["inside.test"]\nca_file = "{ca}"', True),
    ],
)  # fmt: skip
def test_postfix_gets_it_by_tls(tmp_path, inside, tls, verified):
    before = len(inside.messages())
    hop = f"smtp://{inside.address}"
    extra = tls.format(ca=inside.authority.file, hop=hop, fp=fingerprint(inside.certificate))
    with Gateway(tmp_path, next_hop=hop, extra=f"[tls]\n{extra}\n") as gateway:
        send(gateway.port, USER)
        arrived = inside.wait_for_messages(before + 1)[-1]
        row = gateway.wait_for_event("connect_out")
        assert row["tls"] == "TLSv1.3" and row["verified"] is verified
        gateway.assert_no_bugs()
    assert b"(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384" in arrived and b"with ESMTPS id" in arrived


@pytest.mark.peer("postfix")
@pytest.mark.parametrize(
    "tls",
    [
        'outbound = "verify"\nca_file = "{wrong}"',
        'outbound = "verify"\nca_file = "{ca}"\n[[tls.policies]]\ndomains = ["example.test"]\nlevel = "verify"\nnames = ["elsewhere.test"]',
        '[[tls.policies]]\ndomains = ["example.test"]\nlevel = "verify"\nfingerprints = ["' + "0" * 64 + '"]',
    ],
)  # fmt: skip
def test_a_certificate_that_does_not_fit_gets_nothing(tmp_path, inside, tls):
    tmp_path.chmod(0o755)
    wrong = Authority(tmp_path, "wrong").file
    before = len(inside.messages())
    extra = tls.format(ca=inside.authority.file, wrong=wrong)
    with Gateway(tmp_path, next_hop=f"smtp://{inside.address}", extra=f"[tls]\n{extra}\n") as gateway:
        send(gateway.port, USER)
        row = gateway.wait_for_event("deferred")
        assert (row["status"], row["stage"]) == ("4.7.5", "tls")
        gateway.assert_no_bugs()
    assert len(inside.messages()) == before


def test_what_must_not_travel_in_clear_waits_and_then_bounces(tmp_path, hop):
    queue = "[queue]\nallow_volatile = true\nlifetime_s = 3600.0\nretry_min_s = 0.5\nretry_max_s = 1.0\nnext_hop_retry_s = 0.5\ndelay_notice_s = 0\n"
    tls = '[[tls.policies]]\ndomains = ["secret.test"]\nlevel = "encrypt"\n'
    with NextHop() as outside, Gateway(
        tmp_path, next_hop=hop.name, relay_next_hop=outside.name, networks=("127.0.0.1/32",), extra=queue + tls
    ) as gateway:  # fmt: skip
        with Talk(gateway.port) as talk:
            talk.hello()
            talk.send(["open@public.test", "closed@secret.test"], message(), reverse_path=USER)
        assert outside.wait_for(1)[0].recipients == ["open@public.test"]
        row = gateway.wait_for_event("deferred", recipient="closed@secret.test")
        assert row["status"] == "4.7.4" and "STARTTLS" in row["text"]
        gateway.extra = gateway.extra.replace("lifetime_s = 3600.0", "lifetime_s = 4.0")  # now that it has waited
        gateway.write_config()
        assert gateway.run("reload").returncode == 0
        gateway.wait_for_event("expired", recipient="closed@secret.test")
        bounce = wait_until(lambda: find_bounce(hop), "the bounce")
        assert b"Status: 5.7.4" in bounce and b"closed@secret.test" in bounce
        assert [taken.recipients for taken in outside.taken] == [["open@public.test"]]
        gateway.assert_no_bugs()


def find_bounce(hop: NextHop) -> bytes:
    return next((taken.content for taken in list(hop.taken) if taken.reverse_path == ""), b"")


class BrokenTls(socketserver.StreamRequestHandler):
    """Offers STARTTLS and cannot do it; takes mail in clear."""

    def handle(self) -> None:
        self.wfile.write(b"220 broken.test\r\n")
        replies = {b"EHLO": b"250-broken.test\r\n250 STARTTLS\r\n", b"STAR": b"220 go\r\n"}
        replies |= {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}
        while line := self.rfile.readline():
            verb = line[:4].upper()
            self.server.verbs.append(verb)
            self.wfile.write(replies.get(verb, b"250 ok\r\n"))
            if verb == b"STAR":
                self.rfile.read(5)  # the begin of a ClientHello
                self.wfile.write(b"this is no TLS\r\n")
                return
            if verb == b"DATA":
                while self.rfile.readline() != b".\r\n":
                    pass
                self.wfile.write(b"250 taken\r\n")


@pytest.mark.parametrize("level", ["opportunistic", "encrypt"])
def test_a_failed_handshake_goes_on_in_clear_where_that_is_allowed(tmp_path, level):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), BrokenTls) as server:
        server.verbs, server.daemon_threads = [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hop = f"smtp://127.0.0.1:{server.server_address[1]}"
        with Gateway(tmp_path, next_hop=hop, extra=f'[tls]\noutbound = "{level}"\n') as gateway:
            send(gateway.port, USER)
            failed = gateway.wait_for_event("tls_out_failed", policy=level)
            if level == "opportunistic":
                assert failed["clear"] is True
                gateway.wait_for_event("delivered")
                assert gateway.wait_for_event("connect_out")["tls"] == ""
                assert server.verbs[:3] == [b"EHLO", b"STAR", b"EHLO"] and server.verbs.count(b"STAR") == 1
            else:
                assert failed["clear"] is False
                assert gateway.wait_for_event("deferred")["status"] == "4.7.5"
                assert not {b"MAIL", b"RCPT", b"DATA"}.intersection(server.verbs)
            gateway.assert_no_bugs()
        server.shutdown()


def test_a_refused_starttls_goes_on_in_clear(tmp_path):
    # This one says 250 to STARTTLS, as to everything that it does not know
    with NextHop(extensions=[*EXTENSIONS, "STARTTLS"]) as hop, Gateway(tmp_path, next_hop=hop.name) as gateway:
        send(gateway.port, USER)
        assert hop.wait_for(1)[0].recipients == [USER]
        assert gateway.wait_for_event("connect_out")["tls"] == ""
        gateway.assert_no_bugs()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives roles users of their own")
def test_keys_do_not_stay_open_in_any_role(bed):
    for pid in bed.gateway.roles().values():
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # a connection that ended meanwhile
                link = os.readlink(f"/proc/{pid}/fd/{number}")
                assert "memfd" not in link and not link.endswith((".key", ".pem"))
