"""A broker in this process: how long ``async with Broker(...)`` takes to enter and to leave."""

from __future__ import annotations

import asyncio
import time

from tests.peers import probe


def start_and_stop_ms(count: int) -> list[tuple[float, float]]:
    """(milliseconds to enter, to leave) of ``count`` brokers, one after the other.

    Each answers one ApiVersions request in between. The first pays for the imports.
    """
    return asyncio.run(_measure(count))


async def _measure(count: int) -> list[tuple[float, float]]:
    from kbroker import Broker

    measured = []
    for _ in range(count):
        broker = Broker()
        started = time.perf_counter()
        await broker.__aenter__()
        entered = time.perf_counter()
        try:
            await asyncio.to_thread(probe.ask_api_versions, broker.bootstrap_servers, timeout_s=10)
        finally:
            leaving = time.perf_counter()
            await broker.__aexit__(None, None, None)
            left = time.perf_counter()
        measured.append(((entered - started) * 1000, (left - leaving) * 1000))
    return measured
