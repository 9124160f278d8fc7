"""``kbroker`` as a process, for the commands that talk to a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

LIVENESS_S = 60


def kbroker(
    *arguments: str,
    bootstrap: str | None = None,
    stdin: bytes = b"",
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end. The bootstrap address goes by the environment."""
    told = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap} if bootstrap else {}
    return subprocess.run(
        [sys.executable, "-m", "kbroker", *arguments],
        input=stdin,
        capture_output=True,
        env={**os.environ, **told, **(environment or {})},
        timeout=LIVENESS_S,
        check=False,
    )


def succeed(*arguments: str, bootstrap: str | None = None, stdin: bytes = b"") -> str:
    """Its standard output, after it succeeded."""
    done = kbroker(*arguments, bootstrap=bootstrap, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def succeed_json(*arguments: str, bootstrap: str | None = None) -> Any:
    """What it printed with ``--json``."""
    return json.loads(succeed(*arguments, "--json", bootstrap=bootstrap))


def refuse(*arguments: str, bootstrap: str | None = None, status: int = 1) -> str:
    """Its one line on stderr, after it failed with that status."""
    done = kbroker(*arguments, bootstrap=bootstrap)
    assert done.returncode == status, done.stderr.decode()
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("kbroker: ")
    return line
