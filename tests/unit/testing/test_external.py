"""The verbs over the wire, on a broker of this process: the same answers as embedded."""

import threading

import pytest

from kbroker import BrokerThread
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.testing.external import ExternalCluster


@pytest.fixture
def broker():
    with BrokerThread() as broker:
        yield broker


def topics(broker):
    return sorted(broker.server.publisher.image.topics.by_name)


def test_the_same_verbs_and_the_same_answers(broker):
    with ExternalCluster(broker.bootstrap_servers) as cluster:
        cluster.create_topic(
            "orders", partitions=3, config={"retention.ms": 1000, "preallocate": False}
        )
        assert broker.server.publisher.image.topic_overrides("orders")["retention.ms"] == "1000"
        ours = broker.produce("orders", "a", key="k", headers=[("h", None)], timestamp=5)
        theirs = cluster.produce("orders", "b", key="k", headers=[("h", b"1")], timestamp=6)
        assert theirs == (ours[0], 1)
        cluster.produce("orders", None, partition=(ours[0] + 1) % 3, timestamp=7)
        assert cluster.consume("orders") == broker.consume("orders")
        assert cluster.consume("orders", partition=ours[0]) == broker.consume(
            "orders", partition=ours[0]
        )
        assert cluster.consume("orders", count=2) == broker.consume("orders", count=2)
        assert len(cluster.consume("orders")) == 3
        with pytest.raises(KafkaError) as caught:
            cluster.create_topic("orders")
        assert caught.value.error_code is ErrorCode.TOPIC_ALREADY_EXISTS
        with pytest.raises(KafkaError) as caught:
            cluster.produce("orders", "v", partition=9)
        assert caught.value.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        with pytest.raises(KafkaError) as caught:
            cluster.create_topic("a b")
        assert caught.value.error_code is ErrorCode.INVALID_TOPIC_EXCEPTION
        with pytest.raises(TimeoutError, match="3 records"):
            cluster.consume("orders", count=4, timeout_s=0.1)


def test_topics_that_it_made_are_deleted_and_no_others(broker):
    broker.create_topic("theirs")
    with ExternalCluster(broker.bootstrap_servers) as cluster:
        cluster.create_topic("made")
        cluster.produce("automatic", "v")
        cluster.produce("theirs", "v")
        assert topics(broker) == ["automatic", "made", "theirs"]
    assert topics(broker) == ["theirs"]


def test_waiting_for_a_topic_and_its_records(broker):
    with ExternalCluster(broker.bootstrap_servers) as cluster:
        assert cluster.consume("late") == []
        later = threading.Timer(0.1, broker.produce, ("late", "v"))
        later.start()
        assert [r.value for r in cluster.consume("late", count=1, timeout_s=20)] == [b"v"]
        later.join()


def test_more_than_one_fetch_of_records(broker, monkeypatch):
    monkeypatch.setattr("kbroker.client.reader.PARTITION_BYTES", 1000)
    with ExternalCluster(broker.bootstrap_servers) as cluster:
        for number in range(30):
            broker.produce("t", b"%03d" % number * 100)
        assert [r.offset for r in cluster.consume("t", count=30)] == list(range(30))


def test_a_broker_that_was_started_again(tmp_path):
    first = BrokerThread(data_dir=tmp_path)
    first.start()
    second = BrokerThread(data_dir=tmp_path, port=first.port)
    try:
        with ExternalCluster(first.bootstrap_servers) as cluster:
            assert cluster.produce("t", "one") == (0, 0)
            first.stop()
            second.start()
            assert cluster.produce("t", "two") == (0, 1)
            assert [record.value for record in cluster.consume("t")] == [b"one", b"two"]
    finally:
        first.stop()
        second.stop()


def test_it_is_used_in_a_with_statement():
    with pytest.raises(RuntimeError, match="with ExternalCluster"):
        ExternalCluster("127.0.0.1:1").produce("t", "one")


def test_a_topic_that_was_deleted_and_made_anew(broker):
    with ExternalCluster(broker.bootstrap_servers) as cluster:
        cluster.create_topic("t", partitions=3)
        assert cluster.produce("t", "old", partition=2) == (2, 0)
        with ExternalCluster(broker.bootstrap_servers) as other:
            other._made["t"] = None
        assert cluster.consume("t") == []
        broker.create_topic("t", partitions=1)
        assert cluster.produce("t", "new") == (0, 0)
        assert [record.value for record in cluster.consume("t")] == [b"new"]


def test_nobody_there():
    with BrokerThread() as gone:
        address = gone.bootstrap_servers
    with ExternalCluster(address) as cluster, pytest.raises(ConnectionError, match=address):
        cluster.consume("t")
