"""Next-hop syntax: canonical form, round trip, and what every mistake is answered with."""

from __future__ import annotations

import pytest

from gatepost.routing.nexthop import NextHop, NextHopError, canonical, parse_next_hop

GOOD = {
    "smtp://10.0.0.5": "smtp://10.0.0.5:25",
    "SMTP://Mail.Example.TEST.:2525": "smtp://mail.example.test:2525",
    "smtp://[2001:DB8:0::1]": "smtp://[2001:db8::1]:25",
    "smtp://Bücher.example/": "smtp://xn--bcher-kva.example:25",
    "lmtp://127.0.0.1:24": "lmtp://127.0.0.1:24",
    "lmtp://localhost:24": "lmtp://localhost:24",
    "discard:": "discard:",
    "mx": "mx",
    "MX:Example.net.": "mx:example.net",
    "mx:[192.0.2.1]": "mx:[192.0.2.1]",
    "mx:[ipv6:2001:DB8::1]": "mx:[IPv6:2001:db8::1]",
    "maildir:/var//mail/./{domain}/{local}/": "maildir:/var/mail/{domain}/{local}",
    "maildir:/var/mail": "maildir:/var/mail",
    "pool:Inside-1": "pool:inside-1",
    "error:5.1.1 moved, ask": "error:550 5.1.1 moved, ask",
    "error:450 4.2.1 later": "error:450 4.2.1 later",
    "ERROR:nouser": "error:550 5.1.1 Refused by a rule of this site; ask its postmaster",
    "hold:": "hold:",
    "hold: smtp://a.test , smtp://b.test": "hold:smtp://a.test:25,smtp://b.test:25",
    "Hold:mx": "hold:mx",
    "smtp://a.test , smtp://b.test:26,smtp://a.test:25": "smtp://a.test:25,smtp://b.test:26",
}


@pytest.mark.parametrize("text", GOOD)
def test_canonical_form_is_stable(text: str) -> None:
    hops = parse_next_hop(text)
    assert canonical(hops) == GOOD[text]
    assert parse_next_hop(canonical(hops)) == hops


def test_fields() -> None:
    assert parse_next_hop("smtp://[2001:db8::1]:26") == (NextHop("smtp", "2001:db8::1", 26, ""),)
    assert parse_next_hop("mx") == (NextHop("mx", "", 0, ""),)
    assert parse_next_hop("maildir:/v/{local}") == (NextHop("maildir", "", 0, "/v/{local}"),)
    assert canonical(NextHop("lmtp", "::1", 24, "")) == "lmtp://[::1]:24"


BAD = {
    "": "the next hop is empty",
    "10.0.0.5:25": 'write "smtp://10.0.0.5:25"',
    "lmtp://[::1]": 'write "lmtp://[::1]:24"',
    "lmtp:unix:/run/l": "none may; let the other side listen for LMTP on TCP",
    "lmtp://unix:/run/l": "none may; let the other side listen for LMTP on TCP",
    "lmtp:/run/l": "LMTP on TCP",
    "unix:/run/l": "LMTP on TCP",
    "|/usr/bin/procmail": "runs programs",
    "pipe:/usr/bin/procmail": "runs programs",
    "pool:": "not the name of a pool",
    "pool:a b": "not the name of a pool",
    "pool:a,smtp://b.test": '"pool" cannot be combined',
    "smtp://b.test,pool:a": '"pool" cannot be combined',
    "error:421 x": "421 is not a reply",
    "hold:discard:": "holds nothing that goes anywhere",
    "hold:|/bin/x": "LMTP on TCP",
    "procmail:/x": "LMTP on TCP",
    "prog:/x": "LMTP on TCP",
    "local:": "LMTP on TCP",
    "mx,smtp://a.test": '"mx" cannot be combined',
    "smtp://a.test,maildir:/v": '"maildir" cannot be combined',
    "smtp:a.test": 'write "smtp://a.test"',
    "smtp://user:pw@a.test": "user name or password",
    "smtp://10.0.0": "looks like an address",
    "smtp://2001:db8::1": "without brackets",
    "smtp://[10.0.0.1]:25": "leave the brackets out",
    "smtp://a.test:0": "no valid port",
    "smtp://a.test:65536": "no valid port",
    "smtp://a.test:٢٥": "no valid port",
    "smtp://0.0.0.0": "not the address of a host",
    "smtp://a.test/x": "behind the port",
    "smtp://": "names no host",
    "smtp://a.test,": "empty part",
    "smtp://a.test\n": "control character",
    "smtps://a.test": "not available yet",
    "mx://a.test": 'write "mx:a.test"',
    "mx:[2001:db8::1]": "not an address literal",
    "maildir:mail": "not an absolute path",
    "maildir:/": "root directory",
    "maildir:/v/../etc": 'holds ".."',
    "maildir:/v/{user}": "not a placeholder",
    "maildir:/v/{local}x": "not a placeholder",
    "maildir:/{domain}": "no fixed directory",
    "maildir:/v/{domain}/new": "behind a placeholder",
}


@pytest.mark.parametrize("text", BAD)
def test_errors_say_what_to_write(text: str) -> None:
    with pytest.raises(NextHopError) as caught:
        parse_next_hop(text)
    assert BAD[text] in str(caught.value)
    assert caught.value.problem and caught.value.advice
