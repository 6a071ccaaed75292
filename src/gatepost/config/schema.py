"""The configuration as the program sees it: frozen structs, every default in one place.

`load.py` builds them from TOML; nothing else does. Durations end in `_s`, sizes in `_bytes`; a limit has a row in `docs/limits.md`.
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
    catch_all: str | None = None  # the address of ours that recipients which do not exist go to
    backup_mx: bool = False  # its mail goes to the MX hosts that are preferred to us, and waits for them


class RelayRule(Section, frozen=True, kw_only=True):
    """One `[[relay.rules]]`: who may send where, how much, over which route; see policy/relayrules.py.

    A right comes from `networks`, `identities` and `certificates` (all that are given must hold) and from nothing else.
    """

    name: str
    networks: list[str] = []
    identities: list[str] = []  # names a client has authenticated as; "*": any
    certificates: list[str] = []  # names of verified client certificates; "*": any
    anyone: bool = False  # everybody, which is a right to send to our own domains only
    reverse_paths: list[str] = []  # "a@b", "@b", "@.b" (below b), "<>"; narrows, never a right by itself
    domains: list[str] = []  # "b", ".b" (below b), "ours"; empty: every domain that is not ours
    max_per_hour: int = 0  # recipients, over all clients of the rule; 0: no limit
    next_hop: list[str] = []  # empty: where the mail would go without the rule
    owner: str = ""
    expires: str = ""  # the last day, YYYY-MM-DD
    mode: str = "enforce"  # "shadow": told in events, grants nothing; "off"
    expect_many: bool = False  # many clients come from one of its addresses: the masquerade guard leaves them alone


class RelayCertificate(Section, frozen=True, kw_only=True):
    """One `[[relay.certificates]]`: verified client certificates whose holders may send to every domain."""

    ca_file: str  # PEM: certification authorities, or the clients' own certificates
    names: list[str] = []  # DNS or mail names that a certificate must have one of; "*.example.net" for one label
    fingerprints: list[str] = []  # SHA-256 of certificates; with names, both must hold


class Relay(Section, frozen=True, kw_only=True):
    """Who may send to the world through us."""

    networks: list[str] = []
    rules: list[RelayRule] = []
    certificates: list[RelayCertificate] = []
    next_hop: list[str] = msgspec.field(default_factory=lambda: ["mx"])


class RewriteRule(Section, frozen=True, kw_only=True):
    """One `[[rewrite.rules]]`: addresses that become others; see routing/rewrite.py. It never gives a right."""

    name: str
    # "outbound": from clients with a right of their own; "inbound": from others
    directions: list[str] = msgspec.field(default_factory=lambda: ["outbound"])
    parts: list[str] = msgspec.field(default_factory=lambda: ["reverse-path", "header-senders", "header-recipients"])
    networks: list[str] = []  # only from these clients
    domains: list[str] = []  # only addresses in "b", ".b" (below b), "ours"; empty: every one
    except_domains: list[str] = []
    except_users: list[str] = []  # local parts
    to_domain: str = ""  # the domain to write: masquerading
    tables: list[str] = []  # or the addresses to write; the first that has one
    repeat: bool = False  # until nothing changes, at most ten times
    stop: bool = False  # what this rule has changed, no later one changes
    mode: str = "enforce"  # "shadow": told in events, changes nothing; "off"


class Srs(Section, frozen=True, kw_only=True):
    """`[rewrite.srs]`: reverse-paths of forwarded mail, see mail/srs.py."""

    domain: str | None = None  # one of ours; None: nothing is done
    secrets_file: str | None = None  # the first line signs, all of them verify
    hash_length: int = 6  # characters of base 64
    valid_days: int = 21
    separator: str = "="
    except_domains: list[str] = []  # reverse-paths that stay


class Rewrite(Section, frozen=True, kw_only=True):
    """What mail is called: the one stage in which paths and header fields are changed."""

    rules: list[RewriteRule] = []
    max_header_addresses: int = 1000  # of one message; fields beyond stay as they are
    hide_received: list[str] = []  # networks of inside hosts, whose Received fields do not leave
    srs: Srs = Srs()


class Policy(Section, frozen=True, kw_only=True):
    """How much each check may do, and the thresholds of the masquerade guard."""

    checks: dict[str, str] = {}  # name -> "enforce", "shadow" or "off"
    masquerade_names: int = 10  # HELO names in an hour, of one address
    masquerade_senders: int = 10  # domains of outside senders to outside recipients in an hour, of one address
    masquerade_suspend_s: float = 3600.0
    masquerade_addresses: int = 4096  # watched at once


class FactsKept(Section, frozen=True, kw_only=True):
    """What is recorded of decisions, for `gatepost why` and `gatepost replay`."""

    keep_bytes: int = 64 * 1024 * 1024  # 0: nothing is recorded
    keep_days: int = 14
    hash_addresses: bool = False


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
    max_commands: int = 50_000  # in a session; a transaction needs three
    max_idle_commands: int = 50  # NOOP, RSET, VRFY, HELP ... in a row without a transaction
    max_transactions: int = 10_000
    max_unknown_recipients: int = 100  # of one client in an hour; 0: no limit
    unknown_recipient_delay_s: float = 5.0  # at the limit, before each reply to RCPT; a quarter of it at a quarter
    unknown_recipient_ban_s: float = 900.0  # so long each new connection is 421 then; 0: not at all
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
    proxy_from: list[str] = []  # load balancers that say on `listen` who the client is (PROXY protocol)
    proxy_timeout_s: float = 10.0  # for that
    size: bool = True
    enhancedstatuscodes: bool = True
    dsn: bool = True
    xclient_from: list[str] = []  # proxies that say by XCLIENT who the client is
    xclient_login: bool = False  # the login they name is believed too
    xforward_from: list[str] = []  # filters that say by XFORWARD who their client was, for the log
    limits: bool = True
    deliverby: bool = True
    mt_priority: bool = True
    stranger_priority: int = 0  # the highest that a client without a right to relay may ask for
    future_release: bool = True  # on submission listeners
    max_hold_s: int = 7 * 86400
    requiretls: bool = True  # inside TLS
    tls_required_field: bool = True  # the field "TLS-Required: No" is obeyed
    binarymime: bool = True  # needs chunking and eightbitmime


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


class Credential(Section, frozen=True, kw_only=True):
    """One `[[delivery.credentials]]`: a login for one host that we send to."""

    next_hop: str  # canonical, one smtp:// host
    user: str
    password_file: str | None = None  # its first line; one of these two
    token_file: str | None = None  # for OAUTHBEARER and XOAUTH2; read again when it changes
    mechanisms: list[str] = []  # strongest first; empty: all that fit


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
    credentials: list[Credential] = []
    credentials_file: str | None = None  # more of them, as sendmail's authinfo or Postfix's sasl_passwd
    port: int = 25  # the port of MX hosts; other than 25 only for tests


class PoolMember(Section, frozen=True, kw_only=True):
    """One `[[pools.NAME.members]]`."""

    next_hop: str  # canonical, one smtp:// or lmtp:// host
    weight: int = 1  # of the transactions among members of one priority
    priority: int = 0  # the lowest with a living member counts


class Pool(Section, frozen=True, kw_only=True):
    """`[pools.NAME]`: hosts that share the mail of the next hop `pool:NAME`; see delivery/balance.py."""

    members: list[PoolMember] = []
    retry_s: float = 30.0  # a member that is down is tried again after this, doubling four times
    probe_interval_s: float = 0.0  # 0: a member is tried with mail only


class Listener(Section, frozen=True, kw_only=True):
    """One `[[listeners]]`: an address or Unix socket to listen on beside `listen`, for clients of another kind."""

    address: str
    # "edge"; "submission": STARTTLS, 587; "submissions": TLS from the first octet, 465; "lmtp"
    kind: str = "submission"
    require_tls: bool | None = None  # None: where the kind is not "edge"
    client_certificates: bool = False  # ask for one
    proxy_from: list[str] = []  # as smtp.proxy_from, which does not hold here
    mode: str = "0660"  # of a Unix socket: who may connect, with the next two
    owner: str | None = None  # None: who starts the gateway
    group: str | None = None


class Local(Section, frozen=True, kw_only=True):
    """Users of this host, who submit by a Unix socket (`gatepost-sendmail`); who they are is the kernel's word."""

    socket: str | None = None  # None: there is none
    users: list[str] = msgspec.field(default_factory=lambda: ["root"])  # who may send to the world; "*": every user
    groups: list[str] = []  # and whose members
    trusted: list[str] = msgspec.field(default_factory=lambda: ["root"])  # of those: from every address of ours
    senders: dict[str, list[str]] = {}  # user -> more reverse-paths, as of users who authenticate


