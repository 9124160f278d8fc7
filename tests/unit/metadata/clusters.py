"""A cluster's metadata on a memory store, as the composition root puts it together."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from kbroker.common.entropy import SeededEntropy
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.metadata.controller import Controller
from kbroker.metadata.image import MetadataImage
from kbroker.metadata.keys import Keys
from kbroker.metadata.memory_store import MemoryStore
from kbroker.metadata.publisher import MetadataPublisher
from kbroker.metadata.store import MetadataStore

LOG = logging.getLogger("tests.metadata")
LISTENER = "PLAINTEXT"


@dataclass
class Node:
    """One broker's share of the metadata machinery."""

    node_id: int
    store: MetadataStore
    publisher: MetadataPublisher
    controller: Controller
    config: ConfigHolder

    @property
    def image(self) -> MetadataImage:
        return self.publisher.image

    async def settle(self) -> None:
        """Until nothing is left to do."""
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def running_node(
    store: MetadataStore | None = None,
    *,
    node_id: int = 1,
    settings: Mapping[str, str] | None = None,
    clean_shutdown: bool = True,
    rack: str | None = None,
) -> AsyncIterator[Node]:
    """A registered, admitted broker, following the store; stopped in order at the end."""
    store = store if store is not None else MemoryStore()
    keys = Keys()
    config = ConfigHolder(BrokerConfig.from_properties(dict(settings or {})))
    publisher = MetadataPublisher(store, keys, LOG)
    await publisher.start()
    controller = Controller(
        node_id=node_id,
        store=store,
        keys=keys,
        publisher=publisher,
        config=config,
        entropy=SeededEntropy(node_id),
        log=LOG,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await controller.start()
        tasks.start_soon(controller.run)
        await controller.register_broker(
            endpoints={LISTENER: (f"host{node_id}", 9090 + node_id)},
            rack=rack,
            clean_shutdown=clean_shutdown,
        )
        yield Node(node_id, store, publisher, controller, config)
        await controller.stop()
        tasks.cancel_scope.cancel()
