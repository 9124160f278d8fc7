"""The controller's life: one at a time, brokers come and go, nothing is handed out twice."""

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kbroker.common.offload import InlineOffload
from kbroker.metadata.delta import MetadataDelta
from kbroker.metadata.image import MetadataImage
from kbroker.metadata.keys import Keys
from kbroker.metadata.memory_store import MemoryStore
from kbroker.metadata.sqlite_store import SqliteStore
from kbroker.metadata.store import Delete, NotSent, Put
from kbroker.metadata.topic_control import NewPartitions, NewTopic
from kbroker.metadata.values import NumberValue, PartitionValue, RecoveryState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.sizes import size
from tests.unit.metadata.clusters import Node, running_node

pytestmark = pytest.mark.anyio
KEYS = Keys()


async def open_store(folder: Path) -> SqliteStore:
    return await SqliteStore.open(str(folder / "metadata.db"), InlineOffload())


async def test_a_single_broker_is_its_own_controller_and_alive() -> None:
    async with running_node(rack="r1") as node:
        image = node.image
        assert node.controller.is_active
        assert image.controller_id == 1
        broker = image.brokers[1]
        assert (broker.fenced, broker.rack) == (False, "r1")
        assert broker.endpoints == {"PLAINTEXT": ("host1", 9091)}
        assert len(image.cluster_id) == 22
        assert not image.cluster_id.startswith("-")


async def test_the_first_start_fixes_min_insync_replicas_for_the_cluster() -> None:
    async with running_node(settings={"min.insync.replicas": "2"}) as node:
        assert node.image.cluster_overrides() == {"min.insync.replicas": "2"}


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    async with running_node(store) as node:
        await node.controller.create_topics([NewTopic(name="t", num_partitions=2)])
        before = node.image
    await store.close()
    store = await open_store(tmp_path)
    async with running_node(store) as node:
        after = node.image
        assert after.cluster_id == before.cluster_id
        assert after.brokers[1].epoch > before.brokers[1].epoch
        old, new = before.topics.get("t"), after.topics.get("t")
        assert old is not None
        assert new is not None
        assert old.topic_id == new.topic_id
        assert new.partitions == old.partitions
    await store.close()


