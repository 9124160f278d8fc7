"""Brokers in this process: how long ``async with Broker(...)`` takes to enter and to leave."""

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


def many_at_once_s(count: int) -> float:
    """Seconds to start ``count`` brokers that are all up together, and to close them all.

    Another one has been up and down before, so that the imports are not in it.
    """
    return asyncio.run(_measure_many(count))


async def _measure_many(count: int) -> float:
    from kbroker import Broker

    async with Broker():
        pass
    started = time.perf_counter()
    brokers = [Broker() for _ in range(count)]
    for broker in brokers:
        await broker.__aenter__()
    addresses = {broker.bootstrap_servers for broker in brokers}
    for broker in brokers:
        await broker.__aexit__(None, None, None)
    seconds = time.perf_counter() - started
    if len(addresses) != count:
        raise RuntimeError(f"{len(addresses)} addresses for {count} brokers")
    return seconds
