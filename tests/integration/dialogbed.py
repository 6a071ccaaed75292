"""Gateways that serve dialogs (tests/dialogs): which keys make which settings, which dialogs share a gateway, where each comes in.

A gateway serves all dialogs that can share one: their keys do not contradict each other, and on the bare session each goes the same way
with the settings of all. So a new dialog needs nothing here, unless it names a setting that KEYS does not have.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs

import certificates
from dialogowner import PASSWORD, TOKEN, USER, play, settings_of
from dialogscript import Script
from integration.gateway import Gateway
from integration.names import Names
from integration.nexthop import NextHop
from integration.peers.process import take_port
from webserver import Asked, WebServer

from gatepost.config.usersfile import User, Users, render_users
from gatepost.smtp.extensions import SWITCHES
from gatepost.smtp.sasl.scram import derive_verifier
from gatepost.smtp.settings import ServerSettings

Needs = dict[str, Any]
LIMITS = (
    "max_message_bytes", "max_recipients", "max_command_bytes", "max_line_bytes", "max_header_bytes", "max_received_hops", "max_errors",
    "max_commands", "max_idle_commands", "max_transactions", "max_hold_s",
)  # fmt: skip


def of_mechanisms(names: tuple[str, ...]) -> Needs:
    """EXTERNAL is in all lists: only the listener that asks for a certificate offers it."""
    return {"auth.mechanisms": ["EXTERNAL", *(name for name in names if name != "EXTERNAL")]}


# Setting of a dialog -> the keys that make it so: what `ServerSettings.from_config` and `roles/ports.py` read, backwards.
KEYS: dict[str, Callable[[Any], Needs]] = {
    **{name: lambda value, key=f"smtp.{name}": {key: value} for name in (*LIMITS, *SWITCHES)},
    # less, and the policy words the reply
    "mt_priority": lambda on: {"smtp.mt_priority": on, "smtp.stranger_priority": 9},
    "refuse_long_lines": lambda on: {"smtp.long_lines": "refuse" if on else "accept"},
    "mechanisms": of_mechanisms,
    "mechanisms_in_tls": lambda names: of_mechanisms(names) | {"auth.require_tls": False},
    "max_auth_failures": lambda count: {"auth.max_failures_per_session": count},
    "starttls": lambda on: {"tls.certificates": on},
    # No keys of the whole gateway: the listener makes them so, or the address of the client. See `door_of`.
    **dict.fromkeys(("is_secured", "lmtp", "xclient", "xforward", "repair"), lambda value: {}),
}
OF_DOOR = {
    "is_secured",
    "lmtp",
    "xclient",
    "xforward",
    "repair",
    "mechanisms",
    "mechanisms_in_tls",
    "starttls",
    "future_release",
}
NO_KEYS = {
    "refuse_early_talkers": "no key: a gateway refuses early talkers always; the switch is for other owners of a session",
    "max_swallowed_bytes": "no key: always 10 MiB over smtp.max_message_bytes, more than a dialog should hold",
}
STRANGER, MAY_RELAY, PROXY, CARELESS, BALANCER = (f"127.0.0.{number}" for number in range(1, 6))
SUBMISSION = ("submission", "submissions", "certificate")


class Door(NamedTuple):
    """Where a dialog comes in: at which listener, and from which address."""

    listener: str  # "edge"; "starttls": there too, inside TLS; "submission", "submissions", "certificate", "lmtp"
    source: str = STRANGER


def door_of(script: Script) -> Door:
    """The door at which the settings of a dialog are those of a session."""
    settings = script.settings
    mechanisms = settings.get("mechanisms", ())
    if settings.get("lmtp"):
        return Door("lmtp")
    if settings.get("is_secured") and mechanisms:
        return Door("certificate" if "EXTERNAL" in mechanisms else "submissions", MAY_RELAY)
    if settings.get("is_secured"):
        return Door("starttls")
    if mechanisms or settings.get("future_release"):
        return Door("submission", MAY_RELAY)
    if settings.get("xclient") or settings.get("xforward"):
        return Door("edge", PROXY)
    if settings.get("repair"):
        return Door("edge", CARELESS)
    return Door("edge", BALANCER if script.turns[0].sent else STRANGER)


def needs_of(script: Script) -> Needs:
    """The keys that a dialog needs."""
    found: Needs = {}
    for name, value in script.settings.items():
        found |= KEYS[name](value)
    listener = door_of(script).listener
    if listener == "lmtp":
        del found["smtp.chunking"]  # such a listener never has it
    else:
        found["tls.certificates"] = bool(script.settings.get("is_secured") or script.settings.get("starttls"))
    if listener in SUBMISSION:  # others never have it
        found.setdefault("smtp.future_release", False)
    return found


class Group:
    """Dialogs that one gateway can serve: what it needs, and the settings that all their sessions have."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.needs: Needs = {}
        self.shared: dict[str, Any] = {}

    def take(self, script: Script) -> bool:
        """One more dialog, if it fits in."""
        needs = needs_of(script)
        of_door = OF_DOOR | {"chunking"} if script.settings.get("lmtp") else OF_DOOR
        shared = self.shared | {name: value for name, value in script.settings.items() if name not in of_door}
        if any(self.needs.get(key, value) != value for key, value in needs.items()):
            return False
        try:
            for one in [script] if shared == self.shared else [*self.scripts, script]:
                play(one, settings_of(one, **shared))
        except AssertionError:
            return False
        self.scripts.append(script)
        self.needs |= needs
        self.shared = shared
        return True


