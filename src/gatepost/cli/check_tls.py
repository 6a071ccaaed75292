"""What `gatepost check` says of certificates: pairs that do not work are errors, what will soon hurt are warnings.

It reads the files and does with them what the roles will do. Not here: who may read the files (`config/paths.py`).
"""

from __future__ import annotations

import datetime

from gatepost.config.errors import ConfigError
from gatepost.config.introspection import introspection_files
from gatepost.config.schema import Config
from gatepost.config.warnings import Warning
from gatepost.delivery.tlspolicy import TlsPolicies, is_fitting
from gatepost.net.tlscontext import CertificateError, Pair, ServerTls, new_client_context
from gatepost.privsep.material import (
    MaterialError,
    asks_web_servers,
    authority_files,
    read_authorities,
    read_material,
    web_files,
)

SOON_S = 14 * 86400.0


def inspect_tls(config: Config, path: str, now_s: float) -> tuple[list[ConfigError], list[Warning]]:
    """Errors (the gateway would not start) and warnings, for the configuration file `path`."""
    errors: list[ConfigError] = []
    pairs: list[Pair] = []

    def note(key: str, problem: str, advice: str) -> None:
        errors.append(ConfigError(path, 0, key, problem, advice))

    for number, row in enumerate(config.tls.certificates, 1):
        key = f"tls.certificates[{number}]"
        try:
            pem = b"\n".join(read_material(name) for name in (row.certificate_file, row.key_file))
            pairs.append(Pair(row.certificate_file, pem, row.names))
        except MaterialError as error:
            note(key, str(error), "")
        except CertificateError as error:
            note(key, error.problem, error.advice)
    try:
        authorities = [read_material(row.ca_file) for row in config.relay.certificates]
        if pairs:
            tls = config.tls
            for asks in {False, bool(authorities)}:
                ServerTls(
                    pairs,
                    min_version=tls.min_version,
                    ciphers=tls.ciphers,
                    client_authorities=authorities,
                    asks_client=asks,
                )
        for name in introspection_files(config)[:1]:
            new_client_context(authorities=read_material(name), label=name)
        TlsPolicies(config, {name: read_authorities(config, name) for name in authority_files(config)})
    except MaterialError as error:
        note("tls", str(error), "")
    except CertificateError as error:
        note("tls", error.problem, error.advice)
    return errors, [*_of_pairs(config, pairs, now_s), *_of_clients(config), *_of_authorities(config)]


def _of_pairs(config: Config, pairs: list[Pair], now_s: float) -> list[Warning]:
    warnings = []
    for pair in pairs:
        day = datetime.datetime.fromtimestamp(pair.expires_s, datetime.UTC).date()
        if pair.expires_s <= now_s:
            problem = f"{pair.label} has expired on {day}"
            warnings.append(Warning("tls.certificates", problem, "clients that look will refuse it: renew it"))
        elif pair.expires_s <= now_s + SOON_S:
            warnings.append(Warning("tls.certificates", f"{pair.label} expires on {day}", "renew it"))
    names = {name for pair in pairs for name in pair.names}
    if pairs and not any(is_fitting(name, config.hostname) for name in names):
        problem = f"no certificate is for {config.hostname}, the name by which others know this gateway"
        warnings.append(
            Warning("tls.certificates", problem, "get one for it: senders with DANE or MTA-STS will not send")
        )
    return warnings


def _of_clients(config: Config) -> list[Warning]:
    asks = config.tls.client_certificates or any(row.client_certificates for row in config.listeners)
    if config.relay.certificates and not asks:
        problem = "no listener asks for a client certificate, so that none will ever be shown"
        advice = "write client_certificates = true in [tls] or in [[listeners]]"
        return [Warning("relay.certificates", problem, advice)]
    if asks and not config.relay.certificates:
        problem = "no authority is listed by which client certificates could be verified: none is asked for"
        return [Warning("tls.client_certificates", problem, "add [[relay.certificates]], or remove it")]
    return []


def _of_authorities(config: Config) -> list[Warning]:
    if not asks_web_servers(config) or config.tls.ca_file is not None:
        return []
    try:
        if any(read_authorities(config, path) for files in web_files(config) for path in files):
            return []
    except MaterialError:  # told as an error already
        return []
    problem = "there is no file of certification authorities: no MTA-STS policy is fetched, and no report is posted"
    return [Warning("tls.ca_file", problem, "install ca-certificates, or set tls.ca_file")]
