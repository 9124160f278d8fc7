"""The project's own client against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

import anyio
import pytest

from kbroker.client.admin import BROKER, TOPIC, Admin, Resource
from kbroker.client.client import BootstrapError, KafkaClient, check
from kbroker.client.producer import ACKS_ALL, ACKS_LEADER, ACKS_NONE, Producer
from kbroker.client.reader import EARLIEST, LATEST, Reader, list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.compression import CODEC_IDS
from kbroker.record.record import Record

pytestmark = pytest.mark.anyio
LIVENESS_S = 30
BEGAN = 1_700_000_000_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read_all(client: KafkaClient, topic: str, count: int) -> list[Record]:
    """Waits until there are so many."""
    partitions = await client.leaders(topic)
    reader = Reader(
        client, topic, await list_offsets(client, topic, dict.fromkeys(partitions, EARLIEST))
    )
    records: list[Record] = []
    with anyio.fail_after(LIVENESS_S):
        while len(records) < count:
            records += [record for _, record in await reader.poll()]
    return records


@pytest.mark.parametrize("codec", CODEC_IDS)
async def test_what_is_produced_is_read_back(bootstrap: str, topic: str, codec: str):
    written = [
        Record(
            key=b"key %d" % index if index % 2 else None,
            value=b"value %d" % index if index % 5 else None,
            headers=[("h", b"1"), ("none", None)],
            timestamp=BEGAN + index,
        )
        for index in range(20)
    ]
    async with KafkaClient(bootstrap) as client:
        await Admin(client).create_topic(topic, partitions=3)
        producer = Producer(client, topic, compression=CODEC_IDS[codec])
        await producer.send(written[:10])
        await producer.send(written[10:])
        read = await read_all(client, topic, 20)
    for record in read:
        record.offset = 0
    assert sorted(read, key=lambda record: record.timestamp) == written


@pytest.mark.parametrize("acks", [ACKS_NONE, ACKS_LEADER, ACKS_ALL])
async def test_acks_and_a_chosen_partition(bootstrap: str, topic: str, acks: int):
    async with KafkaClient(bootstrap) as client:
        await Admin(client).create_topic(topic, partitions=2)
        # Nobody repeats acks=0: without the first record it may come before the partition is led.
        await Producer(client, topic).send([Record(value=b"u", timestamp=BEGAN)], partition=1)
        offsets = await Producer(client, topic, acks=acks).send(
            [Record(value=b"v", timestamp=BEGAN)], partition=1
        )
        assert offsets == {1: -1 if acks == ACKS_NONE else 1}
        assert [record.value for record in await read_all(client, topic, 2)] == [b"u", b"v"]
        with pytest.raises(KafkaError, match="partitions 0 to 1, not 2"):
            await Producer(client, topic).send([Record(value=b"v", timestamp=BEGAN)], partition=2)


async def test_offsets_by_time(bootstrap: str, topic: str):
    async with KafkaClient(bootstrap) as client:
        await Admin(client).create_topic(topic, partitions=1)
        for index in range(3):
            record = Record(value=b"v", timestamp=BEGAN + index * 1000)
            await Producer(client, topic).send([record])
        found = [
            await list_offsets(client, topic, {0: timestamp})
            for timestamp in (EARLIEST, LATEST, BEGAN + 1, BEGAN + 5000)
        ]
    assert found == [{0: 0}, {0: 3}, {0: 1}, {0: -1}]


async def test_topics_live_and_die(bootstrap: str, topic: str):
    async with KafkaClient(bootstrap) as client:
        admin = Admin(client)
        await admin.create_topic(topic, partitions=2, config={"retention.ms": "1000"})
        with pytest.raises(KafkaError) as caught:
            await admin.create_topic(topic)
        assert caught.value.error_code == ErrorCode.TOPIC_ALREADY_EXISTS
        await admin.create_partitions(topic, 4)
        with anyio.fail_after(LIVENESS_S):
            while len((await admin.describe_topics([topic]))[0].partitions) < 4:
                await anyio.sleep(0.05)
        assert topic in [each.name for each in await admin.list_topics()]
        await admin.delete_topic(topic)
        with pytest.raises(KafkaError) as caught:
            await admin.delete_topic(topic)
        assert caught.value.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        with pytest.raises(KafkaError) as caught, anyio.fail_after(LIVENESS_S):
            while True:  # a broker hears of a deletion a moment after the controller
                (found,) = (await client.metadata([topic])).topics
                check(found.error_code)
        assert caught.value.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_settings_are_changed_one_by_one(bootstrap: str, topic: str):
    async with KafkaClient(bootstrap) as client:
        admin = Admin(client)
        resource = Resource(TOPIC, topic)
        await admin.create_topic(topic)

        async def becomes(name: str, expected: str) -> None:
            """A broker learns of a change a moment after the controller has taken it."""
            with anyio.fail_after(LIVENESS_S):
                while True:
                    configs = await admin.describe_configs(resource)
                    if expected in [each.value for each in configs if each.name == name]:
                        return
                    await anyio.sleep(0.05)

        await admin.alter_configs(resource, {"retention.ms": "77", "segment.bytes": "1048576"})
        await becomes("retention.ms", "77")
        await admin.alter_configs(resource, {"retention.ms": None})
        await becomes("retention.ms", "604800000")
        await becomes("segment.bytes", "1048576")
        node_id = min((await client.metadata([])).nodes)
        names = [each.name for each in await admin.describe_configs(Resource(BROKER, str(node_id)))]
        assert "log.dirs" in names
        with pytest.raises(KafkaError, match="there is no broker 4242"):
            await admin.describe_configs(Resource(BROKER, "4242"))


async def test_nobody_answers():
    async with KafkaClient("127.0.0.1:1", timeout_s=5) as client:
        with pytest.raises(BootstrapError, match=r"127\.0\.0\.1:1: .*refused"):
            await client.metadata()


async def test_a_broker_that_comes_back_is_found_again(owned_broker):
    async with KafkaClient(owned_broker.bootstrap, timeout_s=60) as client:
        producer = Producer(client, "kept")
        await producer.send([Record(value=b"1", timestamp=BEGAN)])
        owned_broker.kill()
        owned_broker.start()
        await producer.send([Record(value=b"2", timestamp=BEGAN)])
        assert [record.value for record in await read_all(client, "kept", 2)] == [b"1", b"2"]
