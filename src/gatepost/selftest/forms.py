"""The forms of an address by which strangers have made mail servers relay, and the ends of data by which they smuggled. Only data.

`gatepost selftest` asks a running gateway with them, and the tests of the gateway use the same lists.
"""

from __future__ import annotations

FOREIGN = ("example.org", "example.net", "example.com")  # RFC 2606: belong to nobody


def relay_forms(ours: str, hostname: str, foreign: str = FOREIGN[0]) -> dict[str, str]:
    """Forward-paths (what stands between < and >) by which mail would leave for `foreign`, if the gateway were fooled."""
    return {
        "plain": f"victim@{foreign}",
        "capitals": f"VICTIM@{foreign.upper()}",
        "percent hack": f"victim%{foreign}@{ours}",
        "percent hack to the host": f"victim%{foreign}@{hostname}",
        "double percent": f"victim%{foreign}%{ours}@{ours}",
        "bang path": f"{foreign}!victim@{ours}",
        "bang path without domain": f"{foreign}!victim",
        "quoted address": f'"victim@{foreign}"@{ours}',
        "quoted address without domain": f'"victim@{foreign}"',
        "quoted percent": f'"victim%{foreign}"@{ours}',
        "quoted bang": f'"{foreign}!victim"@{ours}',
        "source route": f"@{ours}:victim@{foreign}",
        "source route of two": f"@{ours},@{hostname}:victim@{foreign}",
        "two at signs": f"victim@{foreign}@{ours}",
        "two at signs the other way": f"victim@{ours}@{foreign}",
        "address literal": "victim@[192.0.2.1]",
        "IPv6 literal": "victim@[IPv6:2001:db8::1]",
        "trailing dot": f"victim@{foreign}.",
        "ours as a prefix": f"victim@{ours}.{foreign}",
        "ours as a suffix": f"victim@not{ours}",
        "escaped at": f"victim\\@{foreign}@{ours}",
        "escaped at in quotes": f'"victim\\@{foreign}"@{ours}',
        "colon form": f"{foreign}:victim@{ours}",
        "blank before the at": f'"victim@{foreign} "@{ours}',
        "NUL in quotes": f'"victim@{foreign}\0"@{ours}',
        "comment": f"victim@{foreign}(@{ours})",
        "unbalanced quote": f'"victim@{foreign}',
    }


def relay_senders(ours: str, hostname: str, foreign: str = FOREIGN[0]) -> dict[str, str]:
    """Reverse-paths that must give no right."""
    return {
        "null reverse-path": "",
        "an address of ours": f"postmaster@{ours}",
        "an address of the gateway": f"root@{hostname}",
        "the recipient's own": f"victim@{foreign}",
        "an address at the literal": "root@[127.0.0.1]",
    }


END_VARIANTS: dict[str, bytes] = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CR . CR": b"\r.\r",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . CR": b"\r\n.\r",
    "CR . LF": b"\r.\n",
    "LF . CR": b"\n.\r",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "CR CRLF . CRLF": b"\r\r\n.\r\n",
    "CRLF . CR CRLF": b"\r\n.\r\r\n",
}
"""What some servers take for the end of data, and Gatepost must refuse: only CRLF . CRLF ends it (RFC 5321 4.1.1.4)."""