async def test_after_a_kill_partitions_begin_a_new_leader_epoch(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    async with running_node(store) as node:
        await node.controller.create_topics([NewTopic(name="t", num_partitions=2)])
    await store.close()
    store = await open_store(tmp_path)
    async with running_node(store, clean_shutdown=False) as node:
        topic = node.image.topics.get("t")
        assert topic is not None
        for partition in topic.partitions:
            assert (partition.leader, partition.leader_epoch, partition.isr) == (1, 1, (1,))
            assert partition.recovery_state == RecoveryState.RECOVERING
    await store.close()


async def test_equal_partitions_are_one_object_until_one_changes() -> None:
    store = MemoryStore()
    async with running_node(store) as node:
        await node.controller.create_topics([NewTopic(name="t", num_partitions=3)])
        topic = node.image.topics.get("t")
        assert topic is not None
        first, second, third = topic.partitions
        assert first is second is third
        changed = PartitionValue(leader=1, leader_epoch=7, replicas=(1,), isr=(1,))
        key = KEYS.partition(topic.topic_id, 1)
        revision = (await store.txn([], [Put(key, changed.encode())])).revision
        await node.publisher.wait_for(revision)
        topic = node.image.topics.get("t")
        assert topic is not None
        assert topic.partitions[0] is topic.partitions[2] is first
        assert (first.leader_epoch, first.partition_epoch) == (0, 1)
        assert (topic.partitions[1].leader_epoch, topic.partitions[1].partition_epoch) == (7, 2)


async def test_the_first_start_counts_as_clean() -> None:
    async with running_node(clean_shutdown=False) as node:
        assert not node.image.brokers[1].fenced


async def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    given: list[tuple[int, int]] = []
    for _ in range(3):
        store = await open_store(tmp_path)
        async with running_node(store) as node:

            async def allocate(node: Node = node) -> None:
                given.append(await node.controller.allocate_producer_ids())

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(allocate)
        await store.close()
    assert sorted(given) == [(first, 1000) for first in range(0, 9000, 1000)]


async def test_two_brokers_one_controller_and_takeover() -> None:
    store = MemoryStore()
    async with (
        running_node(store, node_id=2) as first,
        running_node(store, node_id=3) as other,
    ):
        assert first.controller.is_active
        assert not other.controller.is_active
        assert set(other.image.brokers) == {2, 3}
        with pytest.raises(KafkaError) as raised:
            await other.controller.create_topics([NewTopic(name="t")])
        assert raised.value.error_code == ErrorCode.NOT_CONTROLLER
        await first.controller.stop()
        await other.settle()
        assert other.controller.is_active
        assert other.image.controller_id == 3
        assert set(other.image.brokers) == {3}
        (result,) = await other.controller.create_topics([NewTopic(name="t")])
        assert result.error is None


async def test_leaders_move_when_a_broker_goes_and_it_rejoins_without_isr() -> None:
    store = MemoryStore()
    async with running_node(store, node_id=1) as node:
        async with running_node(store, node_id=2):
            await node.controller.create_topics(
                [NewTopic(name="t", assignments=[(0, [2, 1]), (1, [1, 2])])]
            )
        await node.settle()
        topic = node.image.topics.get("t")
        assert topic is not None
        first, second = topic.partitions
        assert (first.leader, first.leader_epoch, first.isr) == (1, 1, (1,))
        assert (second.leader, second.leader_epoch, second.isr) == (1, 0, (1,))
        async with running_node(store, node_id=2):
            await node.settle()
            again = node.image.topics.get("t")
            assert again is not None
            assert [partition.isr for partition in again.partitions] == [(1,), (1,)]
            assert not node.image.brokers[2].fenced


async def test_the_same_node_id_twice_is_refused() -> None:
    store = MemoryStore()
    async with running_node(store):
        with pytest.raises(BaseExceptionGroup) as raised:
            async with running_node(store):
                pass
        (error,) = raised.value.exceptions
        assert isinstance(error, KafkaError)
        assert error.error_code == ErrorCode.DUPLICATE_BROKER_REGISTRATION


async def test_a_controller_that_was_replaced_cannot_write() -> None:
    async with running_node() as node:
        usurper = NumberValue(number=9).encode()
        await node.store.txn([], [Delete(KEYS.controller)])
        await node.store.txn([], [Put(KEYS.controller, usurper)])
        with pytest.raises(KafkaError) as raised:  # before it can have heard of it
            await node.controller.create_topics([NewTopic(name="t")])
        assert raised.value.error_code == ErrorCode.NOT_CONTROLLER
        await node.settle()
        assert not node.controller.is_active
        assert node.image.topics.get("t") is None


async def test_it_takes_the_key_again_when_it_is_free() -> None:
    async with running_node() as node:
        await node.store.txn([], [Delete(KEYS.controller)])
        await node.settle()
        assert node.controller.is_active
        (result,) = await node.controller.create_topics([NewTopic(name="t")])
        assert result.error is None


async def test_subscribers_have_seen_a_change_when_its_verb_returns() -> None:
    async with running_node() as node:
        seen: list[str] = []

        def on_change(delta: MetadataDelta, image: MetadataImage) -> None:
            seen.extend(topic.name for topic in delta.created_topics)

        node.publisher.subscribe(on_change)
        await node.controller.create_topics([NewTopic(name="t")])
        assert seen == ["t"]


async def test_verbs_at_once_do_not_disturb_each_other() -> None:
    async with running_node() as node:
        errors: list[ErrorCode] = []

        async def create(name: str) -> None:
            (result,) = await node.controller.create_topics([NewTopic(name=name)])
            if result.error is not None:
                errors.append(result.error.error_code)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(create, f"t{number % 10}")
        assert errors == [ErrorCode.TOPIC_ALREADY_EXISTS] * 10
        assert len(node.image.topics) == 10


async def test_a_cancelled_verb_is_done_or_not_but_never_half() -> None:
    async with running_node() as node:
        for turns in range(size(ci=8, full=8)):
            name = f"t{turns}"
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(node.controller.create_topics, [NewTopic(name=name)])
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()
            await node.settle()
            (result,) = await node.controller.create_topics([NewTopic(name=name)])
            assert result.error is None or (
                result.error.error_code == ErrorCode.TOPIC_ALREADY_EXISTS
            )
            assert node.image.topics.get(name) is not None


async def test_ensure_topics_makes_what_is_missing() -> None:
    async with running_node(settings={"offsets.topic.num.partitions": "7"}) as node:
        await node.controller.create_topics([NewTopic(name="there")])
        problems = await node.controller.ensure_topics(
            ["there", "__consumer_offsets", "new", "new", "a b"]
        )
        assert {name: error.error_code for name, error in problems.items()} == {
            "a b": ErrorCode.INVALID_TOPIC_EXCEPTION
        }
        offsets = node.image.topics.get("__consumer_offsets")
        assert offsets is not None
        assert len(offsets.partitions) == 7
        assert node.image.topic_overrides("__consumer_offsets") == {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": "104857600",
        }
        assert node.image.topics.get("new") is not None
        revision = node.image.revision
        assert await node.controller.ensure_topics(["there", "new"]) == {}
        assert node.image.revision == revision


@pytest.mark.parametrize("name", ["__transaction_state", "__share_group_state"])
async def test_internal_topics_have_fifty_partitions_and_valid_settings(name: str) -> None:
    async with running_node() as node:
        assert await node.controller.ensure_topics([name]) == {}
        topic = node.image.topics.get(name)
        assert topic is not None
        assert topic.is_internal
        assert len(topic.partitions) == 50


async def test_auto_create_works_in_the_background_and_forgets_failures() -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="a.b")])
        node.controller.auto_create(["x", "a_b", "x"])
        assert node.controller.is_being_created("x")
        assert node.image.topics.get("x") is None
        await node.settle()
        assert node.image.topics.get("x") is not None
        assert node.image.topics.get("a_b") is None
        assert not node.controller.is_being_created("a_b")
        node.controller.auto_create(["y"])
        await node.settle()
        assert node.image.topics.get("y") is not None


