"""What stands around this host and is never one client: its gateways, container bridges, own addresses; and load balancers.

Read from /proc, IPv4 routes and all local addresses; nothing is sent. What cannot be read is empty: these are hints, not decisions.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

import msgspec

from gatepost.config.proxies import proxy_networks
from gatepost.config.schema import Config

_BRIDGE = re.compile(r"(?:docker|br-|cni|cbr|podman|virbr|lxcbr|lxdbr|incusbr|flannel|cali|kube-|vmbr|tailscale)[\w-]*")
BALANCERS = {
    "35.191.0.0/16": "Google Cloud load balancers",
    "130.211.0.0/22": "Google Cloud load balancers",
    "168.63.129.16/32": "Azure load balancers",
    "100.64.0.0/10": "carrier-grade NAT, and the nodes of many container platforms",
}
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


class Neighbours(msgspec.Struct, frozen=True):
    """Addresses and networks as text."""

    gateways: list[str] = []
    bridges: dict[str, str] = {}  # interface -> network
    own: list[str] = []

    def kind_of(self, address: str) -> str:
        """What an address is, for an event; empty: nothing special."""
        if address in self.gateways:
            return "the default gateway of this host"
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return ""
        for name, network in self.bridges.items():
            if ip.version == 4 and ip == ipaddress.ip_network(network).network_address + 1:
                return f"the container bridge {name}"
        return "an address of this host itself" if address in self.own and not ip.is_loopback else ""


class Finding(msgspec.Struct, frozen=True):
    """Something a policy allows and its operator should know."""

    key: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; {self.advice}"


def read_neighbours(proc: str = "/proc/self/net") -> Neighbours:
    """The surroundings of this host, as far as they can be read; by default where ProcSubset=pid of the units leaves them to be read."""
    gateways, bridges = _routes(_read(f"{proc}/route"))
    own = _LOCAL.findall(_read(f"{proc}/fib_trie"))
    return Neighbours(gateways, bridges, list(dict.fromkeys(own)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _routes(text: str) -> tuple[list[str], dict[str, str]]:
    gateways: list[str] = []
    bridges: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        destination, gateway, mask = (_address(fields[index]) for index in (1, 2, 7))
        if destination == mask == "0.0.0.0" and gateway != "0.0.0.0":
            gateways.append(gateway)
        elif gateway == "0.0.0.0" and mask != "0.0.0.0" and _BRIDGE.fullmatch(fields[0]):
            bridges[fields[0]] = str(ipaddress.ip_network(f"{destination}/{mask}", strict=False))
    return gateways, bridges


def _address(text: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))


def findings_of(config: Config, neighbours: Neighbours) -> list[Finding]:
    """Trusted networks in which strangers could stand."""
    findings = []
    for key, text, expects_many in _trusted(config):
        if expects_many:
            continue
        network = ipaddress.ip_network(text)
        for gateway in neighbours.gateways:
            if ipaddress.ip_address(gateway) in network and not ipaddress.ip_address(gateway).is_loopback:
                problem = (
                    f"{text} holds {gateway}, the default gateway: whatever it forwards with its own address may relay"
                )
                findings.append(Finding(key, problem, "list the networks of your senders without it, if it does NAT"))
        for name, bridge in neighbours.bridges.items():
            if network.version == 4 and network.overlaps(ipaddress.ip_network(bridge)):
                problem = f"{text} holds the container bridge {name} ({bridge}): published ports let strangers come from there"
                findings.append(
                    Finding(key, problem, "list the addresses of your containers instead, or let them authenticate")
                )
        for balancer, owner in BALANCERS.items():
            if network.version == 4 and network.overlaps(ipaddress.ip_network(balancer)):
                problem = f"{text} holds {balancer}: {owner}, from which strangers come"
                findings.append(Finding(key, problem, "list your own senders by their own addresses"))
        findings += [
            Finding(
                key,
                f"{text} holds {proxy}, which {of} names: what it says it opened itself may relay",
                "take the proxies out",
            )
            for of, proxy in proxy_networks(config)
            if (other := ipaddress.ip_network(proxy)).version == network.version and network.overlaps(other)
        ]
    for key, text in proxy_networks(config):
        problem = f"whoever connects from {text} says who the client is, and can name any address that may relay"
        findings.append(Finding(key, problem, "list proxies by their addresses, and let nobody else send from there"))
    return findings


def _trusted(config: Config) -> list[tuple[str, str, bool]]:
    """Key, network, and whether many clients are expected behind it."""
    trusted = [("relay.networks", text, False) for text in config.relay.networks]
    for rule in config.relay.rules:
        if rule.mode == "enforce" and not rule.identities and not rule.certificates:
            trusted += [(f'relay.rules "{rule.name}"', text, rule.expect_many) for text in rule.networks]
    return trusted
