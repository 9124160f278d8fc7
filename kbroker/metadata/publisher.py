"""Keeps the image up to date and tells its subscribers, one ordered call for each change."""

import logging
from collections.abc import Callable

import anyio

from kbroker.metadata.delta import ImageBuilder, MetadataDelta, difference
from kbroker.metadata.image import EMPTY_IMAGE, MetadataImage
from kbroker.metadata.keys import Keys
from kbroker.metadata.store import Compacted, MetadataStore

Subscriber = Callable[[MetadataDelta, MetadataImage], None]


class MetadataPublisher:
    """Lists the store once, then watches it. ``image`` is always a whole revision."""

    def __init__(self, store: MetadataStore, keys: Keys, log: logging.Logger) -> None:
        self._store = store
        self._keys = keys
        self._log = log
        self._builder = ImageBuilder(keys, EMPTY_IMAGE)
        self._subscribers: list[Subscriber] = []
        self._published: anyio.Event | None = None
        self.image = EMPTY_IMAGE

    async def start(self) -> None:
        """Read everything. From here on ``run`` must run for changes to arrive."""
        await self._load()

    async def _load(self) -> None:
        revision, entries = await self._store.list(self._keys.prefix)
        found = [entry async for entry in entries]
        old = self.image
        self._builder = ImageBuilder(self._keys, EMPTY_IMAGE)
        delta = self._builder.load(found, revision)
        if old is not EMPTY_IMAGE:
            delta = difference(old, self._builder.image)
        self._publish(delta)

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                batches = self._store.watch(self._keys.prefix, self.image.revision + 1)
                async for batch in batches:
                    delta = self._builder.apply(batch.events, batch.revision)
                    self._publish(delta)
            except Compacted as gap:
                self._log.warning("metadata: fell behind (%s), reading everything again", gap)
                await self._load()

    def _publish(self, delta: MetadataDelta) -> None:
        self.image = self._builder.image
        for subscriber in self._subscribers:
            self._call(subscriber, delta)
        if self._published is not None:
            self._published.set()
            self._published = None

    def _call(self, subscriber: Subscriber, delta: MetadataDelta) -> None:
        try:
            subscriber(delta, self.image)
        except Exception:
            # The others must see the change all the same: they answer for other partitions.
            self._log.exception(
                "metadata: %r failed at revision %d", subscriber, self.image.revision
            )

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call with everything as new now, then with each change, after earlier subscribers."""
        self._subscribers.append(subscriber)
        self._call(subscriber, difference(EMPTY_IMAGE, self.image))

    async def wait_for(self, revision: int) -> MetadataImage:
        """The image, once it is at ``revision`` or later and every subscriber has seen it."""
        while self.image.revision < revision:
            if self._published is None:
                self._published = anyio.Event()
            await self._published.wait()
        return self.image