def group(scripts: Sequence[Script]) -> list[Group]:
    """Each dialog goes into the first group that takes it, those without settings first."""
    groups: list[Group] = []
    for script in sorted(scripts, key=lambda script: len(script.settings)):
        if not any(one.take(script) for one in groups):
            groups.append(Group())
            assert groups[-1].take(script), script.name
    return groups


# --- what is around the gateways ----------------------------------------------------------------------------------------

LOGIN, PATH = "login.example.test", "/introspect"
JSON = {"Content-Type": "application/json"}
RECIPIENTS = ["b", "c", "d", "bücher"]
DEFAULTS = ServerSettings(hostname="")


class Surroundings:
    """Certificates, the one user, and who says which tokens are good: for gateways of all groups."""

    def __init__(self, directory: Path) -> None:
        self.authority = certificates.Authority(directory)
        self.file = self.authority.file
        self.certificate = self.authority.issue("gate", ["DNS:localhost"])
        self.client = self.authority.issue("client", [f"DNS:{USER}"], usage="clientAuth")
        user = User(
            name=USER,
            scram={"sha256": derive_verifier(PASSWORD, bytes(16), 4096)},
            addresses=(f"{USER}@example.test",),
        )
        self.users = render_users(Users(bytes(32), {USER: user}))
        self.names = Names({"example.test": "login 1 A 127.0.0.1\n"})
        self.login = WebServer({LOGIN: self.authority.issue("login", [f"DNS:{LOGIN}"])})
        self.login.answers[LOGIN, PATH] = self.introspect
        self._taken: set[int] = set()

    def take_port(self) -> int:
        """A free port that no other of these gateways has taken, as it may not listen yet."""
        while (port := take_port()) in self._taken:
            pass
        self._taken.add(port)
        return port

    @staticmethod
    def introspect(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """RFC 7662."""
        is_good = parse_qs(asked.body.decode())["token"] == [TOKEN]
        return 200, JSON, json.dumps({"active": is_good, "aud": "gatepost", "username": USER}).encode()

    def auth_keys(self, directory: Path, mechanisms: Sequence[str]) -> Needs:
        """The keys with which the user can log in, and the files that they name."""
        files = {"users": self.users}
        keys: Needs = {"auth.users_file": "users", "auth.delay_s": 0, "auth.max_failures": 1000}
        if "XOAUTH2" in mechanisms:
            files["introspection"] = "gate:s3cret\n"
            keys |= {
                "auth.audience": "gatepost",
                "auth.user_claim": "username",
                "auth.introspection_url": f"https://{LOGIN}:{self.login.port}{PATH}",
                "auth.introspection_credentials_file": "introspection",
                "auth.introspection_ca_file": str(self.file),
                "auth.introspection_timeout_s": 30,
                "dns.servers": [self.names.address],
                "dns.timeout_s": 10,
            }
        for name, text in files.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)
        return keys

    def __enter__(self) -> Self:
        self.names.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.login.close()
        self.names.__exit__()


