"""Images from events: whole revisions, shared parts, ordered calls to subscribers."""

import logging

import anyio
import pytest

from kbroker.metadata.delta import ImageBuilder, MetadataDelta, difference
from kbroker.metadata.image import EMPTY_IMAGE, MetadataImage
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.memory_store import MemoryStore
from kbroker.metadata.publisher import MetadataPublisher
from kbroker.metadata.store import Delete, DeletePrefix, Operation, Put
from kbroker.metadata.values import (
    BadValue,
    MetaValue,
    NumberValue,
    PartitionValue,
    RegistrationValue,
    TopicValue,
    encode_config,
)
from kbroker.metadata.watch_history import WatchHistory
from tests.unit.metadata.clusters import LOG

pytestmark = pytest.mark.anyio
KEYS = Keys()
A, B = bytes(15) + b"a", bytes(15) + b"b"


def partition_put(topic_id: bytes, index: int, **changes: int) -> Put:
    value = PartitionValue(
        leader=changes.get("leader", 1),
        leader_epoch=changes.get("leader_epoch", 0),
        replicas=(1,),
        isr=(1,),
    )
    return Put(KEYS.partition(topic_id, index), value.encode())


def topic_put(topic_id: bytes, name: str, partitions: int) -> Put:
    return Put(KEYS.topic_id(topic_id), TopicValue(name=name, partitions=partitions).encode())


def creation(topic_id: bytes, name: str, partitions: int = 1) -> list[Operation]:
    puts: list[Operation] = [partition_put(topic_id, index) for index in range(partitions)]
    return [*puts, topic_put(topic_id, name, partitions)]


def deletion(topic_id: bytes) -> list[Operation]:
    return [Delete(KEYS.topic_id(topic_id)), DeletePrefix(KEYS.partitions(topic_id))]


