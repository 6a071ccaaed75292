"""All fuzz targets, by name. A new parser of what others send gets a target here."""

from __future__ import annotations

from fuzz import file_targets, local_targets, network_targets, smtp_targets
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for part in (smtp_targets, network_targets, file_targets, local_targets)
    for target in part.TARGETS
}