# --- the gateways -------------------------------------------------------------------------------------------------------


class DialogGateway(Gateway):
    """A gateway for a group, with the policy of `dialogowner.py`, and nothing in it that waits for a clock."""

    def __init__(self, directory: Path, group: Group, hop: NextHop, around: Surroundings) -> None:
        networks = [f"{MAY_RELAY}/32"]
        super().__init__(
            directory, next_hop=hop.name, relay_next_hop=hop.name, recipients=RECIPIENTS, networks=networks
        )
        self.around = around
        self.port = around.take_port()
        self.ports = {"submission": around.take_port()}
        self.lmtp = self.directory / "lmtp"
        needs: Needs = {f"smtp.{name}": getattr(DEFAULTS, name) for name in SWITCHES}
        needs |= {
            "smtp.banner_name": "mx.example.test",
            "smtp.max_unknown_recipients": 0,
            "smtp.greeting_delay_s": 0.001,  # what comes in one piece with a PROXY header comes before the greeting
            "smtp.proxy_from": [f"{BALANCER}/32"],
            "smtp.xclient_from": [f"{PROXY}/32"],
            "smtp.xforward_from": [f"{PROXY}/32"],
            "smtp.repair_networks": [f"{CARELESS}/32"],
        }
        needs |= group.needs
        has_certificates = needs.pop("tls.certificates", False)
        if "auth.mechanisms" in needs:
            needs |= around.auth_keys(self.directory, needs["auth.mechanisms"])
        self.extra = as_toml(needs) + self._listeners(has_certificates)

    def _listeners(self, has_certificates: bool) -> str:
        text = f'[[listeners]]\naddress = "unix:{self.lmtp}"\nkind = "lmtp"\nmode = "0666"\n'
        text += f'[[listeners]]\naddress = "127.0.0.1:{self.ports["submission"]}"\nrequire_tls = false\n'
        if not has_certificates:
            return text
        for name in ("submissions", "certificate"):
            self.ports[name] = self.around.take_port()
            text += f'[[listeners]]\naddress = "127.0.0.1:{self.ports[name]}"\nkind = "submissions"\n'
        text += f'client_certificates = true\n[[relay.certificates]]\nca_file = "{self.around.file}"\n'
        return f'{text}names = ["nobody.example.test"]\n{certificates.config_rows(self.around.certificate)}'

    def connect(self, door: Door) -> socket.socket:
        """A connection to a door, inside TLS where that begins with the first octet."""
        if door.listener == "lmtp":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(60)
            sock.connect(str(self.lmtp))
            return sock
        port = self.ports.get(door.listener, self.port)
        sock = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(door.source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door.listener in ("submissions", "certificate"):
            return self.secure(sock, with_certificate=door.listener == "certificate")
        return sock

    def secure(self, sock: socket.socket, *, with_certificate: bool = False) -> ssl.SSLSocket:
        """The client's side of a handshake."""
        context = ssl.create_default_context(cafile=str(self.around.file))
        if with_certificate:
            context.load_cert_chain(self.around.client, certificates.key_of(self.around.client))
        return context.wrap_socket(sock, server_hostname="localhost")


def as_toml(keys: Needs) -> str:
    """Keys "section.name" as TOML."""
    text = ""
    for section, rows in itertools.groupby(sorted(keys.items()), lambda row: row[0].partition(".")[0]):
        lines = (f"{key.partition('.')[2]} = {json.dumps(value)}\n" for key, value in rows)
        text += f"[{section}]\n{''.join(lines)}"
    return text
