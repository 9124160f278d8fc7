"""The controller: the one broker that changes topics, partitions' leaders and settings.

Every broker has one of these; it acts only while it holds the ``controller`` key, and every write
is conditional on that key's create revision, so a controller that was replaced cannot do harm.
Verbs run one at a time. When a verb returns, its change is durable, is in the publisher's image,
and every subscriber has seen it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from kbroker.common.entropy import Entropy
from kbroker.config.broker_config import ConfigHolder
from kbroker.config.topic_config import MIN_INSYNC_REPLICAS
from kbroker.metadata.delta import MetadataDelta
from kbroker.metadata.elections import after_admission, after_fencing
from kbroker.metadata.image import MetadataImage, TopicImage
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.publisher import MetadataPublisher
from kbroker.metadata.store import (
    Ambiguous,
    CreateRevision,
    Entry,
    MetadataStore,
    ModRevision,
    Operation,
    Put,
    Session,
    StoreError,
    absent,
)
from kbroker.metadata.topic_ids import new_topic_id
from kbroker.metadata.topic_names import CLUSTER_METADATA
from kbroker.metadata.values import (
    MetaValue,
    NumberValue,
    PartitionValue,
    RegistrationValue,
    encode_config,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from kbroker.metadata.config_control import ConfigChange
    from kbroker.metadata.topic_control import (
        CreatedTopic,
        NewPartitions,
        NewTopic,
        TopicControl,
        TopicWrite,
    )

SESSION_TTL_S: Final = 9.0
PRODUCER_ID_BLOCK_SIZE: Final = 1000
_NOT_CONTROLLER: Final = -1


class Controller:
    """Verbs are coroutines; ``auto_create`` only asks, ``run`` does."""

    def __init__(
        self,
        *,
        node_id: int,
        store: MetadataStore,
        keys: Keys,
        publisher: MetadataPublisher,
        config: ConfigHolder,
        entropy: Entropy,
        log: logging.Logger,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._keys = keys
        self._publisher = publisher
        self._config = config
        self._entropy = entropy
        self._log = log
        self._topic_control: TopicControl | None = None
        self._turn = anyio.Lock()
        self._session: Session | None = None
        self._epoch = _NOT_CONTROLLER
        self._written = 0  # revision of our last write: the image is at least there
        self._wake = anyio.Event()
        self._wanted_topics: dict[str, None] = {}  # in the order they were asked for
        self._returned: set[int] = set()  # brokers registered and not yet admitted
        self._gone: set[int] = set()  # brokers whose registration has ended
        self._failed_replicas: set[tuple[str, int]] = set()  # of this broker, by its disks
        publisher.subscribe(self._on_metadata)

    @property
    def is_active(self) -> bool:
        """Whether this broker holds the controller key, as far as it knows."""
        return self._epoch != _NOT_CONTROLLER

    # -- life

    async def start(self) -> None:
        """Open the session and become the controller, if there is none.

        The very first start also names the cluster. The publisher must be following the store.
        """
        self._session = await self._store.session(SESSION_TTL_S)
        await self._name_cluster()
        await self._campaign()

    async def _name_cluster(self) -> None:
        if self._publisher.image.cluster_id:
            return
        cluster_id = _cluster_id_text(new_topic_id(self._entropy))
        value = MetaValue(cluster_id=cluster_id, incarnation=self._entropy.uuid_bytes())
        # Eligible leader replicas (KIP-966) rest on it: Kafka too fixes it for the whole cluster.
        min_isr = {MIN_INSYNC_REPLICAS: str(self._config.current.min_insync_replicas)}
        cluster_settings = self._keys.config(ConfigResourceType.BROKER, "")
        meta = self._keys.meta
        await self._store.txn(
            [absent(meta)],
            [Put(meta, value.encode()), Put(cluster_settings, encode_config(min_isr))],
        )
        while not self._publisher.image.cluster_id:  # named by us, or by another one just before
            await self._publisher.wait_for(self._publisher.image.revision + 1)

    async def _campaign(self) -> None:
        assert self._session is not None, "start opens the session"
        key = self._keys.controller
        value = NumberValue(number=self._node_id).encode()
        result = await self._store.txn([absent(key)], [Put(key, value, self._session.id)])
        if result.succeeded:
            self._epoch = result.revision
            self._log.info("controller: node %d, epoch %d", self._node_id, self._epoch)
            await self._publisher.wait_for(result.revision)

    async def register_broker(
        self,
        *,
        endpoints: Mapping[str, tuple[str, int]],
        rack: str | None = None,
        clean_shutdown: bool,
    ) -> int:
        """Register this broker under its session; returns its epoch once it is admitted.

        ``endpoints``: listener name -> (host, port). ``clean_shutdown``: the data directory proves
        that the last process on it stopped in order; otherwise its replicas may lack records, and
        the partitions that it led begin a new leader epoch.
        Raises KafkaError(DUPLICATE_BROKER_REGISTRATION) when another live process has the node id.
        """
        assert self._session is not None, "start comes first"
        clean_epoch = await self._last_epoch(self._node_id) if clean_shutdown else -1
        key = self._keys.registration(self._node_id)
        value = RegistrationValue(
            incarnation=self._entropy.uuid_bytes(),
            endpoints=endpoints,
            rack=rack,
            clean_epoch=clean_epoch,
            session_id=self._session.id,
        )
        put = Put(key, value.encode(), self._session.id)
        result = await self._store.txn([absent(key)], [put])
        if not result.succeeded:
            raise KafkaError(
                ErrorCode.DUPLICATE_BROKER_REGISTRATION,
                f"Another broker is registered with that broker id: {self._node_id}",
            )
        await self._publisher.wait_for(result.revision)
        if self.is_active:
            await self._admit_returned()
        while True:
            broker = self._publisher.image.brokers.get(self._node_id)
            if broker is None or not broker.fenced:
                return result.revision
            await self._publisher.wait_for(self._publisher.image.revision + 1)

    async def run(self) -> None:
        """Do what was asked in passing and what others' coming and going needs, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            try:
                await self._do_what_is_due()
            except (KafkaError, StoreError) as error:
                # Whoever asked asks again; the next change wakes us for what is left.
                self._log.warning("controller: could not do what was due: %s", error)

    async def _do_what_is_due(self) -> None:
        if self._session is not None and not self.is_active:
            await self._campaign()
        if self.is_active:
            await self._fence_gone()
            await self._admit_returned()
            await self._unseat_failed_replicas()
        if self._wanted_topics:
            names = list(self._wanted_topics)
            try:
                await self.ensure_topics(names)
            finally:
                for name in names:
                    del self._wanted_topics[name]

    async def stop(self) -> None:
        """End the session: this broker is neither registered nor controller any more."""
        session, self._session = self._session, None  # so that run does not campaign again
        self._epoch = _NOT_CONTROLLER
        if session is not None:
            await session.close()

    def _on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if self._topic_control is not None:
            self._topic_control.on_metadata(delta)
        for node_id in delta.changed_brokers:
            broker = image.brokers.get(node_id)
            if broker is None:
                self._gone.add(node_id)
                self._returned.discard(node_id)
            elif broker.fenced:
                self._returned.add(node_id)
            self._wake.set()
        if self.is_active and image.revision >= self._epoch != image.controller_epoch:
            self._epoch = _NOT_CONTROLLER  # our key is gone or another's: what we wrote last stands
        if image.controller_id == _NOT_CONTROLLER:
            self._wake.set()

    # -- brokers

    async def _last_epoch(self, node_id: int) -> int:
        entry = await self._get(self._keys.last_epoch(node_id))
        return NumberValue.decode(entry.value).number if entry is not None else -1

    async def _get(self, key: bytes) -> Entry | None:
        _, entries = await self._store.list(key)
        async for entry in entries:
            if entry.key == key:
                return entry
        return None

    async def _admit_returned(self) -> None:
        while self._returned:
            node_id = self._returned.pop()
            async with self._turn:
                await self._admit(node_id)

    async def _admit(self, node_id: int) -> None:
        """Let a registered broker act, after its replicas have lost what it cannot prove."""
        entry = await self._get(self._keys.registration(node_id))
        broker = self._publisher.image.brokers.get(node_id)
        if entry is None or broker is None or not broker.fenced:
            return
        value = RegistrationValue.decode(entry.value)
        epoch = entry.create_revision
        last = await self._last_epoch(node_id)
        clean = last == -1 or value.clean_epoch == last
        image = self._publisher.image
        live = _live(image) | {node_id}
        changed = _changed_partitions(
            image, lambda partition: after_admission(partition, node_id, live, clean=clean)
        )
        await self._write_partitions(changed)
        admitted = NumberValue(number=epoch).encode()
        operations: list[Operation] = [
            # Under the broker's session: the admission vanishes together with the registration.
            Put(self._keys.admission(node_id), admitted, value.session_id),
            Put(self._keys.last_epoch(node_id), admitted),
        ]
        guard = CreateRevision(self._keys.registration(node_id), epoch)
        await self._write(operations, [guard])

    async def _fence_gone(self) -> None:
        while self._gone:
            node_id = self._gone.pop()
            async with self._turn:
                image = self._publisher.image
                if node_id in image.brokers:
                    continue
                live = _live(image)
                changed = _changed_partitions(
                    image, partial(after_fencing, node_id=node_id, live=live)
                )
                await self._write_partitions(changed)

    def report_offline(self, partitions: Iterable[tuple[str, int]]) -> None:
        """This broker's disk failed its replicas of these (topic, partition): let others lead."""
        self._failed_replicas.update(partitions)
        self._wake.set()

    async def _unseat_failed_replicas(self) -> None:
        while self._failed_replicas:
            failed, self._failed_replicas = self._failed_replicas, set()
            async with self._turn:
                image = self._publisher.image
                live = _live(image) - {self._node_id}
                changed = []
                for name, index in failed:
                    topic = image.topics.get(name)
                    if topic is not None and index < len(topic.partitions):
                        new = after_fencing(topic.partitions[index], self._node_id, live)
                        if new is not None:
                            changed.append((topic, index, new))
                await self._write_partitions(changed)

    async def _write_partitions(
        self, changed: Sequence[tuple[TopicImage, int, PartitionValue]]
    ) -> None:
        limit = self._store.max_operations
        encoded: dict[int, bytes] = {}  # by identity: many are one object
        for _, _, partition in changed:
            if id(partition) not in encoded:
                encoded[id(partition)] = partition.encode()
        for start in range(0, len(changed), limit):
            puts: list[Operation] = [
                Put(self._keys.partition(topic.topic_id, index), encoded[id(partition)])
                for topic, index, partition in changed[start : start + limit]
            ]
            await self._write(puts)

    # -- topics

    def _topics(self) -> "TopicControl":
        """Made when it is first needed: a broker that starts does without the module."""
        if self._topic_control is None:
            from kbroker.metadata.topic_control import TopicControl

            self._topic_control = TopicControl(
                self._keys, self._config, self._entropy, self._publisher.image
            )
        return self._topic_control

    async def create_topics(
        self,
        topics: "Sequence[NewTopic]",
        *,
        validate_only: bool = False,
        timeout_ms: int = 60_000,
    ) -> "list[CreatedTopic]":
        """One result for each topic, in order; names given twice get one result at the end.

        Raises KafkaError when nothing was tried: NOT_CONTROLLER, POLICY_VIOLATION for too many
        partitions, REQUEST_TIMED_OUT for a timeout that is over before it begins.
        """
        counts: dict[str, int] = {}
        for topic in topics:
            counts[topic.name] = counts.get(topic.name, 0) + 1
        wanted = [t for t in topics if counts[t.name] == 1 and t.name != CLUSTER_METADATA]
        results: list[CreatedTopic] = []
        if wanted:
            _check_timeout(timeout_ms)
            async with self._turn:
                image = await self._current_image()
                writes, results = self._topics().plan_creation(image, wanted)
                if not validate_only:
                    await self._write_topics(writes)
        for name, count in counts.items():
            if count > 1:
                results.append(_refused(name, "Duplicate topic name."))
        if counts.get(CLUSTER_METADATA) == 1:
            text = f"Creation of internal topic {CLUSTER_METADATA} is prohibited."
            results.append(_refused(CLUSTER_METADATA, text))
        return results

    async def ensure_topics(self, names: Iterable[str]) -> dict[str, KafkaError]:
        """Create those that do not exist, as automatic creation does; returns what went wrong."""
        from kbroker.metadata.internal_topics import automatic_topic

        topics = self._publisher.image.topics
        config = self._config.current
        missing = [automatic_topic(n, config) for n in dict.fromkeys(names) if not topics.get(n)]
        problems: dict[str, KafkaError] = {}
        for result in await self.create_topics(missing):
            error = result.error
            if error is not None and error.error_code != ErrorCode.TOPIC_ALREADY_EXISTS:
                problems[result.name] = error
                self._log.warning("topic %s was not created: %s", result.name, error)
        return problems

    def auto_create(self, names: Iterable[str]) -> None:
        """Have ``run`` create the topics soon. Names that are on their way are ignored."""
        for name in names:
            if name not in self._wanted_topics:
                self._wanted_topics[name] = None
                self._wake.set()

    def is_being_created(self, name: str) -> bool:
        """Whether ``auto_create`` was asked for the topic and is not done with it."""
        return name in self._wanted_topics

    async def delete_topics(
        self, topics: Iterable[TopicImage], *, timeout_ms: int = 60_000
    ) -> set[bytes]:
        """Delete; returns the ids of those that were there. Raises KafkaError as create_topics."""
        wanted = list(topics)
        if not wanted:
            return set()
        _check_timeout(timeout_ms)
        async with self._turn:
            by_id = (await self._current_image()).topics.by_id
            present = [by_id[topic.topic_id] for topic in wanted if topic.topic_id in by_id]
            await self._write_topics(self._topics().plan_deletion(present))
        return {topic.topic_id for topic in present}

    async def create_partitions(
        self,
        requests: "Sequence[NewPartitions]",
        *,
        validate_only: bool = False,
        timeout_ms: int = 60_000,
    ) -> list[tuple[str, KafkaError | None]]:
        """(name, error) for each topic: first names given twice, then the others in order.

        Raises KafkaError as create_topics.
        """
        counts: dict[str, int] = {}
        for request in requests:
            counts[request.name] = counts.get(request.name, 0) + 1
        twice = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
        results: list[tuple[str, KafkaError | None]] = [
            (name, twice) for name, count in counts.items() if count > 1
        ]
        wanted = [request for request in requests if counts[request.name] == 1]
        if wanted:
            _check_timeout(timeout_ms)
            async with self._turn:
                image = await self._current_image()
                writes, outcomes = self._topics().plan_partitions(image, wanted)
                if not validate_only:
                    await self._write_topics(writes)
            results += outcomes
        return results

    # -- settings

    async def alter_configs(
        self, changes: "Sequence[ConfigChange]", *, validate_only: bool = False
    ) -> list[KafkaError | None]:
        """What went wrong with each resource, in order. Resources differ from each other.

        Raises KafkaError(NOT_CONTROLLER).
        """
        if not changes:
            return []
        from kbroker.metadata.config_control import ConfigControl

        async with self._turn:
            control = ConfigControl(self._keys, self._config)
            writes, results = control.plan(await self._current_image(), changes)
            if not validate_only:
                await self._write_topics(writes)
        return results

    # -- producer ids

    async def allocate_producer_ids(self, count: int = PRODUCER_ID_BLOCK_SIZE) -> tuple[int, int]:
        """(first, count) of producer ids that nobody was given before or ever will be again."""
        key = self._keys.producer_ids
        while True:
            entry = await self._get(key)
            first = NumberValue.decode(entry.value).number if entry is not None else 0
            seen = ModRevision(key, entry.mod_revision if entry is not None else 0)
            put = Put(key, NumberValue(number=first + count).encode())
            try:
                result = await self._store.txn([seen], [put])
            except Ambiguous:
                continue  # if it was applied, that block is lost, which is harmless
            if result.succeeded:
                return first, count

    # -- writing

    async def _current_image(self) -> MetadataImage:
        """The image with all that we wrote. Raises KafkaError(NOT_CONTROLLER) for who is not."""
        if not self.is_active:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        return await self._publisher.wait_for(self._written)

    async def _write_topics(self, writes: "Sequence[TopicWrite]") -> None:
        """All in one transaction, or in as few as the store's limit allows."""
        everything = [op for write in writes for op in (*write.early, *write.final)]
        limit = self._store.max_operations
        if len(everything) <= limit:
            await self._write(everything)
            return
        early = [op for write in writes for op in write.early]
        for start in range(0, len(early), limit):
            await self._write(early[start : start + limit])
        batch: list[Operation] = []
        for write in writes:
            if len(batch) + len(write.final) > limit:
                await self._write(batch)
                batch = []
            batch += write.final
        await self._write(batch)

    async def _write(
        self, operations: Sequence[Operation], conditions: Sequence[CreateRevision] = ()
    ) -> None:
        """Apply, as long as we are the controller; returns when the image has it."""
        if not operations:
            return
        guard = CreateRevision(self._keys.controller, self._epoch)
        with anyio.CancelScope(shield=True):  # a change that has begun ends
            result = await self._store.txn([guard, *conditions], operations)
            if result.succeeded:
                self._written = result.revision
        if not result.succeeded:
            entry = await self._get(self._keys.controller)
            if entry is None or entry.create_revision != self._epoch:
                self._epoch = _NOT_CONTROLLER
                self._wake.set()
                raise KafkaError(ErrorCode.NOT_CONTROLLER)
            return  # what the other condition spoke of is gone: there is nothing to do
        await self._publisher.wait_for(result.revision)


