"""Threads, and what stands for them in tests."""

import threading

import anyio
import pytest

from kbroker.common.offload import InlineOffload, ThreadOffload

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(params=[ThreadOffload, InlineOffload])
def offload(request):
    return request.param()


async def test_the_value_comes_back(offload):
    assert await offload.run(lambda: 6 * 7) == 42


async def test_the_exception_comes_back(offload):
    with pytest.raises(ZeroDivisionError):
        await offload.run(lambda: 1 / 0)


async def test_only_threads_are_threads():
    here = threading.get_ident()
    assert await InlineOffload().run(threading.get_ident) == here
    assert await ThreadOffload().run(threading.get_ident) != here


async def test_others_run_meanwhile(offload):
    ran = []

    async def other():
        ran.append("other")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await offload.run(lambda: ran.append("work"))
        await anyio.lowlevel.checkpoint()
    assert sorted(ran) == ["other", "work"]


async def test_no_more_threads_than_allowed():
    offload = ThreadOffload(threads=2)
    lock = threading.Lock()
    running, most = 0, 0
    both = threading.Barrier(2, timeout=10)

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(offload.run, work)
    assert most == 2


async def test_work_that_began_ends_before_a_cancelled_wait_does():
    offload = ThreadOffload()
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        may_end.wait(10)
        ended.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(offload.run, work)
        while not begun.is_set():
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
        may_end.set()
    assert ended == [True]
