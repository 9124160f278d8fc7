"""A broker as a child process: started, stopped, killed, its output kept for the failure report."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KEPT_LINES = 200


class BrokerDied(Exception):
    """The process ended while somebody waited for it; the message carries its last output."""


class ChildProcess:
    """One run of one command. Standard output is read line by line, standard error goes to a file.

    A child never outlives this interpreter: what nobody stopped is killed at exit, and by a guard
    where the interpreter itself was killed.
    """

    def __init__(
        self, command: Sequence[str], *, error_log: Path, environment: Mapping[str, str] | None
    ) -> None:
        self.error_log = error_log
        self.started_at = time.monotonic()
        with error_log.open("ab") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        self._guard = _guard(self._process.pid)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; a negative number is the signal that ended it."""
        return self._process.poll()

    def wait_for_line(self, start: str, *, timeout_s: float) -> str:
        """The first line of standard output that begins with ``start``.

        Raises BrokerDied when the process ends first, TimeoutError after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(
                    f"no line {start!r} within {timeout_s} s\n{self.report()}"
                ) from None
            if line is None:
                self._process.wait(timeout=10)
                raise BrokerDied(f"ended with {self.exit_status}\n{self.report()}")
            if line.startswith(start):
                return line

    def wait(self, *, timeout_s: float) -> int:
        """Waits until the process has ended and returns its status."""
        status = self._process.wait(timeout=timeout_s)
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        self._reader.join(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        atexit.unregister(self.kill)
        return status

    def terminate(self, *, timeout_s: float) -> int:
        """SIGTERM, then SIGKILL when it has not ended in time. Returns the exit status."""
        if self.exit_status is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(
                f"still running {timeout_s} s after SIGTERM\n{self.report()}"
            ) from None

    def kill(self) -> None:
        """kill -9, and waits for the end. Harmless when it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self.wait(timeout_s=30)

    def report(self) -> str:
        """The last lines of both outputs, for a failure message."""
        errors = self.error_log.read_text(errors="replace").splitlines()[-KEPT_LINES:]
        return "\n".join(["--- stdout", *self._kept, f"--- {self.error_log}", *errors])

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed under our feet by wait()
            for raw in self._process.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                self._kept.append(line)
                self._lines.put(line)
        self._lines.put(None)


def _guard(pid: int) -> subprocess.Popen[bytes] | None:
    """A process that kills ``pid`` when we are gone: its standard input ends with us."""
    if os.name != "posix":
        return None
    # Our end of the pipe is closed in every other child, so that only our own end ends it.
    return subprocess.Popen(["/bin/sh", "-c", f"read _; kill -9 {pid}"], stdin=subprocess.PIPE)
