"""Producer ids, unique for ever: handed out from blocks that the store has given to this broker."""

from collections.abc import Coroutine
from typing import Any

import anyio

from kbroker.metadata.controller import Controller


class ProducerIdManager:
    """The rest of the current block. A restart forgets it: ids are never used twice, only lost."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._next = 0
        self._end = 0
        self._turn = anyio.Lock()

    def generate(self) -> int | Coroutine[Any, Any, int]:
        """A producer id; a coroutine that gives one when a new block must be fetched first."""
        if self._next < self._end:
            return self._take()
        return self._fetch_block()

    def _take(self) -> int:
        producer_id = self._next
        self._next += 1
        return producer_id

    async def _fetch_block(self) -> int:
        async with self._turn:
            if self._next >= self._end:  # else another waiter has fetched one meanwhile
                first, count = await self._controller.allocate_producer_ids()
                self._next, self._end = first, first + count
            return self._take()
