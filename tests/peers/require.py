"""What to do when a test's tool is not on this machine: skip and say so, or fail.

``KBROKER_REQUIRE=java,maven`` names the tools whose absence is a failure: the machine that judges
a release must not pass because it could not look.
"""

from __future__ import annotations

import os
from typing import NoReturn


class PeerUnavailable(Exception):
    """A peer cannot be had here: ``tool`` as KBROKER_REQUIRE calls it, ``reason`` a sentence."""

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(f"{tool}: {reason}")
        self.tool = tool
        self.reason = reason


def required_tools() -> frozenset[str]:
    """The tools named by KBROKER_REQUIRE, lower case."""
    names = os.environ.get("KBROKER_REQUIRE", "").split(",")
    return frozenset(name.strip().lower() for name in names if name.strip())


def skip_or_fail(error: PeerUnavailable) -> NoReturn:
    """End the running test or fixture: skipped, or failed when KBROKER_REQUIRE names the tool."""
    import pytest

    if error.tool in required_tools():
        pytest.fail(f"KBROKER_REQUIRE asks for {error.tool}, but {error.reason}", pytrace=False)
    pytest.skip(f"needs {error.tool}: {error.reason}")