class Maildir(Section, frozen=True, kw_only=True):
    """What is delivered into Maildirs: the files, and the directories that are made for them."""

    file_mode: str = "0600"
    directory_mode: str = "0700"
    group: str | None = None  # None: that of the maildir role, or of who starts the gateway
    roots: list[str] = []  # directories below which next hops that only tables name may deliver


class Certificate(Section, frozen=True, kw_only=True):
    """One `[[tls.certificates]]`: a certificate with its chain, and its key, both PEM."""

    certificate_file: str
    key_file: str
    names: list[str] = []  # server names for which it is shown; empty: those in the certificate


class TlsPolicy(Section, frozen=True, kw_only=True):
    """One `[[tls.policies]]`: how mail to some domains or next hops is secured. The first that fits holds."""

    level: str  # as tls.outbound
    domains: list[str] = []  # of recipients: "example.org", ".example.org" (below it)
    next_hops: list[str] = []  # canonical
    names: list[str] = []  # "verify": names of the hosts; empty: what the next hop says
    ca_file: str | None = None  # "verify": PEM; None: tls.ca_file
    fingerprints: list[str] = []  # "verify": SHA-256 of certificates, instead of authorities and names


class Sts(Section, frozen=True, kw_only=True):
    """`[tls.sts]`: MTA-STS policies of recipient domains (RFC 8461), used by the levels that look for them."""

    enabled: bool = True
    max_policies: int = 10_000  # kept at once
    timeout_s: float = 60.0  # of one fetch, from the look-up to the last octet; RFC 8461 3.3
    port: int = 443  # other than 443 only for tests: then a policy may also come from this host itself


