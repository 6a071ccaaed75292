"""Logins for other servers: the file is named where it lies, if nobody else can read it and every line is understood. No secret is copied."""

from __future__ import annotations

import os
import stat

from gatepost.config.credentialsfile import MAX_FILE_BYTES, parse_credentials
from gatepost.config.errors import ConfigErrors
from gatepost.migrate.draft import Draft
from gatepost.migrate.report import Report
from gatepost.safeopen import LinkInPath, read_regular

KEY = "delivery.credentials_file"
WHY = "passwords for other servers are not copied"
ADVICE = "chmod 600 the text of it, and import again; or write [[delivery.credentials]] with a password_file"


def import_logins(path: str, draft: Draft, report: Report) -> bool:
    """Whether the file at `path` is used as it is; each of its logins is told of then."""
    try:
        if KEY in draft.values or stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            return False
        entries = parse_credentials(path, read_regular(os.path.abspath(path), MAX_FILE_BYTES))
    except (OSError, LinkInPath, ConfigErrors):
        return False
    if not entries:
        return False
    draft.values[KEY] = (os.path.abspath(path), f"from {os.path.basename(path)}")
    for entry in entries:
        told = f"a login for {', '.join(entry.next_hops)}, read where it lies; only inside TLS, with the certificate verified"
        report.exact(path, entry.line, f"{entry.next_hops[0]} ***", told)
    return True
