"""Producer ids: each once, a block at a time."""

from collections.abc import Coroutine
from typing import Any

import anyio
import pytest

from kbroker.metadata.producer_ids import ProducerIdManager
from tests.unit.metadata.clusters import running_node

pytestmark = pytest.mark.anyio


async def resolve(producer_id: int | Coroutine[Any, Any, int]) -> int:
    return producer_id if isinstance(producer_id, int) else await producer_id


async def test_ids_come_from_blocks_without_waiting_inside_one() -> None:
    async with running_node() as node:
        ids = ProducerIdManager(node.controller)
        other = ProducerIdManager(node.controller)
        assert await resolve(ids.generate()) == 0
        assert ids.generate() == 1
        assert await resolve(other.generate()) == 1000
        for expected in range(2, 1000):
            assert ids.generate() == expected
        assert await resolve(ids.generate()) == 2000


async def test_many_waiters_share_one_block() -> None:
    async with running_node() as node:
        ids = ProducerIdManager(node.controller)
        given: list[int] = []

        async def take() -> None:
            given.append(await resolve(ids.generate()))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(take)
        assert sorted(given) == [0, 1, 2, 3, 4]