def _changed_partitions(
    image: MetadataImage, change: Callable[[PartitionValue], PartitionValue | None]
) -> list[tuple[TopicImage, int, PartitionValue]]:
    """What ``change`` makes of the partitions, without those it leaves alone. It is asked once for
    all that are one object, as those are that were made and led together."""
    outcomes: dict[int, PartitionValue | None] = {}
    changed = []
    for topic in image.topics.by_id.values():
        for index, partition in enumerate(topic.partitions):
            if id(partition) not in outcomes:
                outcomes[id(partition)] = change(partition)
            new = outcomes[id(partition)]
            if new is not None:
                changed.append((topic, index, new))
    return changed


def _live(image: MetadataImage) -> set[int]:
    return {node for node, broker in image.brokers.items() if not broker.fenced}


def _check_timeout(timeout_ms: int) -> None:
    """Kafka gives up a request whose time is over when its turn comes."""
    if timeout_ms <= 0:
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)


def _refused(name: str, text: str) -> "CreatedTopic":
    from kbroker.metadata.topic_control import CreatedTopic

    return CreatedTopic(name=name, error=KafkaError(ErrorCode.INVALID_REQUEST, text))


def _cluster_id_text(cluster_id: bytes) -> str:
    """16 bytes as Kafka shows an id: base64url without padding."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(cluster_id).decode().rstrip("=")
