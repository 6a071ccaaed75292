"""SMTP replies (RFC 5321 4.2, RFC 2034, RFC 3463): a value, its bytes on the wire, and the standard ones.

The enhanced status code is stored without its class digit, which is taken from the reply code, so that the two cannot
disagree. Nothing here decides when a reply is given. Text is reduced to printable ASCII when it is rendered: a reply
can never carry a line end, or any other control, that its author did not mean.
"""

from __future__ import annotations

import textwrap

import msgspec

# RFC 5321 4.5.3.1.5: 512 octets with code and CRLF; room is left for the enhanced code and for the session id.
MAX_TEXT = 400

_PRINTABLE = bytes(byte if 32 <= byte < 127 else 32 for byte in range(256))


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A reply of the server: code, enhanced code without its class digit ("7.1"; "" for none), text ("\\n" = next line)."""

    code: int
    detail: str
    text: str

    def wire(self) -> bytes:
        """The reply as it is sent, each line with its CRLF."""
        return RENDERED.get(self) or _render(self)

    @property
    def is_positive(self) -> bool:
        """Whether the command succeeded, or may go on (2xx and 3xx)."""
        return self.code < 400

    @property
    def status(self) -> str:
        """The enhanced status code "5.7.1", empty if there is none."""
        return f"{self.code // 100}.{self.detail}" if self.detail else ""


RENDERED: dict[Reply, bytes] = {}  # of the constants, by value


def _render(reply: Reply) -> bytes:
    lines: list[bytes] = []
    for line in reply.text.split("\n"):
        octets = line.encode("ascii", "replace").translate(_PRINTABLE)
        if len(octets) <= MAX_TEXT:
            lines.append(octets)
        else:
            lines.extend(part.encode("ascii") for part in textwrap.wrap(octets.decode("ascii"), MAX_TEXT))
    status = reply.status.encode("ascii")
    prefix = b"%d-%s " % (reply.code, status) if status else b"%d-" % reply.code
    last = prefix[:3] + b" " + prefix[4:]
    return b"".join(prefix + line + b"\r\n" for line in lines[:-1]) + (last + lines[-1]).rstrip(b" ") + b"\r\n"


def constant(code: int, detail: str, text: str) -> Reply:
    """A reply that is rendered once, now; for the fixed replies of a program, of which there are few."""
    reply = Reply(code, detail, text)
    RENDERED[reply] = _render(reply)
    return reply


OK = constant(250, "0.0", "Ok")
MAIL_OK = constant(250, "1.0", "Sender ok")
RCPT_OK = constant(250, "1.5", "Recipient ok")
START_DATA = constant(354, "", "End data with <CR><LF>.<CR><LF>")
MESSAGE_OK = constant(250, "0.0", "Message accepted")
GOODBYE = constant(221, "0.0", "Goodbye")
HELP = constant(214, "0.0", "See RFC 5321; the postmaster helps people")
VRFY = constant(252, "5.2", "Addresses are not verified here; send the message and see")

SHUTTING_DOWN = constant(421, "3.2", "The service is shutting down; try again")
TIMEOUT = constant(421, "4.2", "Waited too long for input; try again")
SESSION_ERROR = constant(451, "3.0", "Internal error; try again later")
TOO_MANY_ERRORS = constant(421, "7.0", "Too many errors in this session")
TOO_MANY_COMMANDS = constant(421, "7.0", "Too many commands in this session; reconnect for more")
TOO_MANY_IDLE_COMMANDS = constant(421, "7.0", "Too many commands without a message")
TOO_MANY_TRANSACTIONS = constant(421, "7.0", "Too many messages in this session; reconnect for more")
TOO_MUCH_INPUT = constant(421, "7.0", "Too much input while a reply was pending")
TOO_MANY_RECIPIENTS = constant(452, "5.3", "Too many recipients in this message; send to the rest in another")

UNKNOWN_COMMAND = constant(500, "5.1", "Unknown command")
LINE_TOO_LONG = constant(500, "5.2", "Command line too long")
BARE_IN_COMMAND = constant(500, "5.2", "Command lines end with CR LF, and hold no other CR, LF or NUL")
BAD_ARGUMENT = constant(501, "5.4", "This command takes no argument")
BAD_HELLO = constant(501, "5.2", "HELO and EHLO take a domain name or an address literal")
BAD_MAIL = constant(501, "5.2", "Syntax: MAIL FROM:<address> [parameters]")
BAD_RCPT = constant(501, "5.2", "Syntax: RCPT TO:<address> [parameters]")
BAD_PARAMETER = constant(501, "5.4", "Malformed parameter")
REPEATED_PARAMETER = constant(501, "5.4", "Parameter given twice")
BAD_BDAT = constant(501, "5.4", "Syntax: BDAT size [LAST]")
BAD_VRFY = constant(501, "5.4", "This command takes an argument")
TLS_READY = constant(220, "0.0", "Begin TLS")
TLS_UNAVAILABLE = constant(454, "7.0", "TLS is not available at the moment")
TLS_FIRST = constant(530, "7.0", "Send STARTTLS first")
TLS_ALREADY = constant(503, "5.1", "TLS is active already")
INJECTION = constant(501, "5.4", "Nothing may follow STARTTLS before TLS")
NOT_IMPLEMENTED = constant(502, "5.1", "Command not implemented")
NO_ETRN = constant(502, "5.1", "ETRN is not offered here; mail in the queue goes out by itself")
HELLO_FIRST = constant(503, "5.1", "Send EHLO or HELO first")
MAIL_FIRST = constant(503, "5.1", "Send MAIL first")
TLS_BEFORE_AUTH = constant(503, "5.1", "STARTTLS comes before AUTH")
NESTED_MAIL = constant(503, "5.1", "A message is already under way; send RSET to give it up")
BDAT_UNDER_WAY = constant(503, "5.1", "The message was begun with BDAT; go on with BDAT or send RSET")
BDAT_SEQUENCE = constant(503, "5.1", "BDAT without a message under way")
BINARY_BY_BDAT = constant(503, "5.1", "A binary message is sent with BDAT")  # RFC 3030 3
BAD_PIPELINING = constant(503, "5.0", "You sent more before the reply to this command")
NOT_SMTP = constant(521, "5.1", "This is an SMTP server")
NO_PROXY = constant(521, "7.1", "The PROXY protocol is not taken from this address")
EARLY_TALKER = constant(554, "", "You spoke before the greeting")
NO_RECIPIENTS = constant(554, "5.1", "No valid recipients")
NO_RECIPIENTS_LMTP = constant(503, "5.1", "No valid recipients")  # RFC 2033 4.2
UNKNOWN_PARAMETER = constant(555, "5.4", "Unknown parameter")

MESSAGE_TOO_LARGE = constant(552, "3.4", "Message larger than this server takes")
HEADER_TOO_LARGE = constant(552, "3.4", "Header of the message larger than this server takes")
TOO_MANY_HOPS = constant(554, "4.6", "Too many hops; this looks like a mail loop")
LONG_LINE = constant(554, "6.0", "A line of the message is longer than RFC 5322 2.1.1 permits")
BARE_IN_MESSAGE = constant(550, "6.11", "Message lines end with CR LF, and hold no other CR, LF or NUL")
NEEDS_SMTPUTF8 = constant(553, "6.7", "A non-ASCII address needs SMTPUTF8")
