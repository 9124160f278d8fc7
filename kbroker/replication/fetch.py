"""Fetch: read what is there, or wait for more. Imported at the first Fetch request."""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.replication.delayed_fetch import DelayedFetch
from kbroker.replication.log_read import FetchParams, LogRead

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from kbroker.replication.cached_partition import CachedPartition
    from kbroker.replication.fetch_session import Answer
    from kbroker.replication.replica_manager import ReplicaManager

READ_AT_ONCE: Final = 64
"""Partitions that are read before other connections get their turn."""


def fetch_messages(
    manager: "ReplicaManager", params: FetchParams, asked: "Sequence[CachedPartition]"
) -> "list[Answer] | Coroutine[Any, Any, list[Answer]]":
    """What the partitions hold, in their order; a coroutine when the request has to wait.

    Waits until ``min_bytes`` are there, at most ``max_wait_ms``; not at all when a partition has an
    error or a diverging epoch to tell of.
    """
    if len(asked) > READ_AT_ONCE:
        return _fetch_giving_way(manager, params, asked)
    read = LogRead(manager, params, first_pass=True)
    for one in asked:
        read.read(one)
    if _is_enough(read, params):
        return read.answers
    return _wait_and_read(manager, params, asked)


def _is_enough(read: LogRead, params: FetchParams) -> bool:
    return read.size >= params.min_bytes or params.max_wait_ms <= 0 or read.must_answer


async def _fetch_giving_way(
    manager: "ReplicaManager", params: FetchParams, asked: "Sequence[CachedPartition]"
) -> "list[Answer]":
    read = await _read_giving_way(manager, params, asked, first_pass=True)
    if _is_enough(read, params):
        return read.answers
    return await _wait_and_read(manager, params, asked)


async def _wait_and_read(
    manager: "ReplicaManager", params: FetchParams, asked: "Sequence[CachedPartition]"
) -> "list[Answer]":
    operation = DelayedFetch(manager, params, asked)
    await manager.delayed.fetch.wait(operation, operation.keys, params.max_wait_ms / 1000)
    return (await _read_giving_way(manager, params, asked, first_pass=False)).answers


async def _read_giving_way(
    manager: "ReplicaManager",
    params: FetchParams,
    asked: "Sequence[CachedPartition]",
    *,
    first_pass: bool,
) -> LogRead:
    read = LogRead(manager, params, first_pass=first_pass)
    for number, one in enumerate(asked, 1):
        read.read(one)
        if number % READ_AT_ONCE == 0:
            await checkpoint()
    return read
