"""The next-hop names as routing and delivery see them.

The syntax belongs to the configuration, which lies below routing (imports go downwards only); it is defined there, in
`config/nexthop.py`, and offered here under the name that its readers look for. Nothing else is in this file.
"""

from __future__ import annotations

from gatepost.config.nexthop import NextHop, NextHopError, canonical, parse_next_hop

__all__ = ["NextHop", "NextHopError", "canonical", "parse_next_hop"]