class TlsReports(Section, frozen=True, kw_only=True):
    """`[tls.reports]`: reports of TLS to recipient domains that want them (RFC 8460); sent only with `contact`."""

    contact: str | None = None  # From of the reports, and contact-info in them
    organization: str | None = None  # None: hostname
    keep_days: int = 8  # what was seen
    spread_s: float = 4 * 3600.0  # over this time behind midnight UTC
    period_s: float = 86400.0  # other than a day only for tests


class Tls(Section, frozen=True, kw_only=True):
    """Certificates and limits of the receiving side, and what the sending side asks for."""

    certificates: list[Certificate] = []
    min_version: str = "1.2"
    ciphers: str = ""  # of TLS 1.2, OpenSSL's list; empty: ECDHE with AES-GCM or ChaCha20
    require: bool = False  # on `listen`: no mail without TLS
    client_certificates: bool = False  # on `listen`: ask for one
    handshake_timeout_s: float = 30.0
    max_handshake_bytes: int = 64 * 1024
    outbound: str = "best"  # "best" (DANE, else MTA-STS, else opportunistic) or a level of a policy, see docs/config.md
    ca_file: str | None = None  # None: that of the system
    # how long a domain that was verified by DANE or MTA-STS is not sent in clear; 0: never
    remember_s: float = 60 * 86400.0
    max_remembered: int = 20_000  # domains
    policies: list[TlsPolicy] = []
    sts: Sts = Sts()
    reports: TlsReports = TlsReports()