async def test_a_store_that_fails_does_not_end_the_controller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_node() as node:
        with monkeypatch.context() as broken:

            async def refuse(*_: object) -> None:
                raise NotSent("the disk is full")

            broken.setattr(node.store, "txn", refuse)
            node.controller.auto_create(["x"])
            await node.settle()
            with pytest.raises(NotSent):
                await node.controller.create_topics([NewTopic(name="y")])
        assert "the disk is full" in caplog.text
        assert not node.controller.is_being_created("x")
        node.controller.auto_create(["x"])
        await node.settle()
        assert node.image.topics.get("x") is not None


async def test_a_store_with_small_transactions_gets_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(MemoryStore, "max_operations", 8)
    biggest = 0
    plain = store.txn

    async def counting(when, then, orelse=()):  # type: ignore[no-untyped-def]
        nonlocal biggest
        biggest = max(biggest, len(then))
        return await plain(when, then, orelse)

    monkeypatch.setattr(store, "txn", counting)
    async with running_node(store) as node:
        results = await node.controller.create_topics(
            [NewTopic(name=f"t{number}", num_partitions=7) for number in range(5)]
        )
        assert all(result.error is None for result in results)
        assert await node.controller.create_partitions(
            [NewPartitions(name="t0", num_partitions=30)]
        ) == [("t0", None)]
        counts = [len(topic.partitions) for topic in node.image.topics.by_name.values()]
        assert sorted(counts) == [7, 7, 7, 7, 30]
        await node.controller.delete_topics(list(node.image.topics.by_name.values()))
        assert len(node.image.topics) == 0
    assert biggest == 8
