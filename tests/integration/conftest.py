"""What more than one file of tests starts once for all of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from certificates import Authority
from integration.peers.tableservers import TableServers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def table_servers(authority: Authority) -> Iterator[TableServers]:
    with TableServers(authority) as servers:
        yield servers
