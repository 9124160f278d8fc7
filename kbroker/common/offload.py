"""The only way to a thread: for work that releases the GIL and takes more than about 0.5 ms."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")


class Offload(Protocol):
    """Runs a plain function where it does not stall the event loop."""

    async def run(self, work: Callable[[], T]) -> T:
        """The function's value, or its exception. Once begun the work always ends."""
        ...


class ThreadOffload:
    """A bounded number of worker threads, its own (not the process's default limiter)."""

    __slots__ = ("_limiter", "_threads")

    def __init__(self, threads: int = 8) -> None:
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        if self._limiter is None:  # a limiter belongs to the running loop
            self._limiter = anyio.CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class InlineOffload:
    """Runs at once, for simulation and unit tests; gives way once, so callers are really async."""

    __slots__ = ()

    async def run(self, work: Callable[[], T]) -> T:
        await anyio.lowlevel.checkpoint()
        return work()
