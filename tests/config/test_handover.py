"""A configuration that is larger than a role can be given is an error with its reason, not a start that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config import handover
from gatepost.config.encoded import encode_config
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.ipc.wire import MAX_ARRAY_BYTES

CONFIG = """hostname = "gate.example.net"
listen = ["127.0.0.1:2525"]
spool = "/var/spool/gatepost"
[domains."small.test"]
next_hop = "smtp://127.0.0.1:26"
recipients = ["anna"]
[domains."large.test"]
next_hop = "smtp://127.0.0.1:26"
recipients_file = "people"
"""


def write(directory: Path, count: int) -> str:
    (directory / "people").write_text("".join(f"person{number}\n" for number in range(count)))
    path = directory / "gatepost.toml"
    path.write_text(CONFIG)
    return str(path)


def test_too_many_recipients_are_an_error_that_names_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 500)
    monkeypatch.setattr(handover, "MAX_HANDED_BYTES", len(encode_config(load_config(path))))
    load_config(path)
    write(tmp_path, 501)
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    (error,) = caught.value
    assert error.file == str(tmp_path / "people")
    assert '"large.test", has 501' in error.problem and "LDAP or SQL" in error.advice


def test_what_is_handed_over_fits_into_one_message_with_room_for_the_rest() -> None:
    assert handover.MAX_HANDED_BYTES + (1 << 19) < MAX_ARRAY_BYTES