class Auth(Section, frozen=True, kw_only=True):
    """Who may authenticate on submission listeners, and how; the users are in a file of their own (`usersfile.py`)."""

    users_file: str | None = None
    dovecot: str | None = None  # "unix:/run/dovecot/auth-client" or "inet:127.0.0.1:PORT", instead of users_file
    default_domain: str | None = None  # of Dovecot's users whose name has none; None: the first of domains
    mechanisms: list[str] = msgspec.field(
        default_factory=lambda: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
    )  # offered where they can work
    on_edge: bool = False  # also on `listen` and listeners of the kind "edge"
    require_tls: bool = True  # also for SCRAM; PLAIN, LOGIN and tokens never go in clear
    max_failures: int = 10  # of one address, of one user, until lockout_s after the last
    lockout_s: float = 900.0
    delay_s: float = 1.0  # before the first refusal; doubles
    max_delay_s: float = 30.0
    max_failures_per_session: int = 3
    max_tracked: int = 50_000  # addresses, and users, whose failures are remembered
    concurrent_checks: int = 2  # passwords checked at once: slow on purpose, each in a thread
    max_waiting_checks: int = 50
    jwks_file: str | None = None  # keys of the authorization server, for OAUTHBEARER and XOAUTH2
    issuer: str | None = None
    audience: str | None = None
    user_claim: str = "email"
    introspection_url: str | None = None  # instead of jwks_file: the authorization server is asked (RFC 7662)
    introspection_credentials_file: str | None = None  # "NAME:SECRET" or "Bearer TOKEN", what we show it
    introspection_ca_file: str | None = None  # None: tls.ca_file, else that of the system
    introspection_timeout_s: float = 5.0
    introspection_keep_s: float = 60.0  # how long a yes is kept


class Dns(Section, frozen=True, kw_only=True):
    """The stub resolver."""

    servers: list[str] = []  # "127.0.0.1:53"; empty: those of /etc/resolv.conf, read by the supervisor
    # believe what a server says it has validated: "auto" if all are on loopback, "never", "always"
    trust_ad: str = "auto"
    probe: str = "org"  # a signed domain: whether it is validated says whether DANE is in effect; empty: not asked
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
    # how often the supervisor compares the kernel's records with the table of roles; 0: never
    recheck_s: float = 3600.0
    # a role whose event loop does not answer for so long is killed and started again; 0: never
    hang_limit_s: float = 30.0


class Selftest(Section, frozen=True, kw_only=True):
    """What `gatepost selftest` cannot know by itself."""

    dkim_keys: list[str] = []  # names of the DKIM keys that sign mail of our domains: SELECTOR._domainkey.DOMAIN


class Source(Section, frozen=True, kw_only=True):
    """One `[sources.NAME]`: a server that is asked for keys; the table on it is "ldap:NAME", "sql:NAME" or "http:NAME"."""

    type: str  # "ldap", "postgresql", "mysql", "http"
    servers: list[str] = []  # asked in this order
    url: str = ""  # "http": with {key}, {local}, {domain}, as all that follows
    base: str = ""  # "ldap": where the search begins
    scope: str = "sub"
    filter: str = ""
    attribute: str = ""  # whose value is the answer; empty: that there is an entry
    database: str = ""
    query: str = ""  # the first column of the first row is the answer
    field: str = ""  # "http": of the JSON, names joined by dots; empty: that the reply is 200
    user: str = ""
    password_file: str | None = None
    tls: str = "verify"  # "none": in clear
    ca_file: str | None = None  # None: tls.ca_file, else that of the system
    keys: list[str] = []  # forms of an address that are asked; empty: what the use needs
    # patterns of what a table of routes on it may name (config/hoppatterns.py); empty: anything
    next_hops: list[str] = []
    timeout_s: float = 5.0
    retry_s: float = 5.0  # a server that failed is asked again after this, doubling up to a minute
    max_connections: int = 4
    found_s: float = 300.0  # how long an answer is kept
    missing_s: float = 60.0  # how long it is kept that there is none
    stale_s: float = 86400.0  # how long what was found answers while no server does
    max_vanished: float = 0.2  # part of the keys asked for again that may have gone; more is not believed
    list_query: str = ""  # a filter, SELECT or URL that gives every recipient; empty: only what is asked for is known
    list_field: str = ""  # "ldap": whose values they are; "http": where in the JSON
    list_interval_s: float = 900.0


