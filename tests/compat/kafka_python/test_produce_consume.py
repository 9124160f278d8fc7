"""kafka-python: what goes in comes out, whatever its codec, size and place."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.errors import MessageSizeTooLargeError

from tests.compat.kafka_python import clients
from tests.compat.placement import partition_for
from tests.compat.samples import CODECS, Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import PATIENCE_S

# kafka-python 2.x keeps an acks=0 request in its own buffer until another request follows.
ACKS = (1, "all") if clients.IS_VERSION_2 else (0, 1, "all")


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_brings_back_what_was_sent(bootstrap: str, topic: str, codec: str) -> None:
    samples = varied_samples(300)
    clients.create_topic(bootstrap, topic)

    compression = None if codec == "none" else codec
    clients.produce(bootstrap, topic, samples, compression_type=compression, linger_ms=20)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


@pytest.mark.parametrize("acks", ACKS)
def test_every_acks_setting_stores_the_records(bootstrap: str, topic: str, acks: int | str) -> None:
    samples = varied_samples(50)
    clients.create_topic(bootstrap, topic)

    # acks=0 promises nothing for what is still in the client when it closes.
    with closing(clients.producer(bootstrap, acks=acks, enable_idempotence=False)) as producer:
        clients.send(producer, topic, samples)
        received = clients.read_topic(bootstrap, topic, len(samples))

    assert of_partition(received, 0) == samples


def test_the_answer_tells_where_the_record_is(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)
    with closing(clients.producer(bootstrap)) as producer:
        futures = [producer.send(topic, b"v", partition=1, timestamp_ms=5_000) for _ in range(3)]
        answers = [future.get(timeout=PATIENCE_S) for future in futures]

    assert [(a.topic, a.partition, a.offset) for a in answers] == [(topic, 1, n) for n in range(3)]
    assert {answer.timestamp for answer in answers} == {5_000}


def test_each_of_three_partitions_keeps_its_order(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    sent = {partition: varied_samples(100, seed=partition) for partition in range(3)}

    with closing(clients.producer(bootstrap)) as producer:
        for partition, samples in sent.items():
            clients.send(producer, topic, samples, partition)

    received = clients.read_topic(bootstrap, topic, 300, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent


def test_murmur2_places_keys_as_the_java_client_does(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    keys = [b"key-%d" % number for number in range(60)]

    clients.produce(bootstrap, topic, [Sample(key, b"v", now_ms()) for key in keys])

    received = clients.read_topic(bootstrap, topic, len(keys), partitions=3)
    assert {record.sample.key: record.partition for record in received} == {
        key: partition_for(key, 3) for key in keys
    }


def test_empty_and_absent_keys_and_values_stay_different(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    pairs = [(None, b""), (None, b"v"), (b"", None), (b"", b""), (b"", b"v"), (b"k", None)]
    samples = [Sample(key, value, now_ms()) for key, value in pairs]

    clients.produce(bootstrap, topic, samples)

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


def test_headers_keep_order_and_repeated_names(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    headers = (("a", b"1"), ("b", b""), ("a", b"2"), ("größe", b"\x00\xff"))

    clients.produce(bootstrap, topic, [Sample(None, b"v", now_ms(), headers)])

    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert record.sample.headers == headers


def test_records_of_almost_a_megabyte(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, bytes([number]) * 1_000_000, now_ms()) for number in range(5)]

    clients.produce(bootstrap, topic, samples, max_request_size=2_000_000)

    assert of_partition(clients.read_topic(bootstrap, topic, 5), 0) == samples


def test_a_record_above_message_max_bytes_is_refused(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, configs={"max.message.bytes": "20000"})

    with pytest.raises(MessageSizeTooLargeError):
        clients.produce(bootstrap, topic, [Sample(None, b"x" * 30_000, now_ms())])
    clients.produce(bootstrap, topic, [Sample(None, b"small", now_ms())])

    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"small")


def test_log_append_time_replaces_the_producers_timestamp(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, configs={"message.timestamp.type": "LogAppendTime"})
    before = now_ms()
    clients.produce(bootstrap, topic, [Sample(None, b"v", before - 3_600_000)])

    (record,) = clients.read_topic(bootstrap, topic, 1)

    assert before - 1000 <= record.sample.timestamp_ms <= now_ms() + 1000


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_an_idempotent_producer_writes_each_record_once_in_order(
    bootstrap: str, topic: str, codec: str | None
) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, b"v" * 100, now_ms()) for number in range(1000)]

    # Small batches, so that five requests are in flight at once.
    clients.produce(
        bootstrap, topic, samples, enable_idempotence=True, batch_size=1000, compression_type=codec
    )

    assert of_partition(clients.read_topic(bootstrap, topic, len(samples)), 0) == samples


def test_producing_to_an_unknown_topic_creates_it(bootstrap: str, topic: str) -> None:
    clients.produce(bootstrap, topic, [Sample(b"k", b"v", now_ms())])

    assert topic in clients.partition_counts(bootstrap)
    assert len(clients.read_topic(bootstrap, topic, 1)) == 1


def test_a_consumer_with_small_limits_still_gets_large_records(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = [Sample(None, bytes([number]) * 100_000, now_ms()) for number in range(8)]
    clients.produce(bootstrap, topic, samples, batch_size=1)

    received = clients.read_topic(
        bootstrap, topic, 8, max_partition_fetch_bytes=1000, fetch_max_bytes=2000
    )

    assert of_partition(received, 0) == samples


def test_a_read_committed_consumer_reads_plain_records(bootstrap: str, topic: str) -> None:
    samples = varied_samples(20)
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, samples)

    received = clients.read_topic(bootstrap, topic, 20, isolation_level="read_committed")

    assert of_partition(received, 0) == samples


def test_the_position_and_the_high_watermark_are_known(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, varied_samples(7))
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap)) as consumer:
        consumer.assign([partition])
        clients.receive(consumer, 7)
        assert consumer.position(partition) == 7
        assert consumer.highwater(partition) == 7
        assert consumer.beginning_offsets([partition]) == {partition: 0}
        assert consumer.end_offsets([partition]) == {partition: 7}
