"""What each value of the configuration must satisfy: tables of ranges, choices and parsers by key.

A key is written as in TOML with `*` for the name of a domain. Every number of `schema.py` has a row in RANGES: a number
that may be anything does not exist. REFUSED_KEYS are the keys people try in order to let somebody relay because of a sender
address, HELO or DNS name; those cannot be expressed, and the error says what to use.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gatepost.config.authvalues import parse_dovecot
from gatepost.config.credentialsfile import MECHANISMS, parse_smtp_host
from gatepost.config.hoppatterns import parse_hop_pattern
from gatepost.config.introspection import parse_url
from gatepost.config.listening import parse_listener, parse_mode, parse_socket_path, parse_user
from gatepost.config.maildirfiles import parse_directory_mode, parse_file_mode, parse_group, parse_root
from gatepost.config.nexthop import canonical, parse_next_hop
from gatepost.config.pools import parse_member
from gatepost.config.recipients import parse_recipient
from gatepost.config.relayvalues import parse_day, parse_domain_pattern, parse_reverse_pattern
from gatepost.config.tlsvalues import parse_certificate_name, parse_fingerprint, parse_probe, parse_tls_domain
from gatepost.config.usersfile import parse_pattern
from gatepost.config.values import (
    InvalidValue,
    parse_address,
    parse_domain,
    parse_fqdn,
    parse_listen,
    parse_network,
    parse_port,
    split_host_port,
)

DAY = 86400
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

RANGES: dict[str, tuple[float, float]] = {
    "smtp.max_message_bytes": (KIB, 2 * GIB),
    "smtp.max_recipients": (1, 100_000),
    "smtp.max_command_bytes": (512, 64 * KIB),  # RFC 5321 4.5.3.1.4
    "smtp.max_line_bytes": (78, 16 * MIB),
    "smtp.max_header_bytes": (KIB, 16 * MIB),
    "smtp.max_received_hops": (5, 1000),
    "smtp.max_errors": (1, 1000),
    "smtp.max_commands": (10, 10_000_000),
    "smtp.max_idle_commands": (3, 10_000),
    "smtp.max_transactions": (1, 1_000_000),
    "smtp.max_unknown_recipients": (0, 1_000_000),
    "smtp.unknown_recipient_delay_s": (0, 20),
    "smtp.unknown_recipient_ban_s": (0, DAY),
    "smtp.greeting_delay_s": (0, 60),
    "smtp.command_timeout_s": (1, 3600),
    "smtp.data_timeout_s": (1, 3600),
    "smtp.message_timeout_s": (1, DAY),
    "smtp.min_rate_bytes_s": (0, 100 * MIB),
    "smtp.rate_window_s": (1, 3600),
    "smtp.proxy_timeout_s": (1, 300),
    "smtp.max_connections": (1, 1_000_000),
    "smtp.max_connections_per_client": (1, 1_000_000),
    "smtp.memory_bytes": (MIB, 64 * GIB),
    "smtp.body_file_bytes": (4 * KIB, 2 * GIB),
    "smtp.stranger_priority": (-9, 9),
    "smtp.max_hold_s": (1, 366 * DAY),
    "relay.rules.*.max_per_hour": (0, 100_000_000),
    "rewrite.max_header_addresses": (1, 20_000),
    "rewrite.srs.hash_length": (4, 20),
    "rewrite.srs.valid_days": (2, 400),
    "policy.masquerade_names": (2, 10_000),
    "policy.masquerade_senders": (2, 10_000),
    "policy.masquerade_suspend_s": (1, 7 * DAY),
    "policy.masquerade_addresses": (16, 1_000_000),
    "facts.keep_bytes": (0, 64 * GIB),
    "facts.keep_days": (1, 366),
    "queue.lifetime_s": (1, 60 * DAY),
    "queue.dsn_lifetime_s": (1, 60 * DAY),
    "queue.delay_notice_s": (0, 60 * DAY),
    "queue.retry_min_s": (0.01, DAY),
    "queue.retry_max_s": (0.01, 7 * DAY),
    "queue.next_hop_retry_s": (0.01, DAY),
    "queue.defer_after_s": (0, DAY),
    "queue.segment_bytes": (64 * KIB, 4 * GIB),
    "queue.min_free_bytes": (0, 1024 * GIB),
    "queue.min_free_inodes": (0, 1_000_000_000),
    "queue.max_messages": (1, 1_000_000_000),
    "delivery.connect_timeout_s": (0.1, 600),
    "delivery.greeting_timeout_s": (0.1, 3600),
    "delivery.command_timeout_s": (0.1, 3600),
    "delivery.data_block_timeout_s": (0.1, 3600),
    "delivery.data_end_timeout_s": (0.1, 3600),
    "delivery.max_connections_per_next_hop": (1, 10_000),
    "delivery.max_connections": (1, 100_000),
    "delivery.keep_idle_s": (0, 3600),
    "delivery.max_messages_per_connection": (1, 1_000_000),
    "delivery.max_recipients_per_transaction": (1, 10_000),
    "delivery.max_mx_hosts": (1, 100),
    "delivery.port": (1, 65535),
    "alias_max_recipients": (1, 10_000),
    "pools.*.members.*.weight": (1, 1000),
    "pools.*.members.*.priority": (0, 1000),
    "pools.*.retry_s": (0.01, DAY),
    "pools.*.probe_interval_s": (0, DAY),
    "auth.max_failures": (1, 1000),
    "auth.lockout_s": (1, 7 * DAY),
    "auth.delay_s": (0, 60),
    "auth.max_delay_s": (0, 240),  # below RFC 5321 4.5.3.2: the client waits 300 s for a reply
    "auth.max_failures_per_session": (1, 100),
    "auth.max_tracked": (100, 10_000_000),
    "auth.concurrent_checks": (1, 64),
    "auth.max_waiting_checks": (1, 10_000),
    "auth.introspection_timeout_s": (0.1, 30),
    "auth.introspection_keep_s": (0, 60),
    "sources.*.timeout_s": (0.1, 15),
    "sources.*.retry_s": (0.1, 60),
    "sources.*.max_connections": (1, 64),
    "sources.*.found_s": (0, DAY),
    "sources.*.missing_s": (0, DAY),
    "sources.*.stale_s": (0, 30 * DAY),
    "sources.*.max_vanished": (0, 1),
    "sources.*.list_interval_s": (1, 7 * DAY),
    "call_ahead.timeout_s": (0.1, 35),
    "call_ahead.max_connections": (1, 100),
    "call_ahead.max_waiting": (1, 10_000),
    "call_ahead.retry_s": (0.1, 3600),
    "call_ahead.found_s": (0, 30 * DAY),
    "call_ahead.missing_s": (0, DAY),
    "call_ahead.stale_s": (0, 90 * DAY),
    "call_ahead.max_vanished": (0, 1),
    "call_ahead.check_s": (0, 30 * DAY),
    "snapshot.max_entries": (0, 1_000_000),
    "snapshot.max_shrink": (0, 1),
    "dns.timeout_s": (0.01, 60),
    "dns.attempts": (1, 20),
    "dns.max_cache_entries": (0, 100_000_000),
    "dns.max_ttl_s": (0, 7 * DAY),
    "dns.max_negative_ttl_s": (0, 3 * 3600),  # RFC 2308 5
    "tls.handshake_timeout_s": (1, 600),
    "tls.remember_s": (0, 366 * DAY),
    "tls.max_remembered": (1, 1_000_000),
    "tls.max_handshake_bytes": (8 * KIB, 16 * MIB),
    "tls.reports.keep_days": (1, 366),
    "tls.reports.spread_s": (0, DAY),
    "tls.reports.period_s": (1, DAY),
    "tls.sts.max_policies": (10, 1_000_000),
    "tls.sts.timeout_s": (1, 60),
    "tls.sts.port": (1, 65535),
    "processes.receivers": (1, 64),
    "processes.deliverers": (1, 64),
    "processes.recheck_s": (0, DAY),
    "processes.hang_limit_s": (0, 3600),
}

TLS_LEVELS = ("best", "none", "opportunistic", "encrypt", "verify", "dane", "dane-only", "sts")
CHOICES: dict[str, tuple[str, ...]] = {
    "smtp.long_lines": ("accept", "refuse"),
    "relay.rules.*.mode": ("enforce", "shadow", "off"),
    "rewrite.rules.*.mode": ("enforce", "shadow", "off"),
    "rewrite.rules.*.directions": ("outbound", "inbound"),
    "rewrite.rules.*.parts": ("reverse-path", "forward-path", "header-senders", "header-recipients"),
    "rewrite.srs.separator": ("=", "+", "-"),
    "policy.checks.*": ("enforce", "shadow", "off"),
    "sources.*.type": ("ldap", "postgresql", "mysql", "http"),
    "sources.*.scope": ("base", "one", "sub"),
    "sources.*.tls": ("verify", "none"),
    "sources.*.keys": ("address", "local", "catch-all", "domain", "parents", "any"),
    "listeners.*.kind": ("edge", "submission", "submissions", "lmtp"),
    "dns.trust_ad": ("auto", "never", "always"),
    "tls.min_version": ("1.2", "1.3"),
    "tls.outbound": TLS_LEVELS,
    "tls.policies.*.level": TLS_LEVELS,
    "sandbox": ("enforce", "best-effort"),
    "auth.mechanisms": (
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "EXTERNAL",
        "OAUTHBEARER",
        "XOAUTH2",
        "PLAIN",
        "LOGIN",
    ),
    "delivery.credentials.*.mechanisms": MECHANISMS,
    "sandbox_debug": ("off", "log"),
    "detail_separator": ("+", "-", "=", "_", "."),
}

# What [policy.checks] may name; a check is built in policy/engine.py, the last two count over sessions (roles/judgement.py).
CHECKS = ("access", "masquerade", "relay-rate")

# (smaller, larger, why)
ORDERED: tuple[tuple[str, str, str], ...] = (
    ("auth.delay_s", "auth.max_delay_s", "the first delay cannot be longer than the longest"),
    ("queue.retry_min_s", "queue.retry_max_s", "the first delay cannot be longer than the longest"),
    ("queue.next_hop_retry_s", "queue.retry_max_s", "the first delay cannot be longer than the longest"),
    ("queue.retry_max_s", "queue.lifetime_s", "a message would expire before its second attempt"),
    ("queue.delay_notice_s", "queue.lifetime_s", "the notice would come after the message has expired"),
    ("delivery.max_connections_per_next_hop", "delivery.max_connections", "one next hop cannot have more than all"),
    ("smtp.max_connections_per_client", "smtp.max_connections", "one client cannot have more than all"),
)

ROLES = ("receiver", "resolver", "queue", "deliverer", "maildir", "control", "signer", "scanner")

# Keys at the top of the file that stand for every domain: the short form.
SHORT_KEYS = ("next_hop", "recipients", "recipients_file")

# How a key is written, for messages about one that is missing or of the wrong kind.
EXAMPLES: dict[str, str] = {
    "hostname": 'hostname = "mx.example.net"',
    "listen": 'listen = ["0.0.0.0:25", "[::]:25"]',
    "routes": 'routes = "sendmail-mailertable:/etc/mail/mailertable"',
    "aliases": 'aliases = "file:/etc/aliases"',
    "sender_routes": 'sender_routes = "file:/etc/gatepost/sender-routes"',
    "access": 'access = "sendmail-access:/etc/mail/access"',
    "virtual": 'virtual = "sendmail-virtusertable:/etc/mail/virtusertable"',
    "domaintable": 'domaintable = "sendmail-domaintable:/etc/mail/domaintable"',
    "genericstable": 'genericstable = "sendmail-genericstable:/etc/mail/genericstable"',
    "spool": 'spool = "/var/spool/gatepost"',
    "domains": 'domains = ["example.net"] and next_hop = "smtp://10.0.0.5:25"',
    "next_hop": 'next_hop = "smtp://10.0.0.5:25"',
    "domains.*.next_hop": 'next_hop = "smtp://10.0.0.5:25"',
    "relay.next_hop": 'next_hop = "mx"',
    "relay.networks": 'networks = ["192.0.2.0/24"]',
    "recipients": 'recipients = ["user", "first.last"]',
    "domains.*.recipients": 'recipients = ["user", "first.last"]',
    "dns.servers": 'servers = ["127.0.0.1:53"]',
}
MANDATORY = ("hostname", "listen", "spool", "domains")

# Keys whose value may be written as one string instead of a list.
STRING_OR_LIST = ("listen", "next_hop", "domains.*.next_hop", "relay.next_hop", "relay.rules.*.next_hop")

# Keys that name tables, "KIND:ARGUMENT", and what each is used for (routing/tables/uses.py); one may stand without a list.
TABLE_KEYS = (
    "routes",
    "aliases",
    "sender_routes",
    "access",
    "virtual",
    "domaintable",
    "genericstable",
    "rewrite.rules.*.tables",
)
TABLES_OR_TEXTS = ("recipients", "domains.*.recipients")  # may also name a table

# Keys that hold a path, relative to the directory of the configuration file.
PATHS = (
    "spool",
    "control_socket",
    "recipients_file",
    "domains.*.recipients_file",
    "relay.certificates.*.ca_file",
    "tls.certificates.*.certificate_file",
    "tls.certificates.*.key_file",
    "tls.ca_file",
    "tls.policies.*.ca_file",
    "delivery.credentials_file",
    "delivery.credentials.*.password_file",
    "delivery.credentials.*.token_file",
    "auth.users_file",
    "sources.*.password_file",
    "sources.*.ca_file",
    "auth.jwks_file",
    "auth.introspection_credentials_file",
    "auth.introspection_ca_file",
    "rewrite.srs.secrets_file",
)

SAFE_RELAY = (
    'give your own machines the right by their address, [relay] networks = ["192.0.2.0/24"], '
    "and list domains that you receive mail for in domains"
)
_REFUSED_NAMES = """
accept_from accept_senders allow_domains allow_from allow_helo allow_hosts allow_mail_from allow_relay allow_relay_from
allow_senders allowed_domains allowed_from allowed_hosts allowed_senders authorized_senders auth_senders check_helo_access
check_sender_access from_domains from_networks_of helo_allow helo_whitelist internal_domains local_domains_from
local_sender_domains mydomains_from open_relay permit_mx_backup permit_senders permitted_senders pop_before_smtp
promiscuous_relay rdns_allow relay_all relay_based_on_mx relay_by_dns relay_by_helo relay_by_mx relay_by_rdns relay_by_sender
relay_domains_from relay_entire_domain relay_from relay_from_domains relay_from_senders relay_helo relay_hostnames relay_hosts
relay_hosts_only relay_if_from relay_if_mx relay_local_from relay_mail_from relay_names relay_rdns relay_sender_domains
relay_senders relay_senders_from safe_senders sender_domains sender_whitelist senders trusted_domains trusted_from trusted_helo
trusted_hostnames trusted_hosts trusted_names trusted_rdns trusted_senders whitelist_from whitelist_helo whitelist_senders
"""
REFUSED_KEYS = frozenset(_REFUSED_NAMES.split())
_REFUSED_SHAPE = re.compile(
    r"(?:relay|allow|permit|trust|accept|whitelist|authori[sz]e)\w*_(?:from|senders?|helo|ehlo|rdns|ptr|hostnames?|mx|names?)"
)
# What other programs call it -> what it is called here.
SYNONYMS: dict[str, str] = {
    "mynetworks": "relay.networks",
    "my_networks": "relay.networks",
    "trusted_networks": "relay.networks",
    "relay_networks": "relay.networks",
    "allowed_networks": "relay.networks",
    "myhostname": "hostname",
    "host_name": "hostname",
    "host": "hostname",
    "relayhost": "relay.next_hop",
    "smarthost": "relay.next_hop",
    "smart_host": "relay.next_hop",
    "relay_host": "relay.next_hop",
    "relay_domains": "domains",
    "mydestination": "domains",
    "nexthop": "next_hop",
    "transport": "next_hop",
    "queue_directory": "spool",
    "spool_dir": "spool",
    "port": "listen",
    "bind": "listen",
    "message_size_limit": "smtp.max_message_bytes",
}


def is_refused_key(name: str) -> bool:
    """Whether a key asks for relay rights by sender address, HELO or DNS name."""
    plain = name.lower().replace("-", "_")
    return plain in REFUSED_KEYS or _REFUSED_SHAPE.fullmatch(plain) is not None


def _postmaster(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at or not local:
        raise InvalidValue(f'"{text}" is not a full address', 'write one such as "postmaster@example.net"')
    return f"{parse_recipient(local)}@{parse_domain(domain)}"


def _dns_server(text: str) -> str:
    host, port = split_host_port(text.strip(), text)
    try:
        address = parse_address(host)
    except InvalidValue:
        advice = 'write the address of a resolver, such as "127.0.0.1:53" or "[::1]:53"'
        raise InvalidValue(f'"{text}" is not the address of a DNS server', advice) from None
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{parse_port(port, text) if port else 53}"


def _network(text: str) -> str:
    return str(parse_network(text))


def _repair_network(text: str) -> str:
    return str(parse_network(text, "a way for strangers to smuggle messages past us"))


def _proxy_network(text: str) -> str:
    return str(parse_network(text, "a way for strangers to say that they are somebody else"))


def _listen(text: str) -> str:
    return str(parse_listen(text))


def _next_hop(text: str) -> str:
    return canonical(parse_next_hop(text))


def _dkim_key(text: str) -> str:
    selector, found, domain = text.strip().lower().partition("._domainkey.")
    if not found or not re.fullmatch(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", selector):
        raise InvalidValue(
            f'"{text}" is no name of a DKIM key',
            'write SELECTOR._domainkey.DOMAIN, such as "mail1._domainkey.example.net"',
        )
    return f"{selector}._domainkey.{parse_domain(domain)}"


# Parsers of text values; for a list, of each item.
PARSERS: dict[str, Callable[[str], str]] = {
    "hostname": parse_fqdn,
    "listen": _listen,
    "next_hop": _next_hop,
    "postmaster": _postmaster,
    "tls.reports.contact": _postmaster,
    "recipients": parse_recipient,
    "domains.*.next_hop": _next_hop,
    "domains.*.recipients": parse_recipient,
    "domains.*.catch_all": parse_recipient,
    "relay.networks": _network,
    "relay.next_hop": _next_hop,
    "relay.rules.*.networks": _network,
    "relay.rules.*.reverse_paths": parse_reverse_pattern,
    "relay.rules.*.domains": parse_domain_pattern,
    "relay.rules.*.next_hop": _next_hop,
    "relay.rules.*.expires": parse_day,
    "rewrite.rules.*.networks": _network,
    "rewrite.rules.*.domains": parse_domain_pattern,
    "rewrite.rules.*.except_domains": parse_domain_pattern,
    "rewrite.rules.*.except_users": parse_recipient,
    "rewrite.rules.*.to_domain": parse_domain,
    "rewrite.hide_received": _network,
    "rewrite.srs.domain": parse_domain,
    "rewrite.srs.except_domains": parse_domain_pattern,
    "relay.certificates.*.names": parse_certificate_name,
    "relay.certificates.*.fingerprints": parse_fingerprint,
    "alias_domains": parse_domain,
    "pools.*.members.*.next_hop": parse_member,
    "listeners.*.address": parse_listener,
    "listeners.*.mode": parse_mode,
    "listeners.*.owner": parse_user,
    "listeners.*.group": parse_user,
    "maildir.file_mode": parse_file_mode,
    "maildir.directory_mode": parse_directory_mode,
    "maildir.group": parse_group,
    "maildir.roots": parse_root,
    "local.socket": parse_socket_path,
    "local.users": parse_user,
    "local.groups": parse_user,
    "local.trusted": parse_user,
    "local.senders.*": parse_pattern,
    "delivery.credentials.*.next_hop": parse_smtp_host,
    "listeners.*.proxy_from": _proxy_network,
    "tls.certificates.*.names": parse_certificate_name,
    "tls.policies.*.domains": parse_tls_domain,
    "tls.policies.*.next_hops": _next_hop,
    "sources.*.next_hops": parse_hop_pattern,
    "tls.policies.*.names": parse_certificate_name,
    "tls.policies.*.fingerprints": parse_fingerprint,
    "smtp.banner_name": parse_fqdn,
    "smtp.proxy_from": _proxy_network,
    "smtp.xclient_from": _proxy_network,
    "smtp.xforward_from": _proxy_network,
    "smtp.repair_networks": _repair_network,
    "delivery.helo_name": parse_fqdn,
    "auth.dovecot": parse_dovecot,
    "auth.default_domain": parse_domain,
    "auth.introspection_url": parse_url,
    "dns.servers": _dns_server,
    "dns.probe": parse_probe,
    "selftest.dkim_keys": _dkim_key,
}

# Lists in which an item given twice is a slip worth telling.
UNIQUE = (
    "listen",
    "recipients",
    "domains.*.recipients",
    "relay.networks",
    "relay.rules.*.networks",
    "relay.rules.*.identities",
    "relay.rules.*.certificates",
    "relay.rules.*.reverse_paths",
    "relay.rules.*.domains",
    "local.users",
    "local.groups",
    "local.trusted",
    "smtp.proxy_from",
    "smtp.xclient_from",
    "smtp.xforward_from",
    "listeners.*.proxy_from",
    "smtp.repair_networks",
    "rewrite.hide_received",
    "auth.mechanisms",
    "dns.servers",
    "selftest.dkim_keys",
)
