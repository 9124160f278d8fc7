"""The project's own client in groups, against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from kbroker.client.admin import Admin
from kbroker.client.classic_member import ClassicMember
from kbroker.client.client import KafkaClient
from kbroker.client.consumer_member import ConsumerMember
from kbroker.client.group_admin import GroupAdmin
from kbroker.client.group_offsets import (
    CommittedOffset,
    TopicPartition,
    commit_offsets,
    delete_offsets,
    fetch_offsets,
)
from kbroker.client.group_reader import GroupReader
from kbroker.client.producer import Producer
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.record import Record

pytestmark = pytest.mark.anyio
LIVENESS_S = 45
BEGAN = 1_700_000_000_000
MEMBERS = {"classic": ClassicMember, "consumer": ConsumerMember}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def a_member(kind: str, client: KafkaClient, group: str, topic: str):
    return MEMBERS[kind](client, group, [topic], heartbeat_interval_s=0.2)


async def produce(client: KafkaClient, topic: str, partition: int, *values: bytes) -> None:
    records = [Record(value=value, timestamp=BEGAN) for value in values]
    await Producer(client, topic).send(records, partition=partition)


@pytest.mark.parametrize("kind", MEMBERS)
async def test_a_topic_is_shared_out_and_handed_over(
    bootstrap: str, topic: str, group: str, kind: str
):
    seen: list[bytes] = []
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(KafkaClient(bootstrap)) for _ in range(3)]
        await Admin(clients[0]).create_topic(topic, partitions=4)
        readers = [
            GroupReader(client, group, topic, a_member(kind, client, group, topic))
            for client in clients[:2]
        ]

        async def read(reader: GroupReader) -> None:
            for _, record in await reader.poll(max_wait_ms=100):
                seen.append(record.value or b"")
            if reader.positions:
                await reader.commit()

        async with readers[1], anyio.create_task_group() as tasks:
            async with readers[0]:
                with anyio.fail_after(LIVENESS_S):
                    while not all(len(reader.positions) == 2 for reader in readers):
                        for reader in readers:
                            tasks.start_soon(read, reader)
                        await anyio.sleep(0.3)
                    assert sorted(p for reader in readers for p in reader.positions) == [0, 1, 2, 3]
                    for partition in range(4):
                        await produce(clients[2], topic, partition, b"%d" % partition)
                    while len(seen) < 4:
                        await read(readers[0])
                        await read(readers[1])
            # the first one has left: the second gets its partitions, and reads no record again
            with anyio.fail_after(LIVENESS_S):
                while len(readers[1].positions) < 4:
                    await read(readers[1])
        assert sorted(seen) == [b"0", b"1", b"2", b"3"]
        committed = await fetch_offsets(clients[2], group)
        assert committed == {TopicPartition(topic, n): CommittedOffset(1) for n in range(4)}


@pytest.mark.parametrize("kind", MEMBERS)
async def test_a_group_is_listed_and_described(bootstrap: str, topic: str, group: str, kind: str):
    async with KafkaClient(bootstrap) as client, KafkaClient(bootstrap, client_id="me") as mine:
        admin = GroupAdmin(client)
        await Admin(client).create_topic(topic, partitions=2)
        member = a_member(kind, mine, group, topic)
        async with GroupReader(mine, group, topic, member) as reader:
            with anyio.fail_after(LIVENESS_S):
                while len(reader.positions) < 2:
                    await reader.poll(max_wait_ms=100)
            (listed,) = [each for each in await admin.list_groups() if each.group_id == group]
            assert (listed.state, listed.group_type) == ("Stable", kind)
            assert listed.protocol_type == "consumer"
            described = await admin.describe_group(group)
            assert (described.state, described.group_type) == ("Stable", kind)
            assert described.coordinator.node_id == listed.coordinator_id
            (only,) = described.members
            assert only.member_id == member.identity.member_id
            assert only.client_id == "me"
            assert only.client_host.lstrip("/") == "127.0.0.1"
            assert only.assignment == {topic: [0, 1]}
            with pytest.raises(KafkaError) as caught:
                await admin.delete_group(group)
            assert caught.value.error_code == ErrorCode.NON_EMPTY_GROUP
            with pytest.raises(KafkaError) as caught:
                await commit_offsets(client, group, {TopicPartition(topic, 0): CommittedOffset(0)})
            assert caught.value.error_code == ErrorCode.UNKNOWN_MEMBER_ID
            of_kind = await admin.list_groups(states=["Stable"], types=[kind])
            assert group in [each.group_id for each in of_kind]
            empty = await admin.list_groups(states=["Empty"])
            assert group not in [each.group_id for each in empty]
        assert (await admin.describe_group(group)).members == []


async def test_offsets_without_members(bootstrap: str, topic: str, group: str):
    async with KafkaClient(bootstrap) as client:
        admin = GroupAdmin(client)
        await Admin(client).create_topic(topic, partitions=2)
        with pytest.raises(KafkaError) as caught:
            await admin.describe_group(group)
        assert caught.value.error_code == ErrorCode.GROUP_ID_NOT_FOUND
        assert await fetch_offsets(client, group) == {}
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await commit_offsets(
            client, group, {first: CommittedOffset(3, metadata="m"), second: CommittedOffset(4)}
        )
        assert (await admin.describe_group(group)).state == "Empty"
        assert await fetch_offsets(client, group, [first]) == {
            first: CommittedOffset(3, metadata="m")
        }
        assert await delete_offsets(client, group, [first]) == {first: None}
        assert await fetch_offsets(client, group, [first, second]) == {second: CommittedOffset(4)}
        with pytest.raises(KafkaError) as caught:
            missing = TopicPartition(f"{topic}-missing", 0)
            await commit_offsets(client, group, {missing: CommittedOffset(1)})
        assert caught.value.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await admin.delete_group(group)
        with pytest.raises(KafkaError) as caught:
            await admin.delete_group(group)
        assert caught.value.error_code == ErrorCode.GROUP_ID_NOT_FOUND


async def test_a_member_that_does_not_join_again_in_time_is_left_behind(
    bootstrap: str, topic: str, group: str
):
    """Heartbeats alone do not keep it in: a rebalance waits as long as it said, no longer."""
    async with KafkaClient(bootstrap) as one, KafkaClient(bootstrap) as other:
        await Admin(one).create_topic(topic, partitions=2)
        idle = ClassicMember(one, group, [topic], rebalance_timeout_ms=1500)
        assert await idle.join() == {topic: [0, 1]}
        heir = ClassicMember(other, group, [topic], rebalance_timeout_ms=1500)
        owned: list[dict[str, list[int]]] = []

        async def inherit() -> None:
            owned.append(await heir.join())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inherit)
            with anyio.fail_after(LIVENESS_S):
                while not owned:
                    await idle.heartbeat()
                    await anyio.sleep(0.1)
        assert owned == [{topic: [0, 1]}]
        assert not await idle.heartbeat()
        assert idle.member_id == ""
        await heir.leave()


async def test_a_member_goes_on_after_its_coordinator_came_back(owned_broker):
    async with KafkaClient(owned_broker.bootstrap, timeout_s=60) as client:
        await Admin(client).create_topic("kept", partitions=1)
        await produce(client, "kept", 0, b"1", b"2")
        member = ClassicMember(client, "g", ["kept"], heartbeat_interval_s=0.2)
        async with GroupReader(client, "g", "kept", member) as reader:
            read: list[bytes | None] = []
            with anyio.fail_after(4 * LIVENESS_S):
                while len(read) < 2:
                    read += [record.value for _, record in await reader.poll()]
                assert await reader.commit()
                owned_broker.kill()
                owned_broker.start()
                await produce(client, "kept", 0, b"3")
                while len(read) < 3:
                    read += [record.value for _, record in await reader.poll()]
                while not await reader.commit():
                    read += [record.value for _, record in await reader.poll()]
        assert read[:3] == [b"1", b"2", b"3"]
        assert await fetch_offsets(client, "g") == {TopicPartition("kept", 0): CommittedOffset(3)}
