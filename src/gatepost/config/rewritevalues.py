"""What spans several keys of `[rewrite]`, the tables its rules name, and the files a receiver is handed for it.

Pure but for reading the file of secrets, whose errors are errors of the configuration. What a rule does is in
`routing/rewrite.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.schema import Config
from gatepost.config.tables import file_types
from gatepost.safeopen import read_regular

USE = "rewrite"  # what the tables of its rules are read for
MAX_RULES = 1000
MIN_SECRET_BYTES = 16
MAX_SECRETS_BYTES = 64 * 1024
HEADER_TABLES = ("domaintable", "genericstable")


def rewrite_tables(values: dict[str, object]) -> Iterator[tuple[str, KeyPath]]:
    """The tables that rules name, and where."""
    for index, rule in enumerate(_rules(values)):
        for name in rule.get("tables") or ():  # type: ignore[attr-defined]
            yield name, ("rewrite", "rules", index, "tables")


def check_rewrite(values: dict[str, object], findings: Findings) -> None:
    """Note what does not fit together, and what is wrong with the secrets."""
    rules = _rules(values)
    if len(rules) > MAX_RULES:
        findings.add(("rewrite", "rules"), f"there are more than {MAX_RULES} rules", "put addresses into tables")
    names: set[object] = {*HEADER_TABLES}
    for index, rule in enumerate(rules):
        here: KeyPath = ("rewrite", "rules", index)
        name = rule.get("name")
        if name in names:
            findings.add((*here, "name"), f'another rule is called "{name}"', "give each rule a name of its own")
        names.add(name)
        if bool(rule.get("tables")) == bool(rule.get("to_domain")):
            problem = "a rule writes either another domain or what a table says"
            findings.add(here, problem, 'write to_domain = "example.net", or tables = ["texthash:canonical"]')
        if rule.get("to_domain") and not rule.get("domains"):
            problem = "every address of the world would get this domain"
            findings.add((*here, "to_domain"), problem, 'add domains = ["inside.example.net", ".inside.example.net"]')
        for key in ("directions", "parts", "domains", "networks"):
            if rule.get(key) == []:
                findings.add((*here, key), "the list is empty", "write what it is for, or remove the line")
    for key in HEADER_TABLES:
        for name in values.get(key) or ():  # type: ignore[attr-defined]
            if name.partition(":")[0] not in file_types():
                problem = f'"{name}" is asked over the network, and {key} is a table of sendmail\'s, with its own order of keys'
                findings.add((key,), problem, "name it in a rule of [[rewrite.rules]]")
    _check_srs(values, findings)


def _rules(values: dict[str, object]) -> list[dict[str, object]]:
    rewrite = values.get("rewrite")
    rules = rewrite.get("rules") if isinstance(rewrite, dict) else None
    return rules if isinstance(rules, list) else []


def _check_srs(values: dict[str, object], findings: Findings) -> None:
    rewrite = values.get("rewrite")
    srs = rewrite.get("srs") if isinstance(rewrite, dict) else None
    if not isinstance(srs, dict) or not srs:
        return
    domain, path = srs.get("domain"), srs.get("secrets_file")
    for key, example in (("domain", 'domain = "srs.example.net"'), ("secrets_file", 'secrets_file = "srs.secrets"')):
        if srs.get(key) is None and not any(error.key == f"rewrite.srs.{key}" for error in findings.errors):
            findings.add(("rewrite", "srs"), f"the key {key} is missing", f"write {example}")
    domains = values.get("domains")
    if isinstance(domain, str) and isinstance(domains, dict) and domain not in domains:
        problem = f'"{domain}" is not one of our domains: bounces for it would be refused'
        findings.add(("rewrite", "srs", "domain"), problem, "add it to domains")
    if not isinstance(path, str):
        return
    here = ("rewrite", "srs", "secrets_file")
    advice = "make one: umask 077; openssl rand -base64 24 > srs.secrets"
    try:
        parse_secrets(read_regular(path, MAX_SECRETS_BYTES))
    except PermissionError:
        return  # the supervisor reads it, and `gatepost check` says who may
    except OSError as error:
        findings.add(here, f'"{path}": it cannot be read ({error.strerror})', advice)
    except ValueError as error:
        findings.add(here, f'"{path}": {error}', advice)


def rewrite_files(config: Config) -> list[str]:
    """The files that a receiver is handed: that of the secrets, if there is one."""
    path = config.rewrite.srs.secrets_file
    return [path] if path is not None and config.rewrite.srs.domain is not None else []


def is_rewriting(config: Config) -> bool:
    """Whether anything is rewritten at all."""
    rewrite = config.rewrite
    return bool(
        config.domaintable
        or config.genericstable
        or rewrite.hide_received
        or rewrite.srs.domain
        or any(rule.mode != "off" for rule in rewrite.rules)
    )


def parse_secrets(text: bytes) -> list[bytes]:
    """One secret on each line, the newest first; `#` at its beginning makes a line a comment. Raises ValueError."""
    secrets = []
    for number, line in enumerate(text.splitlines(), 1):
        secret = line.strip()
        if not secret or secret.startswith(b"#"):
            continue
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"line {number}: the secret has fewer than {MIN_SECRET_BYTES} characters")
        secrets.append(secret)
    if not secrets:
        raise ValueError("it holds no secret")
    return secrets
