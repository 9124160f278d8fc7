"""``kbroker`` as a process, or in this one, for the commands that talk to a cluster."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from kbroker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVENESS_S = 60
PROCESSES = ("exec", "produce")
"""Commands that read standard input or handle signals: they need a process of their own."""


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


@contextmanager
def running(*arguments: str, bootstrap: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run it on, to be interrupted as from a terminal, also where this process ignores Ctrl-C (a
    shell's job in the background); killed in the end."""
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # else children ignore it too
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "kbroker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap},
        )
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    with process:
        try:
            yield process
        finally:
            process.kill()


def kbroker_here(
    *arguments: str, bootstrap: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The same without a process, which takes most of the time of a short command."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    told = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap} if bootstrap else {}
    with (
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
        mock.patch.dict(os.environ, told),
    ):
        try:
            status = main(arguments)
        except SystemExit as ended:  # argparse
            status = int(ended.code or 0)
    written = []
    for stream in (out, err):
        stream.flush()
        written.append(stream.buffer.getvalue())  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, status, *written)


def _run(
    *arguments: str, bootstrap: str | None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    if stdin or arguments[0] in PROCESSES:
        return kbroker(*arguments, bootstrap=bootstrap, stdin=stdin)
    return kbroker_here(*arguments, bootstrap=bootstrap)


def succeed(*arguments: str, bootstrap: str | None = None, stdin: bytes = b"") -> str:
    """Its standard output, after it succeeded."""
    done = _run(*arguments, bootstrap=bootstrap, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def succeed_json(*arguments: str, bootstrap: str | None = None) -> Any:
    """What it printed with ``--json``."""
    return json.loads(succeed(*arguments, "--json", bootstrap=bootstrap))


def refuse(*arguments: str, bootstrap: str | None = None, status: int = 1) -> str:
    """Its one line on stderr, after it failed with that status."""
    done = _run(*arguments, bootstrap=bootstrap)
    assert done.returncode == status, done.stderr.decode()
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("kbroker: ")
    return line
