"""OpenSMTPD in a private root.

Deviation from its defaults: `smtp limit max-mails`, which ends a session after 100 messages, is raised for the rounds with
kept connections. It gets fewer sessions at a time than the others: its listen queue is fixed at 5, and with more most
clients wait whole seconds to connect again.
"""

from __future__ import annotations

from peers.peer import DOMAIN, MAX_MESSAGE_BYTES, RECIPIENT
from peers.private_root import PrivateRoot

CONFIG = """\
smtp limit max-mails 1000000
smtp max-message-size "{limit}"
table recipients {{ "{recipient}" }}
listen on 127.0.0.1 port {port} hostname opensmtpd.example.test
action "next_hop" relay host smtp://127.0.0.1:{sink_port}
match from any for domain "{domain}" rcpt-to <recipients> action "next_hop"
"""


class OpenSmtpd(PrivateRoot):
    """Seven processes with an event loop each."""

    name = "opensmtpd"
    package = "opensmtpd"
    queue_path = "/var/spool/smtpd"
    sessions = 5
    accounts = (("opensmtpd", 991), ("opensmtpq", 992))

    def configure_server(self) -> list[str]:
        text = CONFIG.format(
            limit=MAX_MESSAGE_BYTES, recipient=RECIPIENT, port=self.port, sink_port=self.sink_port, domain=DOMAIN
        )
        self.write("/etc/smtpd.conf", text)
        self.own_queue(0, 0o711)
        return ["/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"]
