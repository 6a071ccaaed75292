"""Makes `spool_bed` importable for the tests beside it, and closes what they leave open."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
