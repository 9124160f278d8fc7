"""kafka-python: moving about in a partition."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka import TopicPartition

from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms


def _timed(count: int, *, start_ms: int) -> list[Sample]:
    """Records a second apart."""
    return [Sample(None, b"%d" % number, start_ms + number * 1000) for number in range(count)]


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_a_timestamp_finds_the_exact_record_inside_a_batch(
    bootstrap: str, topic: str, codec: str | None
) -> None:
    clients.create_topic(bootstrap, topic)
    start = now_ms() - 3_600_000
    samples = _timed(100, start_ms=start)
    clients.produce(bootstrap, topic, samples, linger_ms=50, compression_type=codec)
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap)) as consumer:

        def found_at(timestamp_ms: int) -> tuple[int, int] | None:
            found = consumer.offsets_for_times({partition: timestamp_ms})[partition]
            return None if found is None else (found.offset, found.timestamp)

        assert found_at(start - 1) == (0, start)
        assert found_at(start) == (0, start)
        assert found_at(start + 1) == (1, start + 1000)
        assert found_at(start + 57_000) == (57, start + 57_000)
        assert found_at(start + 57_001) == (58, start + 58_000)
        assert found_at(start + 99_001) is None

        consumer.assign([partition])
        consumer.seek(partition, 57)
        assert [r.offset for r in clients.receive(consumer, 43)] == list(range(57, 100))


def test_seeks_to_the_beginning_and_to_the_end(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, _timed(10, start_ms=now_ms() - 60_000))
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap)) as consumer:
        consumer.assign([partition])
        consumer.seek_to_end(partition)
        assert consumer.position(partition) == 10
        consumer.seek_to_beginning(partition)
        assert [record.offset for record in clients.receive(consumer, 10)] == list(range(10))


def test_an_offset_out_of_range_is_reset(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, _timed(5, start_ms=now_ms()))
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap)) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 1000)
        assert [record.offset for record in clients.receive(consumer, 5)] == list(range(5))
