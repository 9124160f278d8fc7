"""confluent-kafka: moving about in a partition."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import PATIENCE_S


def _timed(count: int, *, start_ms: int) -> list[Sample]:
    """Records a second apart."""
    return [Sample(None, b"%d" % number, start_ms + number * 1000) for number in range(count)]


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_timestamp_finds_the_exact_record_inside_a_batch(
    bootstrap: str, topic: str, codec: str
) -> None:
    clients.create_topic(bootstrap, topic)
    start = now_ms() - 3_600_000
    producer = clients.producer(bootstrap, linger_ms=50, compression_type=codec)
    clients.send(producer, topic, _timed(100, start_ms=start))

    with closing(clients.consumer(bootstrap)) as consumer:

        def offset_at(timestamp_ms: int) -> int:
            asked = [TopicPartition(topic, 0, timestamp_ms)]
            (found,) = consumer.offsets_for_times(asked, timeout=PATIENCE_S)
            return found.offset

        assert offset_at(start - 1) == 0
        assert offset_at(start) == 0
        assert offset_at(start + 1) == 1
        assert offset_at(start + 57_000) == 57
        assert offset_at(start + 57_001) == 58
        assert offset_at(start + 99_000) == 99
        at_the_end = -1
        assert offset_at(start + 99_001) == at_the_end

        consumer.assign([TopicPartition(topic, 0, offset_at(start + 57_000))])
        assert [r.offset for r in clients.receive(consumer, 43)] == list(range(57, 100))


def test_watermarks_and_seek(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, _timed(10, start_ms=now_ms() - 60_000))
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap)) as consumer:
        assert consumer.get_watermark_offsets(partition, timeout=PATIENCE_S) == (0, 10)
        consumer.assign([TopicPartition(topic, 0, 0)])
        clients.receive(consumer, 10)
        consumer.seek(TopicPartition(topic, 0, 3))
        assert [record.offset for record in clients.receive(consumer, 7)] == list(range(3, 10))


def test_the_admin_lists_earliest_latest_and_max_timestamp(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    start = now_ms() - 60_000
    samples = _timed(5, start_ms=start)
    newest_first = [samples[0], samples[4], samples[1], samples[2], samples[3]]
    clients.send(clients.producer(bootstrap), topic, newest_first)
    partition = TopicPartition(topic, 0)
    admin = clients.admin(bootstrap)

    def listed(spec: OffsetSpec) -> tuple[int, int]:
        answer = admin.list_offsets({partition: spec})
        result = answer[partition].result(timeout=PATIENCE_S)
        return result.offset, result.timestamp

    assert listed(OffsetSpec.earliest())[0] == 0
    assert listed(OffsetSpec.latest())[0] == 5
    assert listed(OffsetSpec.max_timestamp()) == (1, start + 4000)
    assert listed(OffsetSpec.for_timestamp(start + 2000)) == (1, start + 4000)


def test_an_offset_out_of_range_is_reset_as_configured(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, _timed(5, start_ms=now_ms()))

    with closing(clients.consumer(bootstrap)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 1000)])
        assert [record.offset for record in clients.receive(consumer, 5)] == list(range(5))
    with closing(clients.consumer(bootstrap, auto_offset_reset="error")) as strict:
        strict.assign([TopicPartition(topic, 0, 1000)])
        with pytest.raises(KafkaException) as refused:
            clients.receive(strict, 1)
        assert refused.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET
