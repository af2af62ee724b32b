"""A machine without the test bed's tools says so in a line."""

from pathlib import Path

import pytest

from tests.cluster.testbed import network
from tests.cluster.testbed.state import BedError


def test_a_machine_without_ip_has_no_namespaces_and_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert network.namespaces(tmp_path) == []
    network.remove_bridge(tmp_path)
    with pytest.raises(BedError, match="ip is not installed: apt-get install iproute2"):
        network.ip("link", "show")
