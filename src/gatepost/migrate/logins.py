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
OTHERWISE = "write [[delivery.credentials]] with a password_file"


def import_logins(path: str, draft: Draft, report: Report) -> str:
    """Use the file at `path` as it is, and tell of each of its logins; otherwise what is to be done, and nothing is told."""
    try:
        if KEY in draft.values:
            return OTHERWISE
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            return f"chmod 600 the text of it, and import again; or {OTHERWISE}"
        entries = parse_credentials(path, read_regular(os.path.abspath(path), MAX_FILE_BYTES))
    except LinkInPath:
        return f"put the file where no symbolic link leads to it, and import again; or {OTHERWISE}"
    except OSError:
        return f"put the text of it in place, mode 600, and import again; or {OTHERWISE}"
    except ConfigErrors as errors:
        lines = ", ".join(dict.fromkeys(str(error.line) for error in errors))
        return f"mend what is not understood in line {lines}, and import again; or {OTHERWISE}"
    if not entries:
        return OTHERWISE
    draft.values[KEY] = (os.path.abspath(path), f"from {os.path.basename(path)}")
    for entry in entries:
        told = f"a login for {', '.join(entry.next_hops)}, read where it lies; only inside TLS, with the certificate verified"
        report.exact(path, entry.line, f"{entry.next_hops[0]} ***", told)
    return ""
