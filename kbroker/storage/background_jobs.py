"""Work on the logs that nobody waits for: jobs one after the other, timers, removals."""

import logging
from collections.abc import Awaitable, Callable

import anyio

from kbroker.common.files import FileSystem, remove_if_exists
from kbroker.common.offload import Offload
from kbroker.common.timer import Timer, TimerHandle
from kbroker.protocol.errors import KafkaError

Job = Callable[[], Awaitable[object]]


class BackgroundJobs:
    """Fed from plain calls, carried out by one task. A job that fails is logged."""

    def __init__(
        self, files: FileSystem, timer: Timer, offload: Offload, log: logging.Logger
    ) -> None:
        self._files = files
        self._timer = timer
        self._offload = offload
        self._log = log
        self._jobs: dict[object, Job] = {}
        self._wake: anyio.Event | None = None
        self._timers: dict[str, TimerHandle] = {}

    def enqueue(self, key: object, job: Job) -> None:
        """Do it soon; one job per key waits at a time."""
        self._jobs.setdefault(key, job)
        if self._wake is not None:
            self._wake.set()

    async def run(self) -> None:
        """Do jobs until cancelled."""
        while True:
            await self.run_pending()
            self._wake = anyio.Event()
            if not self._jobs:
                await self._wake.wait()

    async def run_pending(self) -> None:
        """Do what waits now."""
        while self._jobs:
            key = next(iter(self._jobs))
            job = self._jobs.pop(key)
            try:
                await job()
            except (KafkaError, OSError) as error:
                self._log.error("background work on the logs failed: %s", error)

    # Timers

    def once(self, name: str, delay_s: float, work: Callable[[], object]) -> None:
        """After ``delay_s``, unless it waits already under this name."""

        def run() -> None:
            del self._timers[name]
            work()

        if name not in self._timers:
            self._timers[name] = self._timer.schedule(delay_s, run)

    def every(
        self, name: str, interval_s: float, work: Callable[[], object], first: float | None = None
    ) -> None:
        """Again and again, the first time after ``first`` seconds."""

        def run() -> None:
            self._timers[name] = self._timer.schedule(interval_s, run)
            work()

        self._timers[name] = self._timer.schedule(interval_s if first is None else first, run)

    def wake(self, name: str) -> None:
        """Let what sleeps under this name go on now."""
        handle = self._timers.get(name)
        if handle is not None and (go_on := handle.callback) is not None:
            handle.cancel()
            go_on()

    async def sleep(self, name: str, delay_s: float) -> None:
        """Wait on the clock."""
        woken = anyio.Event()
        self._timers[name] = self._timer.schedule(delay_s, woken.set)
        await woken.wait()

    def cancel_timers(self) -> None:
        """Nothing that is not a job yet will be one."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    # Removing

    def remove_later(self, paths: list[str], delay_ms: int) -> None:
        """Remove files when the delay is over."""

        def remove() -> None:
            for path in paths:
                try:
                    remove_if_exists(self._files, path)
                except OSError as error:
                    self._log.error("cannot remove %s: %s", path, error)

        self._work_later(delay_ms, remove)

    def remove_directory_later(self, path: str, delay_ms: int) -> None:
        """Remove a directory and all in it when the delay is over."""

        def remove() -> None:
            try:
                self._files.remove_tree(path)
            except OSError as error:
                self._log.error("cannot remove %s: %s", path, error)

        self._work_later(delay_ms, remove)

    def _work_later(self, delay_ms: int, work: Callable[[], None]) -> None:
        async def run() -> None:
            await self._offload.run(work)

        self._timer.schedule(delay_ms / 1000, lambda: self.enqueue(run, run))
