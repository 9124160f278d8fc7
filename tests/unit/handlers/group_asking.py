"""A client of a broker with a group coordinator whose log is in memory."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.timer import Timer
from kbroker.coordinator.group.group_coordinator import GroupCoordinator
from kbroker.metadata.topic_control import NewTopic
from tests.unit.coordinator.memory_log import MemoryLog
from tests.unit.handlers.asking import Asker, asking


class GroupAsker:
    """``ask`` of an ``Asker``, and topics to commit to."""

    def __init__(self, asker: Asker, log: MemoryLog, timer: Timer, clock: ManualClock) -> None:
        self.asker = asker
        self.log = log
        self.timer = timer
        self.clock = clock
        self.services = asker.services

    async def ask(self, key: int, version: int, request: Any) -> Any:
        return await self.asker.ask(key, version, request)

    async def create(self, name: str, partitions: int = 1) -> bytes:
        """Create a topic; its id."""
        (result,) = await self.services.controller.create_topics(
            [NewTopic(name=name, num_partitions=partitions, replication_factor=1)]
        )
        assert result.error is None
        topic = self.services.metadata.image.topics.get(name)
        assert topic is not None
        return topic.topic_id

    async def ready(self) -> None:
        """Have the offsets topic."""
        await self.services.controller.ensure_topics(["__consumer_offsets"])


@asynccontextmanager
async def group_asking(settings: Mapping[str, str] | None = None) -> AsyncIterator[GroupAsker]:
    """A client of a single running broker with groups; timers run by hand."""
    async with asking(settings) as asker:
        clock = ManualClock()
        timer = Timer(clock)
        log = MemoryLog()
        coordinator = GroupCoordinator(
            node_id=asker.services.node_id,
            config=asker.services.config,
            clock=clock,
            timer=timer,
            entropy=SeededEntropy(3),
            writer=log,
            loader=log,
            log=logging.getLogger("test"),
        )
        asker.have(coordinators=SimpleNamespace(group=coordinator))
        asker.services.metadata.subscribe(coordinator.apply)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(coordinator.run)
            yield GroupAsker(asker, log, timer, clock)
            tasks.cancel_scope.cancel()
