"""Exim 4 (Debian's light daemon) in a private root.

Deviations from its defaults: smtp_accept_max 100 instead of 20, or it would refuse the bench's sessions;
smtp_connect_backlog 1000 instead of 20, or clients wait whole seconds to connect again; smtp_accept_queue_per_connection 0
instead of 10, or most messages of a kept connection would wait for a queue run.
"""

from __future__ import annotations

from peers.peer import DOMAIN, MAX_MESSAGE_BYTES
from peers.private_root import PrivateRoot

CONFIG = """\
primary_hostname = exim.example.test
spool_directory = {queue}
log_file_path = {queue}/log/%slog
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
message_size_limit = {limit}
smtp_accept_max = {accept_max}
smtp_connect_backlog = 1000
smtp_accept_queue_per_connection = 0
rfc1413_query_timeout = 0s
tls_advertise_hosts =
disable_ipv6
acl_smtp_rcpt = check_rcpt

begin acl
check_rcpt:
  accept domains = {domain}
         local_parts = bench
  deny   message = relay not permitted or unknown user

begin routers
next_hop:
  driver = manualroute
  domains = {domain}
  transport = to_next_hop
  route_list = * 127.0.0.1
  self = send

begin transports
to_next_hop:
  driver = smtp
  port = {sink_port}
  hosts_try_fastopen =

begin retry
* * F,1h,1m
"""
ACCOUNT = ("Debian-exim", 990)


class Exim(PrivateRoot):
    """One process for each session, one for each delivery."""

    name = "exim"
    package = "exim4-daemon-light"
    queue_path = "/var/spool/exim4"
    accounts = (ACCOUNT,)
    idle_limit = 1000
    idle_note = "a process for each session: smtp_accept_max raised for this row"

    def configure_server(self) -> list[str]:
        text = CONFIG.format(
            queue=self.queue_path,
            port=self.port,
            limit=MAX_MESSAGE_BYTES,
            accept_max=max(100, self.idle_sessions + 10),
            domain=DOMAIN,
            sink_port=self.sink_port,
        )
        self.write("/etc/exim4/exim4.conf", text)
        self.own_queue(ACCOUNT[1], 0o750)
        return ["/usr/sbin/exim4", "-bdf", "-q1m"]
