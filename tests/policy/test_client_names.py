"""Names of clients: only what leads there and back counts; lines of the access table by name refuse and demand, and never give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.model import Address, NeedsAnswer, Question, TlsPeer
from gatepost.policy.clientnames import MAX_NAMES, names_of_client
from gatepost.policy.engine import Engine, Phase
from gatepost.policy.proof import prove
from gatepost.policy.record import FactRecord, RecordedRecipient, decode_records, encode_records
from gatepost.policy.replay import Replay
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.table import TableUnavailable

CLIENT = "192.0.2.1"
DOWN = Answer(None, "no answer")


class Dns(Answers):
    """What DNS says; everything else does not exist."""

    def __init__(self, found: dict[tuple[str, str], Sequence[str] | Answer]) -> None:
        super().__init__()
        self.found = found
        self.asked: list[tuple[str, str]] = []

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        said = []
        for key in keys:
            self.asked.append((source, key))
            found = self.found.get((source.removeprefix("dns:"), key), ())
            answer = found if isinstance(found, Answer) else Answer("ok" if found else "nxdomain", "", tuple(found))
            if answer.failed:
                raise TableUnavailable(f"{source}: {answer.failed}")
            said.append(answer)
        return said


def dns(name: str = "", forward: Sequence[str] | Answer = (CLIENT,), client: str = CLIENT) -> Dns:
    kind = "AAAA" if ":" in client else "A"
    return Dns({("PTR", client): [f"{name}."], (kind, name.lower()): forward} if name else {})


@pytest.mark.parametrize(
    ("client", "name", "forward", "names"),
    [
        (CLIENT, "Mail.Good.example", [CLIENT], ("mail.good.example",)),
        (CLIENT, "mail.good.example", ["198.51.100.1", CLIENT], ("mail.good.example",)),
        (CLIENT, "mail.good.example", ["198.51.100.1"], ()),
        (CLIENT, "mail.good.example", [], ()),
        (CLIENT, "", [], ()),
        ("2001:db8::1", "six.example", ["2001:db8:0::1"], ("six.example",)),
        (CLIENT, "bad name.example", [CLIENT], ()),
        (CLIENT, "[192.0.2.1]", [CLIENT], ()),
        (CLIENT, "x" * 254, [CLIENT], ()),
    ],
)
def test_a_name_counts_if_it_leads_back(client: str, name: str, forward: list[str], names: tuple[str, ...]):
    assert names_of_client(client, dns(name, forward, client)) == names


def test_an_address_in_the_form_of_ipv6_is_that_of_ipv4():
    assert names_of_client(f"::ffff:{CLIENT}", dns("a.example")) == ("a.example",)


def test_what_is_no_address_and_the_loopback_are_not_asked_about():
    nothing = dns()
    assert names_of_client("local/anna", nothing) == () and names_of_client("127.0.0.1", nothing) == ("localhost",)
    assert not nothing.asked


def test_of_many_names_a_few_are_looked_at():
    names = [f"n{number}.example" for number in range(20)]
    many = Dns({("PTR", CLIENT): names} | {("A", name): [CLIENT] for name in names})
    assert len(names_of_client(CLIENT, many)) == MAX_NAMES


@pytest.mark.parametrize("broken", [("PTR", CLIENT), ("A", "a.example")])
def test_what_cannot_be_had_is_no_answer(broken: tuple[str, str]):
    answers = dns("a.example")
    answers.found[broken] = DOWN
    with pytest.raises(TableUnavailable):
        names_of_client(CLIENT, answers)


def test_a_receiver_is_told_what_to_ask():
    answers = Answers()
    with pytest.raises(NeedsAnswer) as needed:
        names_of_client(CLIENT, answers)
    (question,) = needed.value.groups[0]
    assert question == Question("dns:PTR", CLIENT)
    answers.give({question: Answer("ok", "", ("a.example",))})
    with pytest.raises(NeedsAnswer) as needed:
        names_of_client(CLIENT, answers)
    assert needed.value.groups[0] == [Question("dns:A", "a.example")]


# --- lines by name ----------------------------------------------------------------------------------------------------

CONFIG = """\
hostname = "mx.example.net"
listen = ["127.0.0.1:2525"]
spool = "spool"
domains = ["ours.example"]
next_hop = "smtp://10.0.0.5"
access = "sendmail-access:access"
"""


def config_of(directory: Path, access: str) -> Config:
    (directory / "access").write_text(access)
    (directory / "gatepost.toml").write_text(CONFIG)
    return load_config(str(directory / "gatepost.toml"))


def said(config: Config, answers: Answers, phase: Phase, tls: TlsPeer | None = None, client: str = CLIENT) -> str:
    engine = Engine(config, answers=answers)
    facts = engine.facts_of(client)
    facts.reverse_path, facts.tls = "a@b.example", tls
    if phase is Phase.RCPT:
        found = engine.decide_rcpt(facts, Address("user@ours.example", "user", "ours.example"))
        return f"{found.code} {found.status}" if found.code else found.route.next_hop  # type: ignore[union-attr]
    found = engine.decide(phase, facts)
    return f"{found.code} {found.status}" if found.code else "accepted"


@pytest.mark.parametrize(
    ("access", "name", "connect"),
    [
        ("Connect:bad.example REJECT\n", "host.bad.example", "554 5.7.1"),
        ("Connect:bad.example REJECT\n", "good.example", "accepted"),
        ("Connect:bad.example REJECT\n", "", "accepted"),
        ("Connect:bad.example REJECT\nConnect:good.bad.example OK\n", "good.bad.example", "accepted"),
        ("Connect:192.0.2 REJECT\nConnect:good.example OK\n", "good.example", "accepted"),  # the name comes first
        ("Connect:192.0.2 REJECT\nConnect:good.example SKIP\n", "good.example", "554 5.7.1"),
        ("Connect:192.0.2 REJECT\nConnect:good.example OK\n", "other.example", "554 5.7.1"),
        ("bad.example 550 not from you\n", "host.bad.example", "550 5.0.0"),
        ("Connect:[192.0.2] REJECT\n", "", "554 5.7.1"),  # a client without a name
        ("Connect:[192.0.2] REJECT\n", "good.example", "accepted"),
    ],
)
def test_refusals_by_name(tmp_path: Path, access: str, name: str, connect: str):
    assert said(config_of(tmp_path, access), dns(name), Phase.CONNECT) == connect


def test_one_of_several_names_is_enough_for_a_refusal(tmp_path: Path):
    config = config_of(tmp_path, "Connect:a.example OK\nConnect:b.example REJECT\nConnect:c.example OK\n")
    names = ["a.example", "b.example", "c.example"]
    answers = Dns({("PTR", CLIENT): names} | {("A", name): [CLIENT] for name in names})
    assert said(config, answers, Phase.CONNECT) == "554 5.7.1"


def test_dropped_and_held_by_name(tmp_path: Path):
    config = config_of(tmp_path, "Connect:drop.example DISCARD\nConnect:look.example QUARANTINE:odd\n")
    assert said(config, dns("x.drop.example"), Phase.RCPT) == "discard:"
    facts = Engine(config, answers=(answers := dns("look.example"))).facts_of(CLIENT)
    found = Engine(config, answers=answers).decide_rcpt(facts, Address("user@ours.example", "user", "ours.example"))
    assert found.route is not None and found.route.hold == "quarantined by the access table: odd"
    assert said(config, dns("good.example"), Phase.RCPT) == "smtp://10.0.0.5:25"


def test_who_cannot_be_looked_up_is_put_off_where_a_line_says_connect(tmp_path: Path):
    down = Dns({("PTR", CLIENT): DOWN})
    tagged, plain = "Connect:bad.example REJECT\n", "bad.example REJECT\n"
    assert said(config_of(tmp_path, tagged), down, Phase.CONNECT) == "451 4.3.0"
    assert said(config_of(tmp_path, tagged), down, Phase.RCPT) == "451 4.3.0"
    assert said(config_of(tmp_path, plain), down, Phase.CONNECT) == "accepted"  # the line is about senders as well


def test_without_lines_by_name_nobody_is_asked(tmp_path: Path):
    answers = dns("bad.example")
    access = "Connect:192.0.3 REJECT\nTLS_Clt:192.0.3 VERIFY\nTLS_Srv:a.example VERIFY\nours.example RELAY\nTo:x.example REJECT\n"
    for phase in (Phase.CONNECT, Phase.MAIL, Phase.RCPT):
        said(config_of(tmp_path, access), answers, phase)
    assert not answers.asked


@pytest.mark.parametrize(
    ("access", "name", "mail"),
    [
        ("TLS_Clt:bank.example PERM+ENCR:112\n", "mail.bank.example", "503 5.7.0"),
        ("TLS_Clt:bank.example PERM+ENCR:112\n", "other.example", "accepted"),
        ("TLS_Clt:bank.example PERM+ENCR:112\n", "", "accepted"),
        ("TLS_Clt:192.0.2 ENCR:112\nTLS_Clt:bank.example OK\n", "bank.example", "454 4.7.0"),  # it exempts nobody
        ("TLS_Clt: ENCR:112\nTLS_Clt:bank.example ENCR:1\n", "bank.example", "454 4.7.0"),
        ("TLS_Clt:192.0.2 OK\nTLS_Clt:bank.example TEMP+ENCR:1\n", "bank.example", "403 4.7.0"),
    ],
)
def test_demands_by_name(tmp_path: Path, access: str, name: str, mail: str):
    config = config_of(tmp_path, access)
    assert said(config, dns(name), Phase.MAIL) == mail
    assert said(config, dns(name), Phase.MAIL, TlsPeer(256)) == "accepted"
    assert said(config, Dns({("PTR", CLIENT): DOWN}), Phase.MAIL) == "451 4.3.0"


def test_cn_alone_means_the_name_of_the_client(tmp_path: Path):
    config = config_of(tmp_path, "TLS_Clt:192.0.2 VERIFY+CN\n")
    peer = TlsPeer(256, True, True, "mail.bank.example")
    assert said(config, dns("mail.bank.example"), Phase.MAIL, peer) == "accepted"
    assert said(config, dns("other.example"), Phase.MAIL, peer) == "454 4.7.0"


def test_issuers_under_a_tag_of_their_own(tmp_path: Path):
    config = config_of(tmp_path, "TLS_Clt:192.0.2 VERIFY+CITag:MyCA\nMyCA:/C=DE/CN=Our+20CA/ OK\nMyCA:/CN=Second OK\n")

    def mail(issuer: str, *, is_verified: bool = True) -> str:
        return said(config, dns(), Phase.MAIL, TlsPeer(256, True, is_verified, "x", "/CN=x", issuer))

    assert mail("/C=DE/CN=Our CA") == mail("/CN=Second") == "accepted"
    assert mail("/CN=Third") == mail("") == mail("/CN=Second", is_verified=False) == "454 4.7.0"


def test_a_name_never_relays(tmp_path: Path):
    without = prove(config_of(tmp_path, "Connect:1 OK\n"))
    proof = prove(config_of(tmp_path, "Connect:good.example OK\nTLS_Clt:good.example VERIFY\ngood.example OK\n"))
    assert proof.holds and proof.relayed == without.relayed
    config = config_of(tmp_path, "Connect:friend.example OK\nfriend.example OK\n")
    engine = Engine(config, answers=dns("friend.example"))
    facts = engine.facts_of(CLIENT)
    assert engine.decide_rcpt(facts, Address("x@else.example", "x", "else.example")).code == 550


def test_the_names_are_recorded_and_decide_again(tmp_path: Path):
    record = FactRecord("S", "M", 1000.0, CLIENT, has_mail=True, reverse_path="a@b.example", form=3)
    record.recipients = [
        RecordedRecipient("user@ours.example", next_hop="smtp://10.0.0.5:25", permit="recipient-domain")
    ]
    config = config_of(tmp_path, "Connect:bad.example REJECT\n")
    for names, refused in ((("host.bad.example",), 1), (("good.example",), 0), ((), 0)):
        record.names = names
        difference = Replay(config).compare(decode_records(encode_records([record])))
        assert sum(change.count for change in difference.changes if "554" in change.after) == refused
        assert difference.unknown == 0
    record.names = None  # nobody had asked then, and nobody can be asked now
    assert Replay(config).compare(decode_records(encode_records([record]))).unknown == 1
