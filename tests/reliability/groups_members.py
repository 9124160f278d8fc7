"""The member processes of a round, and the producer that feeds them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message, Producer

from tests.reliability.groups_settings import PARTITIONS
from tests.reliability.workload import PRODUCER_SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reliability.groups_history import GroupHistory

PRODUCE_EVERY_S = 0.02
LEAVE_TIMEOUT_S = 20.0


class MemberProcess:
    """One member; its lines are noted in the history by a thread."""

    def __init__(
        self, kind: str, bootstrap: str, group: str, name: str, history: GroupHistory, folder: Path
    ) -> None:
        self.kind = kind
        self.name = name
        self.is_stopped = False
        self._history = history
        self._ready = threading.Event()
        with (folder / "members.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.reliability.groups_member"),
                    *(kind, bootstrap, group, group, name),
                ],
                stdin=subprocess.PIPE,  # it ends when we do
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reader = threading.Thread(target=self._read, name=f"member-{name}", daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9; returns when the process and all it told are there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._end()

    def stop(self) -> None:
        """SIGSTOP: it lives, and does nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)
        self.is_stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self._process.pid, signal.SIGCONT)
        self.is_stopped = False

    def ask_to_leave(self) -> None:
        """SIGTERM: it leaves the group and ends."""
        if self.is_stopped:
            self.go_on()
        self._process.terminate()

    def leave(self) -> None:
        """As ``ask_to_leave``, and waits for it."""
        self.ask_to_leave()
        try:
            self._process.wait(LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._history.errors.append(f"{self.name} does not end after SIGTERM")
            self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.wait(30)
        self._reader.join(30)
        self._history.gone(self.name, time.monotonic())
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether it has told that it begins."""
        return self._ready.wait(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # the last line of one that was killed
                    self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event["e"] == "ready":
            self._ready.set()
        self._history.note(self.name, event)


class SteadyProducer:
    """Writes a record to every partition again and again, with the time at which it was made."""

    def __init__(self, bootstrap: str, topic: str, history: GroupHistory) -> None:
        self._topic = topic
        self._history = history
        self._stopping = threading.Event()
        self._client = Producer({"bootstrap.servers": bootstrap, **PRODUCER_SETTINGS})
        self._thread = threading.Thread(target=self._run, name="steady-producer")
        self._thread.start()

    def stop(self) -> None:
        """Sends no more; returns when all that was sent is answered."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            value = b"%.6f;" % time.monotonic()
            for partition in range(PARTITIONS):
                self._client.produce(
                    self._topic, value, partition=partition, on_delivery=self._delivered
                )
            self._client.poll(0)
            self._stopping.wait(PRODUCE_EVERY_S)
        if self._client.flush(60):
            self._history.errors.append("the producer could not deliver all")

    def _delivered(self, error: object, message: Message) -> None:
        offset, partition = message.offset(), message.partition()
        if error is None and offset is not None and partition is not None:
            with self._history.lock:
                self._history.produced.add((partition, offset))
        else:
            self._history.errors.append(f"producer: {error}")
