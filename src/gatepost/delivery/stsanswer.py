"""The resolver's answer about an MTA-STS policy, as what the TLS policies take.

The answer is a LookupDone to a Lookup of the kind STS, of which `roles/stspolicies.py` says what is in it. Pure.
"""

from __future__ import annotations

from gatepost.delivery.tlspolicy import StsPolicy
from gatepost.ipc.messages import LookupDone
from gatepost.mail.mtasts import StsError, parse_policy


def read_sts_answer(done: LookupDone) -> StsPolicy | None:
    """The policy; None if there is none and nobody says that there should be. What cannot be read is not known."""
    if done.status == "ok":
        try:
            policy = parse_policy("\n".join(done.records[2:]).encode())
        except StsError as error:
            return StsPolicy("unknown", (), failure=str(error))
        return StsPolicy(policy.mode, policy.mx, done.records[0], tuple(policy.lines), done.reason)
    if done.status == "tempfail":
        return StsPolicy("unknown", (), failure=done.reason)
    return StsPolicy("none", (), failure=done.reason) if done.reason else None
