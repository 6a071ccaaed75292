"""The configuration as the program sees it: frozen structs, every default in one place.

`load.py` builds them from TOML; nothing else reads a configuration file. Durations end in `_s`, sizes in `_bytes`.
A limit here has a row in `docs/limits.md`.
"""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class Domain(Section, frozen=True, kw_only=True):
    """A domain we accept mail for."""

    next_hop: list[str]  # tried in order of priority; canonical form, see routing/nexthop.py
    recipients: list[str] | None = None  # local parts or addresses; None with recipients_file None: every one is taken
    recipients_file: str | None = None


class Relay(Section, frozen=True, kw_only=True):
    """Who may send to the world through us: only address ranges here."""

    networks: list[str] = []
    next_hop: list[str] = msgspec.field(default_factory=lambda: ["mx"])


class Smtp(Section, frozen=True, kw_only=True):
    """The receiving side: limits of a session."""

    banner_name: str | None = None  # None: hostname
    max_message_bytes: int = 50 * 1024 * 1024
    max_recipients: int = 1000  # RFC 5321 4.5.3.1.8 asks for at least 100
    max_command_bytes: int = 2048  # a command line with its CRLF
    max_line_bytes: int = 998  # a line of text without its CRLF (RFC 5322 2.1.1); see long_lines
    long_lines: str = "accept"  # "accept" or "refuse"
    max_header_bytes: int = 256 * 1024
    max_received_hops: int = 50  # RFC 5321 6.3 asks for at least 100 where it counts all; see docs/limits.md
    max_errors: int = 10
    max_commands: int = 5000  # in a session; a transaction needs three
    max_idle_commands: int = 50  # NOOP, RSET, VRFY, HELP ... in a row without a transaction
    max_transactions: int = 1000
    greeting_delay_s: float = 0.0
    command_timeout_s: float = 300.0
    data_timeout_s: float = 180.0  # between two blocks of message text
    message_timeout_s: float = 1800.0  # from DATA to its end
    min_rate_bytes_s: int = 200  # averaged over rate_window_s
    rate_window_s: float = 60.0
    max_connections: int = 10000
    max_connections_per_client: int = 100
    repair_networks: list[str] = []  # clients whose bare CR, bare LF is repaired instead of refused
    memory_bytes: int = 64 * 1024 * 1024  # of message text held in memory by a receiver
    body_file_bytes: int = 128 * 1024  # a message that grows over this goes to a body file
    chunking: bool = True
    pipelining: bool = True
    smtputf8: bool = True
    eightbitmime: bool = True


class Queue(Section, frozen=True, kw_only=True):
    """How long and how often."""

    lifetime_s: float = 5 * 86400.0
    dsn_lifetime_s: float = 2 * 86400.0
    delay_notice_s: float = 4 * 3600.0  # 0: never
    retry_min_s: float = 300.0
    retry_max_s: float = 4 * 3600.0
    next_hop_retry_s: float = 60.0  # a next hop that is down is tried again after this, doubling up to retry_max_s
    defer_after_s: float = 180.0  # a message still here moves from its segment to a file of its own
    segment_bytes: int = 64 * 1024 * 1024
    min_free_bytes: int = 256 * 1024 * 1024
    min_free_inodes: int = 10000
    max_messages: int = 2_000_000
    allow_volatile: bool = False  # tmpfs and overlay: only for a demonstration


class Delivery(Section, frozen=True, kw_only=True):
    """The sending side."""

    helo_name: str | None = None  # None: hostname
    connect_timeout_s: float = 30.0
    greeting_timeout_s: float = 300.0  # RFC 5321 4.5.3.2
    command_timeout_s: float = 300.0
    data_block_timeout_s: float = 180.0
    data_end_timeout_s: float = 600.0
    max_connections_per_next_hop: int = 20
    max_connections: int = 500
    keep_idle_s: float = 5.0
    max_messages_per_connection: int = 100
    max_recipients_per_transaction: int = 100
    max_mx_hosts: int = 10
    prefer_ipv6: bool = False
    port: int = 25  # the port of MX hosts; other than 25 only for tests


class Dns(Section, frozen=True, kw_only=True):
    """The stub resolver."""

    servers: list[str] = []  # "127.0.0.1:53"; empty: those of /etc/resolv.conf, read by the supervisor
    timeout_s: float = 3.0
    attempts: int = 3
    max_cache_entries: int = 20000
    max_ttl_s: int = 86400
    max_negative_ttl_s: int = 900


class Processes(Section, frozen=True, kw_only=True):
    """How many, and as whom."""

    receivers: int = 1
    deliverers: int = 1
    users: dict[str, str] = {}  # role -> user name; default gatepost-in, gatepost-dns ...
    recheck_s: float = 3600.0  # how often the supervisor compares the kernel's records with the table of roles; 0: never


class PathException(Section, frozen=True, kw_only=True):
    """A path that `gatepost check` may find as it is: see config/exceptions.py."""

    path: str
    owner: str  # the person who answers for it
    until: str  # the last day, YYYY-MM-DD
    reason: str


class Events(Section, frozen=True, kw_only=True):
    """Where the event lines go: "stderr" or a file path, reopened on SIGHUP."""

    output: str = "stderr"


class Config(Section, frozen=True, kw_only=True):
    """A whole configuration."""

    hostname: str
    listen: list[str]
    spool: str
    domains: dict[str, Domain]
    relay: Relay = Relay()
    postmaster: str | None = None  # where <postmaster> without a domain goes; None: to that of the first domain
    control_socket: str | None = None  # None: SPOOL/run/control.sock
    sandbox: str = "enforce"  # or "best-effort", on a kernel without Landlock or seccomp
    sandbox_debug: str = "off"  # or "log": what the system call filter refuses is noted by the kernel and passes
    exceptions: list[PathException] = []
    smtp: Smtp = Smtp()
    queue: Queue = Queue()
    delivery: Delivery = Delivery()
    dns: Dns = Dns()
    processes: Processes = Processes()
    events: Events = Events()
