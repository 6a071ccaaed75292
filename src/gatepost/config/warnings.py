"""What a configuration allows and its operator may not want: no errors, but to be known.

Pure. `gatepost check` prints these; a gateway starts with them all the same.
"""

from __future__ import annotations

import ipaddress

import msgspec

from gatepost.config.schema import Config
from gatepost.config.sources import source_of
from gatepost.config.tables import LoadedConfig
from gatepost.config.tlsdemands import verifies_clients
from gatepost.config.values import IPNetwork, parse_listen

_WIDE = {4: 16, 6: 32}


class Warning(msgspec.Struct, frozen=True):
    """One thing to know: the key it comes from, what it leads to, what to do about it."""

    key: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; {self.advice}"


def warnings_of(config: Config) -> list[Warning]:
    """Everything worth telling of a configuration that is valid."""
    warnings = [
        *_of_domains(config),
        *_of_relay(config),
        *_of_listen(config),
        *_of_tables(config),
        *_of_sources(config),
        *_of_demands(config),
    ]
    if config.sandbox != "enforce":
        problem = "on a kernel without Landlock or seccomp the gateway starts without them"
        warnings.append(Warning("sandbox", problem, 'write sandbox = "enforce" where the kernel has them'))
    if config.sandbox_debug != "off":
        problem = "what a role's system call filter would kill for passes, and is only noted by the kernel"
        warnings.append(Warning("sandbox_debug", problem, "remove the line when the debugging is over"))
    for exception in config.exceptions:
        problem = f"{exception.path} is not judged until {exception.until}: {exception.reason}"
        warnings.append(Warning("exceptions", problem, f"{exception.owner} answers for it"))
    if config.queue.allow_volatile:
        problem = "a spool on a file system in memory is allowed: accepted mail is lost at a power cut"
        warnings.append(Warning("queue.allow_volatile", problem, "remove the line, and put the spool on a disk"))
    if config.queue.lifetime_s < 86400:
        problem = "mail for a server that is down is returned in less than a day"
        warnings.append(Warning("queue.lifetime_s", problem, "RFC 5321 4.5.4.1 advises 4 to 5 days: 432000"))
    if config.delivery.port != 25:
        problem = f"MX hosts are asked on port {config.delivery.port}, where no other server listens"
        warnings.append(Warning("delivery.port", problem, "remove the line, except in tests"))
    if config.dns.trust_ad == "always":
        problem = (
            "every DNS server is believed that it has validated: whoever can answer in its place decides what DANE says"
        )
        warnings.append(
            Warning("dns.trust_ad", problem, 'run a resolver that validates on this host, and write "auto"')
        )
    if not config.tls.certificates:
        problem = "there is no certificate: STARTTLS is not offered, and mail comes in without encryption"
        warnings.append(
            Warning("tls.certificates", problem, "add [[tls.certificates]] with certificate_file and key_file")
        )
    return warnings


def _of_domains(config: Config) -> list[Warning]:
    warnings = []
    for name, domain in config.domains.items():
        key = f'domains."{name}"'
        if domain.recipients is None:
            problem = (
                f"every local part of {name} is accepted; what the next hop then refuses is bounced to senders that are "
                "often forged (backscatter)"
            )
            warnings.append(Warning(key, problem, f'list the recipients: recipients_file = "{name}.recipients"'))
        elif not domain.recipients:
            problem = f"the list of recipients of {name} is empty: only postmaster exists"
            warnings.append(Warning(key, problem, "fill the list"))
        if domain.catch_all:
            problem = (
                f"every local part of {name} is taken, and goes to {domain.catch_all}: spam to made-up recipients, typing mistakes "
                "that their senders never hear of, and, if that mailbox is full or gone, bounces to forged senders (backscatter)"
            )
            warnings.append(
                Warning(f"{key}.catch_all", problem, "remove the line, and list the aliases that are needed")
            )
        if not domain.backup_mx and domain.next_hop in (["mx"], [f"mx:{name}"]):
            problem = (
                f"mail for {name} goes to its MX hosts: right for a backup MX, a loop if this gateway is the only MX"
            )
            advice = 'write backup_mx = true, or "smtp://HOST:25" of the mail server inside'
            warnings.append(Warning(f"{key}.next_hop", problem, advice))
    return warnings


def _of_relay(config: Config) -> list[Warning]:
    warnings = []
    for text in config.relay.networks:
        network: IPNetwork = ipaddress.ip_network(text)
        if not network.is_private and network.prefixlen < _WIDE[network.version]:
            problem = f"{text} is wide for one organisation, and each address in it may relay"
            warnings.append(Warning("relay.networks", problem, "list only the networks that send mail"))
    return warnings


def _of_tables(config: Config) -> list[Warning]:
    tables = config.tables.items() if isinstance(config, LoadedConfig) else ()
    return [
        Warning(name.partition(" ")[2], f"{note.file}:{note.line}: {note.problem}", note.advice)
        for name, data in tables
        for note in data.notes
    ]


def _of_sources(config: Config) -> list[Warning]:
    """Tables that are asked where mail goes, and may say anything."""
    asked = {name: source_of(name, config.sources) for name in (*config.routes, *config.sender_routes)}
    return [
        Warning(
            f"sources.{name.partition(':')[2]}.next_hops",
            f"{name} may name any next hop, and so may who has broken into a receiver, the resolver or that server",
            'list those that it names: next_hops = ["smtp://10.0.0.5:25", "smtp://*.inside.example:25"]',
        )
        for name, source in asked.items()
        if source is not None and not source.next_hops
    ]


def _of_demands(config: Config) -> list[Warning]:
    asks = config.tls.client_certificates or any(row.client_certificates for row in config.listeners)
    if asks or not verifies_clients(config):
        return []
    problem = "TLS_Clt: in an access table demands a verified certificate, and no listener asks for one: those clients are refused"
    return [Warning("tls.client_certificates", problem, "set it, with the authorities in [[relay.certificates]]")]


def _of_listen(config: Config) -> list[Warning]:
    warnings = []
    for text in config.listen:
        listen = parse_listen(text)
        address = ipaddress.ip_address(listen.address)
        if listen.port != 25 and not address.is_loopback:
            problem = f"on {text} no other mail server will look: they deliver to port 25 only"
            warnings.append(Warning("listen", problem, "listen on port 25, or have port 25 forwarded here"))
        if address.is_unspecified and any(ipaddress.ip_network(net).is_loopback for net in config.relay.networks):
            problem = (
                f"{text} is open to the world and 127.0.0.0/8 may relay: through a proxy or port forwarding on this "
                "host, strangers would come from there"
            )
            warnings.append(Warning("relay.networks", problem, "remove it if such a proxy exists"))
    return warnings
