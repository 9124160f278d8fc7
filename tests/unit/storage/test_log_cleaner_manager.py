"""The cleaner's settings while it runs; what it cleans is tested with the log manager."""

import logging
from typing import Any

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_cleaner_manager import LogCleanerManager

LOG = logging.getLogger("tests.cleaner")
DEDUPE = 1 << 20


@pytest.fixture
def woken() -> list[bool]:
    return []


@pytest.fixture
def manager(woken: list[bool]) -> LogCleanerManager:
    env: Any = None
    return LogCleanerManager(
        env,
        InlineOffload(),
        LOG,
        backoff_s=15.0,
        dedupe_buffer_size=DEDUPE,
        throttle=IoThrottle(ManualClock(), Timer(ManualClock()), 0),
        logs=lambda: [],
        directory_of=lambda topic, partition: None,
        wake=lambda: woken.append(True),
    )


def test_a_changed_setting_ends_the_pause(manager: LogCleanerManager, woken: list[bool]) -> None:
    manager.set_dynamic(backoff_s=15.0, dedupe_buffer_size=DEDUPE)
    assert woken == []
    manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE)
    assert (manager.backoff_s, woken) == (0.001, [True])
    before = manager.make_cleaner()
    manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE * 2)
    assert woken == [True, True]
    assert manager.make_cleaner()._max_keys > before._max_keys


@pytest.mark.anyio
async def test_who_sleeps_can_be_woken() -> None:
    timer = Timer(ManualClock())
    jobs = BackgroundJobs(MemoryFileSystem(), timer, InlineOffload(), LOG)
    jobs.wake("nobody")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.sleep, "cleaner", 1e6)
        await anyio.wait_all_tasks_blocked()
        jobs.wake("cleaner")
    assert timer.pending == 0
    jobs.wake("cleaner")  # long awake