class Follower:
    """A publisher and what its subscribers were told."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.publisher = MetadataPublisher(store, KEYS, LOG)
        self.told: list[tuple[MetadataDelta, MetadataImage]] = []
        self._builder = ImageBuilder(KEYS, EMPTY_IMAGE)

    def on_change(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.told.append((delta, image))

    async def apply(self, *operations: Operation) -> MetadataDelta:
        """Write at one revision; returns what the subscriber was told of it."""
        seen = len(self.told)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.publisher.run)
            result = await self.store.txn([], operations)
            image = await self.publisher.wait_for(result.revision)
            tasks.cancel_scope.cancel()
        assert len(self.told) == seen + 1
        assert self.told[-1][1] is image is self.publisher.image
        assert image.revision == result.revision
        return self.told[-1][0]


@pytest.fixture
async def follower() -> Follower:
    made = Follower(MemoryStore())
    await made.publisher.start()
    made.publisher.subscribe(made.on_change)
    return made


async def test_a_created_topic(follower: Follower) -> None:
    delta = await follower.apply(*creation(A, "a", 3))
    (topic,) = delta.created_topics
    assert (topic.name, topic.topic_id, len(topic.partitions)) == ("a", A, 3)
    assert not delta.changed_partitions
    topics = follower.publisher.image.topics
    assert topics.get("a") is topic is topics.get_by_id(A)
    assert len(topics) == 1
    assert [partition.partition_epoch for partition in topic.partitions] == [1, 1, 1]
    assert not topic.is_internal


async def test_an_internal_topic(follower: Follower) -> None:
    delta = await follower.apply(*creation(A, "__consumer_offsets"))
    assert delta.created_topics[0].is_internal


async def test_a_deleted_topic(follower: Follower) -> None:
    await follower.apply(*creation(A, "a"), *creation(B, "b"))
    before = follower.publisher.image.topics.get("a")
    delta = await follower.apply(*deletion(A))
    assert delta.deleted_topics == [before]
    topics = follower.publisher.image.topics
    assert topics.get("a") is topics.get_by_id(A) is None
    assert topics.get("b") is not None


async def test_a_name_given_to_another_topic(follower: Follower) -> None:
    await follower.apply(*creation(A, "a"))
    for operations in ([*creation(B, "a"), *deletion(A)], [*deletion(B), *creation(A, "a")]):
        delta = await follower.apply(*operations)
        assert [topic.name for topic in delta.deleted_topics] == ["a"]
        assert [topic.name for topic in delta.created_topics] == ["a"]
        assert follower.publisher.image.topics.get("a") is delta.created_topics[0]


async def test_partitions_before_their_topic_are_kept_back(follower: Follower) -> None:
    delta = await follower.apply(partition_put(A, 0), partition_put(A, 1))
    assert not delta
    assert follower.publisher.image.topics.get_by_id(A) is None
    await follower.apply(*creation(B, "b"))
    delta = await follower.apply(topic_put(A, "a", 2))
    assert len(delta.created_topics[0].partitions) == 2


async def test_abandoned_partitions_can_be_removed(follower: Follower) -> None:
    await follower.apply(partition_put(A, 0))
    assert not await follower.apply(Delete(KEYS.partition(A, 0)))
    with pytest.raises(BadValue, match="0 is missing"):
        follower.publisher._builder.apply(list(await events_of(topic_put(A, "a", 1))), 99)


async def events_of(*operations: Operation) -> list:  # type: ignore[type-arg]
    store = MemoryStore()
    await store.txn([], operations)
    return list((await anext(store.watch(b"", 1))).events)


async def test_more_partitions(follower: Follower) -> None:
    await follower.apply(*creation(A, "a", 1))
    assert not await follower.apply(partition_put(A, 1), partition_put(A, 2))
    old = follower.publisher.image.topics.get("a")
    assert old is not None
    delta = await follower.apply(topic_put(A, "a", 3))
    new = follower.publisher.image.topics.get("a")
    assert new is not None
    assert [(change.partition, change.old) for change in delta.changed_partitions] == [
        (1, None),
        (2, None),
    ]
    assert new.partitions[0] is old.partitions[0]
    assert len(old.partitions) == 1  # an image never changes


async def test_a_changed_partition(follower: Follower) -> None:
    await follower.apply(*creation(A, "a", 2))
    old = follower.publisher.image.topics.get("a")
    assert old is not None
    delta = await follower.apply(partition_put(A, 1, leader_epoch=9))
    (change,) = delta.changed_partitions
    assert change.topic is follower.publisher.image.topics.get("a")
    assert (change.partition, change.old) == (1, old.partitions[1])
    assert (change.new.leader_epoch, change.new.partition_epoch) == (9, 2)
    assert change.new.mod_revision == follower.publisher.image.revision
    assert change.topic.partitions[0] is old.partitions[0]


async def test_what_did_not_change_is_shared(follower: Follower) -> None:
    await follower.apply(*creation(A, "a"))
    before = follower.publisher.image
    await follower.apply(Put(KEYS.producer_ids, b"\0" * 9))
    after = follower.publisher.image
    assert after.revision == before.revision + 1
    assert after.topics is before.topics
    assert after.brokers is before.brokers
    assert after.configs is before.configs


async def test_settings(follower: Follower) -> None:
    key = KEYS.config(ConfigResourceType.TOPIC, "a")
    delta = await follower.apply(Put(key, encode_config({"x": "1"})))
    assert delta.changed_configs == [(ConfigResourceType.TOPIC, "a")]
    image = follower.publisher.image
    assert image.topic_overrides("a") == {"x": "1"}
    assert image.topic_overrides("b") == image.group_overrides("a") == {}
    await follower.apply(Delete(key))
    assert follower.publisher.image.topic_overrides("a") == {}
    assert image.topic_overrides("a") == {"x": "1"}
    await follower.apply(
        Put(KEYS.config(ConfigResourceType.BROKER, ""), encode_config({"all": "1"})),
        Put(KEYS.config(ConfigResourceType.BROKER, "1"), encode_config({"one": "1"})),
    )
    assert follower.publisher.image.cluster_overrides() == {"all": "1"}
    assert follower.publisher.image.broker_overrides(1) == {"one": "1"}


async def test_a_broker_is_fenced_until_its_own_registration_is_admitted(
    follower: Follower,
) -> None:
    value = RegistrationValue(incarnation=bytes(16), endpoints={"P": ("h", 1)}, rack="r")
    stale = Put(KEYS.admission(1), NumberValue(number=77).encode())
    delta = await follower.apply(Put(KEYS.registration(1), value.encode()), stale)
    broker = follower.publisher.image.brokers[1]
    assert (broker.fenced, broker.rack, broker.endpoints) == (True, "r", {"P": ("h", 1)})
    assert broker.epoch == follower.publisher.image.revision
    assert delta.changed_brokers == [1]
    admission = Put(KEYS.admission(1), NumberValue(number=broker.epoch).encode())
    await follower.apply(admission)
    assert not follower.publisher.image.brokers[1].fenced
    await follower.apply(Delete(KEYS.admission(1)))
    assert follower.publisher.image.brokers[1].fenced
    await follower.apply(Delete(KEYS.registration(1)))
    assert follower.publisher.image.brokers == {}


async def test_the_cluster_and_its_controller(follower: Follower) -> None:
    meta = MetaValue(cluster_id="c", incarnation=b"i" * 16)
    controller = NumberValue(number=4)
    await follower.apply(Put(KEYS.meta, meta.encode()), Put(KEYS.controller, controller.encode()))
    image = follower.publisher.image
    assert (image.cluster_id, image.incarnation) == ("c", b"i" * 16)
    assert (image.controller_id, image.controller_epoch) == (4, image.revision)
    await follower.apply(Delete(KEYS.controller))
    assert follower.publisher.image.controller_id == -1


async def test_a_late_subscriber_gets_everything_as_new(follower: Follower) -> None:
    await follower.apply(*creation(A, "a", 2), *creation(B, "b"))
    await follower.apply(Put(KEYS.config(2, "a"), encode_config({"x": "1"})))
    late: list[MetadataDelta] = []
    follower.publisher.subscribe(lambda delta, image: late.append(delta))
    assert sorted(topic.name for topic in late[0].created_topics) == ["a", "b"]
    assert late[0].changed_configs == [(2, "a")]
    assert not late[0].changed_partitions


async def test_subscribers_are_called_in_order_and_one_that_fails_hurts_no_other(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def failing(delta: MetadataDelta, image: MetadataImage) -> None:
        calls.append("failing")
        if delta:
            raise RuntimeError("broken subscriber")

    follower.publisher.subscribe(failing)
    follower.publisher.subscribe(lambda delta, image: calls.append("last"))
    calls.clear()
    with caplog.at_level(logging.ERROR):
        await follower.apply(*creation(A, "a"))
    assert calls == ["failing", "last"]
    assert "broken subscriber" in caplog.text


async def test_a_gap_in_the_stream_is_closed_by_reading_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(store, "_history", WatchHistory(0, limit=1))
    follower = Follower(store)
    await store.txn([], [*creation(A, "a", 1), Put(KEYS.config(2, "a"), encode_config({}))])
    await follower.publisher.start()
    follower.publisher.subscribe(follower.on_change)
    await store.txn([], [*creation(B, "b"), *deletion(A)])
    await store.txn([], [partition_put(B, 0, leader=2)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follower.publisher.run)
        await follower.publisher.wait_for(3)
        tasks.cancel_scope.cancel()
    assert "fell behind" in caplog.text
    delta, _ = follower.told[-1]
    assert len(follower.told) == 2
    assert [topic.name for topic in delta.deleted_topics] == ["a"]
    assert [topic.name for topic in delta.created_topics] == ["b"]
    assert delta.created_topics[0].partitions[0].leader == 2


async def test_difference_of_equal_images_is_nothing(follower: Follower) -> None:
    await follower.apply(*creation(A, "a"))
    assert not difference(follower.publisher.image, follower.publisher.image)


async def test_waiters_wake_at_their_revision(follower: Follower) -> None:
    woken: list[int] = []

    async def wait(revision: int) -> None:
        image = await follower.publisher.wait_for(revision)
        woken.append(image.revision)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, 2)
            tasks.start_soon(wait, 1)
            await anyio.wait_all_tasks_blocked()
            await follower.apply(*creation(A, "a"))
            await anyio.wait_all_tasks_blocked()
            assert woken == [1]
            await follower.apply(*creation(B, "b"))
    assert woken == [1, 2]
