"""Programs that a recipe needs: run as a reader of the README would run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.peers.require import PeerUnavailable, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIVENESS_S = 240
KBROKER = (sys.executable, "-m", "kbroker")


def need(tool: str, program: str) -> str:
    """The program's path; without it the test is skipped, or fails where ``tool`` is required."""
    found = shutil.which(program)
    if found is None:
        skip_or_fail(PeerUnavailable(tool, f"no `{program}` on PATH"))
    return found


def fetch(
    tool: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a step that only downloads; one that fails means that the tool cannot be had."""
    done = run(command, folder, environment)
    if done.returncode != 0:
        tail = " | ".join(done.stdout.strip().splitlines()[-3:])
        skip_or_fail(PeerUnavailable(tool, f"`{' '.join(command)}` failed: {tail}"))


def succeed(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Run it; what it printed on both streams. Fails the test with that when it fails."""
    done = run(command, folder, environment)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}"
    return done.stdout


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it in ``folder`` with ``environment`` over ours; both streams come together."""
    return subprocess.run(
        list(command),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=LIVENESS_S,
        check=False,
    )
