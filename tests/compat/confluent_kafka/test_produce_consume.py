"""confluent-kafka: what goes in comes out, whatever its codec, size and place."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from tests.compat.confluent_kafka import clients
from tests.compat.placement import partition_for
from tests.compat.samples import CODECS, Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import PATIENCE_S


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_brings_back_what_was_sent(bootstrap: str, topic: str, codec: str) -> None:
    samples = varied_samples(300)
    clients.create_topic(bootstrap, topic)

    clients.send(clients.producer(bootstrap, compression_type=codec, linger_ms=20), topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_acks_setting_stores_the_records(bootstrap: str, topic: str, acks: str) -> None:
    samples = varied_samples(50)
    clients.create_topic(bootstrap, topic)

    clients.send(clients.producer(bootstrap, acks=acks), topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


def test_each_of_three_partitions_keeps_its_order(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    sent = {partition: varied_samples(100, seed=partition) for partition in range(3)}
    producer = clients.producer(bootstrap)

    for partition, samples in sent.items():
        clients.send(producer, topic, samples, partition)

    received = clients.read_topic(bootstrap, topic, 300, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent


def test_murmur2_places_keys_as_the_java_client_does(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    keys = [b"key-%d" % number for number in range(60)]
    producer = clients.producer(bootstrap, partitioner="murmur2_random")

    clients.send(producer, topic, [Sample(key, b"v", now_ms()) for key in keys])

    received = clients.read_topic(bootstrap, topic, len(keys), partitions=3)
    assert {record.sample.key: record.partition for record in received} == {
        key: partition_for(key, 3) for key in keys
    }


def test_empty_and_absent_keys_and_values_stay_different(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [
        Sample(key, value, now_ms()) for key in (None, b"", b"k") for value in (None, b"", b"v")
    ]

    clients.send(clients.producer(bootstrap), topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


def test_headers_keep_order_repeated_names_and_null_values(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    headers = [("a", b"1"), ("b", b""), ("a", None), ("größe", b"\x00\xff"), ("", b"no name")]
    producer = clients.producer(bootstrap)

    producer.produce(topic, b"value", headers=headers)
    assert producer.flush(PATIENCE_S) == 0

    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert list(record.sample.headers) == headers


def test_records_of_almost_a_megabyte(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, bytes([number]) * 1_000_000, now_ms()) for number in range(5)]

    clients.send(clients.producer(bootstrap, message_max_bytes=2_000_000), topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, 5), 0) == samples


def test_a_consumer_with_small_limits_still_gets_large_records(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(None, bytes([number]) * 100_000, now_ms()) for number in range(8)]
    clients.send(clients.producer(bootstrap, batch_size=1), topic, samples)

    received = clients.read_topic(
        bootstrap, topic, 8, max_partition_fetch_bytes=1000, fetch_max_bytes=1_100_000
    )

    assert of_partition(received, 0) == samples


def test_a_record_above_message_max_bytes_is_refused(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, configs={"max.message.bytes": "20000"})
    producer = clients.producer(bootstrap, message_max_bytes=2_000_000)

    with pytest.raises(KafkaException) as refused:
        clients.send(producer, topic, [Sample(None, b"x" * 30_000, now_ms())])
    clients.send(producer, topic, [Sample(None, b"small", now_ms())])

    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"small")


def test_log_append_time_replaces_the_producers_timestamp(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, configs={"message.timestamp.type": "LogAppendTime"})
    before = now_ms()
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"v", before - 3_600_000)])

    with closing(clients.consumer(bootstrap)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(PATIENCE_S)

    assert message is not None
    kind, timestamp_ms = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before - 1000 <= timestamp_ms <= now_ms() + 1000


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_an_idempotent_producer_writes_each_record_once_in_order(
    bootstrap: str, topic: str, codec: str
) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, b"v" * 100, now_ms()) for number in range(5000)]
    # Many small batches, so that five requests are in flight at once.
    producer = clients.producer(
        bootstrap, enable_idempotence=True, compression_type=codec, batch_num_messages=20
    )

    clients.send(producer, topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


def test_producing_to_an_unknown_topic_creates_it(bootstrap: str, topic: str) -> None:
    clients.send(clients.producer(bootstrap), topic, [Sample(b"k", b"v", now_ms())])

    assert topic in clients.admin(bootstrap).list_topics(timeout=PATIENCE_S).topics
    assert len(clients.read_topic(bootstrap, topic, 1)) == 1


def test_an_unknown_partition_is_an_error_for_the_producer(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)

    with pytest.raises(KafkaException) as refused:
        clients.send(clients.producer(bootstrap), topic, [Sample(None, b"v", now_ms())], 7)

    assert refused.value.args[0].code() == KafkaError._UNKNOWN_PARTITION


def test_a_waiting_consumer_gets_a_record_at_once(bootstrap: str, topic: str) -> None:
    """The fetch waits in the broker (30 s here): the record, not the wait's end, answers it."""
    clients.create_topic(bootstrap, topic)
    producer = clients.producer(bootstrap)
    with closing(clients.consumer(bootstrap, fetch_wait_max_ms=30_000)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert consumer.poll(1.0) is None
        started = time.monotonic()
        clients.send(producer, topic, [Sample(None, b"now", now_ms())])
        (record,) = clients.receive(consumer, 1)

    assert record.sample.value == b"now"
    assert time.monotonic() - started < 20


def test_a_read_committed_consumer_reads_plain_records(bootstrap: str, topic: str) -> None:
    samples = varied_samples(20)
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, samples)

    received = clients.read_topic(bootstrap, topic, 20, isolation_level="read_committed")

    assert of_partition(received, 0) == samples


def test_the_end_of_a_partition_is_reported_once_reached(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, varied_samples(3))

    with closing(clients.consumer(bootstrap, enable_partition_eof=True)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        clients.receive(consumer, 3)
        end = consumer.poll(PATIENCE_S)

    assert end is not None and end.error() is not None
    assert end.error().code() == KafkaError._PARTITION_EOF
    assert end.offset() == 3