class CallAhead(Section, frozen=True, kw_only=True):
    """`[call_ahead]`: how next hops are asked whether a recipient exists, for the table "call-ahead:next-hop"."""

    timeout_s: float = 20.0  # of one question; the client waits
    max_connections: int = 4  # to one next hop
    max_waiting: int = 200  # questions under way to one next hop
    retry_s: float = 30.0  # a next hop that did not answer is asked again after this
    found_s: float = 6 * 3600.0  # how long an answer is kept
    missing_s: float = 900.0  # how long it is kept that there is none
    stale_s: float = 7 * 86400.0  # how long what was found answers while the next hop does not
    max_vanished: float = 0.2  # part of the recipients asked for again that may have gone; more is not believed
    check_s: float = 3600.0  # how often it is tried whether a next hop takes every recipient; 0: never


class Snapshot(Section, frozen=True, kw_only=True):
    """`[snapshot]`: what was known of recipients, where a list or a table that is asked has lost it."""

    max_entries: int = 100_000  # of tables that are asked over the network, kept on disk; 0: none
    max_shrink: float = 0.2  # part of a list in a file that may be gone at a reload or start; 1: all of it


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
    routes: list[str] = []  # tables "KIND:ARGUMENT" of next hops; asked before next_hop and MX
    access: list[str] = []  # tables of the kind sendmail-access
    virtual: list[str] = []  # tables of addresses that stand for others
    aliases: list[str] = []  # tables in the form of aliases(5)
    alias_domains: list[str] = []  # domains of ours whose local parts are looked up there
    alias_max_recipients: int = 1000  # of one address that stands for several
    sender_routes: list[str] = []  # tables of next hops by reverse-path, for mail to domains that are not ours
    detail_separator: str | None = None  # "+": user+detail@ours exists where user does
    sources: dict[str, Source] = {}  # servers that tables are asked of
    call_ahead: CallAhead = CallAhead()
    snapshot: Snapshot = Snapshot()
    domaintable: list[str] = []  # tables of domains that stand for others
    genericstable: list[str] = []  # tables of addresses for mail on its way out
    rewrite: Rewrite = Rewrite()
    policy: Policy = Policy()
    facts: FactsKept = FactsKept()
    postmaster: str | None = None  # where <postmaster> without a domain goes; None: to that of the first domain
    control_socket: str | None = None  # None: SPOOL/run/control.sock
    sandbox: str = "enforce"  # or "best-effort", on a kernel without Landlock or seccomp
    sandbox_debug: str = "off"  # or "log": what the system call filter refuses is noted by the kernel and passes
    exceptions: list[PathException] = []
    smtp: Smtp = Smtp()
    queue: Queue = Queue()
    delivery: Delivery = Delivery()
    auth: Auth = Auth()
    dns: Dns = Dns()
    tls: Tls = Tls()
    pools: dict[str, Pool] = {}
    listeners: list[Listener] = []
    local: Local = Local()
    maildir: Maildir = Maildir()
    processes: Processes = Processes()
    selftest: Selftest = Selftest()
    events: Events = Events()
