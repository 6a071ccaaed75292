"""`gatepost-sendmail`: what programs of this host call to send mail; also under the names sendmail, mailq and newaliases.

It has no rights: never set-uid, no queue of its own. It speaks SMTP over the gateway's Unix socket, and the kernel tells the gateway
who has called. If the gateway is not there, the exit status is EX_TEMPFAIL and the caller keeps the message. Standard library only,
so that it starts fast.
"""

from __future__ import annotations

import importlib
import os
import pwd
import sys
import time

from gatepost.sendmail.arguments import Arguments, parse_arguments
from gatepost.sendmail.lines import shorten_lines
from gatepost.sendmail.message import complete, find_recipients, read_input, read_message
from gatepost.sendmail.passing import Passing
from gatepost.sendmail.submission import Submission, connect
from gatepost.sendmail.sysexits import EX_NOPERM, EX_OK, EX_OSERR, EX_SOFTWARE, EX_USAGE, Failure

SOCKET = "/run/gatepost/submit"
VARIABLE = "GATEPOST_SUBMIT"  # another socket; it gives no right
MAILQ = "gatepost.cli.mailq"  # needs the configuration, and so all that reads it: loaded only for that
NO_ALIASES = "there is no database of aliases: tables are read when the gateway starts, and by: gatepost reload"


def main() -> None:
    """The entry point of the installed command."""
    name = os.path.basename(sys.argv[0])
    try:
        status = run(name, sys.argv[1:])
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        status = failure.status
    except KeyboardInterrupt:
        status = 130
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller must not think that the message was sent
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        status = EX_SOFTWARE
    sys.exit(status)


def run(name: str, words: list[str]) -> int:
    """Do what is asked for; returns the exit status. Raises Failure."""
    if os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        raise Failure(EX_NOPERM, "this program must not be set-uid or set-gid: the gateway asks the kernel who calls")
    arguments = parse_arguments(name, words)
    if arguments.mode == "queue":
        return int(importlib.import_module(MAILQ).print_queue())
    if arguments.mode == "flush":
        return int(importlib.import_module(MAILQ).flush_queue())
    if arguments.mode == "aliases":
        print(NO_ALIASES)
        return EX_OK
    path = os.environ.get(VARIABLE) or SOCKET
    if arguments.mode == "smtp":
        sock = connect(path)
        sock.settimeout(None)
        with sock:
            return Passing(sock).run()
    if arguments.mode == "verify":
        return verify(arguments, path)
    return send(arguments, path)


def verify(arguments: Arguments, path: str) -> int:
    """-bv: say of each recipient whether the gateway takes mail for it; nothing is sent."""
    if not arguments.recipients:
        raise Failure(EX_USAGE, "name the recipients")
    user, _ = who_calls()
    status = EX_OK
    with Submission(path, verbose=arguments.verbose) as submission:
        submission.greet()
        own = user if arguments.reverse_path is None else arguments.reverse_path
        recipients = [with_host(recipient, submission.hostname) for recipient in arguments.recipients]
        for recipient, failure in submission.verify(with_host(own, submission.hostname), recipients):
            print(f"{recipient}... {failure or 'deliverable'}")
            status = status or (failure.status if failure else EX_OK)
    return status


def send(arguments: Arguments, path: str) -> int:
    """Read a message from standard input and submit it."""
    if not arguments.recipients and not arguments.from_header:
        raise Failure(EX_USAGE, "name the recipients, or say -t to take them from the header")
    user, gecos = who_calls()
    stream = None if sys.stdin is None else sys.stdin.buffer
    data = read_input(stream, ignore_dots=arguments.ignore_dots)
    message = read_message(data, ignore_dots=arguments.ignore_dots)
    recipients = list(arguments.recipients)
    if arguments.from_header:
        recipients += find_recipients(message)
    if not recipients:
        raise Failure(EX_USAGE, "the header names no recipient")
    with Submission(path, verbose=arguments.verbose) as submission:
        submission.greet()
        hostname = submission.hostname
        own = with_host(user, hostname)
        reverse_path = own if arguments.reverse_path is None else with_host(arguments.reverse_path, hostname)
        full_name = gecos if arguments.full_name is None else arguments.full_name
        complete(message, hostname=hostname, reverse_path=reverse_path or own, full_name=full_name, now_s=time.time())
        shorten_lines(message)
        submission.send(
            reverse_path,
            list(dict.fromkeys(with_host(recipient, hostname) for recipient in recipients)),
            message.octets(),
            notify=arguments.notify,
            ret=arguments.ret,
            envelope_id=arguments.envelope_id,
        )
    return EX_OK


def with_host(address: str, hostname: str) -> str:
    """A bare name is one of this host; postmaster is that of the gateway, and nobody stays nobody."""
    if not address or "@" in address or address.lower() == "postmaster":
        return address
    return f"{address}@{hostname}"


def who_calls() -> tuple[str, str]:
    """Name and full name of the user who has called."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        raise Failure(EX_OSERR, f"the uid {os.getuid()} has no name on this host") from None
    full_name = entry.pw_gecos.partition(",")[0]
    return entry.pw_name, full_name.replace("&", entry.pw_name.capitalize())  # as finger and sendmail read it


if __name__ == "__main__":
    main()
