"""kbroker as a process of its own, through its command line, as a user starts it."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

from tests.peers.process import BrokerDied, ChildProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

READY = re.compile(
    r"kbroker ready bootstrap=(?P<bootstrap>\S+) node=(?P<node>\d+) "
    r"cluster=(?P<cluster>\S+) pid=(?P<pid>\d+)$"
)
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30

# As installed: some images forbid writing bytecode, and compiling at each start trebles it.
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


class KbrokerProcess:
    """One broker on one data directory, which can be stopped or killed and started again.

    The first start takes a free port; later ones take the same, so that clients find it again.
    """

    name = "kbroker"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.settings = dict(settings or {})
        self.environment = dict(environment or {})
        self.arguments = arguments
        self.port = 0
        self.ready_after_s = 0.0
        self._process: ChildProcess | None = None

    @property
    def error_log(self) -> Path:
        """Standard error of all its starts."""
        return self.folder / "stderr.log"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.exit_status is None

    def command(self) -> list[str]:
        """The command line; ``--set`` for each setting."""
        pairs = [
            part for name, value in self.settings.items() for part in ("--set", f"{name}={value}")
        ]
        return [
            *(sys.executable, "-m", "kbroker", "serve", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--data-dir", str(self.data_dir)),
            *pairs,
            *self.arguments,
        ]

    def start(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Starts and waits for the ready line. ``environment`` counts for this start only.

        Sets ``ready_after_s``, from the spawn to the line, and ``port``.
        """
        process = self._spawn(environment or {})
        line = process.wait_for_line("kbroker ready", timeout_s=START_TIMEOUT_S)
        self.ready_after_s = time.monotonic() - process.started_at
        ready = READY.match(line)
        if ready is None:
            raise BrokerDied(f"a ready line of another form: {line!r}")
        if int(ready["pid"]) != process.pid:
            raise BrokerDied(f"{line!r} names another process than {process.pid}")
        self.port = int(ready["bootstrap"].rpartition(":")[2])

    def start_and_kill(self, *, after_s: float) -> None:
        """Starts and kills -9 after that time, ready by then or not: a death during recovery."""
        process = self._spawn({})
        time.sleep(after_s)
        if process.exit_status is not None:
            raise BrokerDied(f"ended by itself with {process.exit_status}\n{self.report()}")
        process.kill()

    def stop(self) -> None:
        """SIGTERM; raises when it does not end in time with status 0."""
        status = self._running().terminate(timeout_s=STOP_TIMEOUT_S)
        if status != 0:
            raise BrokerDied(f"SIGTERM ended it with {status}\n{self.report()}")

    def kill(self) -> None:
        """kill -9; nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()

    def wait_for_end(self, *, timeout_s: float) -> int:
        """Waits until the process ends by itself (a failpoint) and returns its status."""
        return self._running().wait(timeout_s=timeout_s)

    def report(self) -> str:
        """What it printed last, for a failure message."""
        return self._running().report()

    def _spawn(self, environment: Mapping[str, str]) -> ChildProcess:
        if self.is_running:
            raise RuntimeError("already running")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = ChildProcess(
            self.command(),
            error_log=self.error_log,
            environment={**WITH_BYTECODE, **self.environment, **environment},
        )
        return self._process

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("never started")
        return self._process

    def __enter__(self) -> KbrokerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
