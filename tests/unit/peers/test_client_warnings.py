"""What clients leave to the garbage collector fails no run, whenever it is found."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
    from tests.peers import client_warnings

    def pytest_configure(config):
        client_warnings.tolerate(config)
"""
COLLECTING = """
    def pytest_sessionfinish():
        client_warnings.collect_garbage()
"""
LEAVES_A_SOCKET = """
    import gc
    import socket

    def test_leaves_a_socket_that_only_the_collector_finds():
        gc.disable()  # until the end of the run
        cycle = [socket.socket()]
        cycle.append(cycle)
"""

FAILS_OTHERWISE = pytest.version_tuple >= (9, 2)
"""From there on pytest collects at the end with no filters but those of its ini file."""


def test_sockets_that_are_found_at_the_end(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # some of them collect, too
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.syspathinsert(pytestconfig.rootpath)
    pytester.makepyfile(LEAVES_A_SOCKET)
    for conftest, status in ((CONFTEST, int(FAILS_OTHERWISE)), (CONFTEST + COLLECTING, 0)):
        pytester.makeconftest(conftest)
        assert pytester.runpytest_subprocess().ret == status
