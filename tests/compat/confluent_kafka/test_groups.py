"""confluent-kafka: consumer groups, their offsets and their rebalances."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms, varied_samples
from tests.compat.waiting import PATIENCE_S, eventually


def _assigned(consumer: Consumer) -> set[int]:
    """Polls once (librdkafka rebalances inside poll) and returns the assigned partitions."""
    consumer.poll(0.05)
    return {partition.partition for partition in consumer.assignment()}


def _shares(one: Consumer, other: Consumer) -> tuple[set[int], set[int]] | None:
    """What two members own, None while one owns nothing.

    Polls both in any case: a member that waits for a rebalance waits for the other's poll.
    """
    shares = _assigned(one), _assigned(other)
    return shares if all(shares) and not shares[0] & shares[1] else None


def _committed(consumer: Consumer, topic: str, partitions: int = 1) -> list[int]:
    asked = [TopicPartition(topic, number) for number in range(partitions)]
    return [found.offset for found in consumer.committed(asked, timeout=PATIENCE_S)]


def test_a_group_goes_on_where_it_committed(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = varied_samples(20)
    clients.send(clients.producer(bootstrap), topic, samples)

    with closing(clients.consumer(bootstrap, group)) as first:
        first.subscribe([topic])
        clients.receive(first, 20)
        first.commit(offsets=[TopicPartition(topic, 0, 8, metadata="half way")], asynchronous=False)
    with closing(clients.consumer(bootstrap, group)) as second:
        second.subscribe([topic])
        received = clients.receive(second, 12)
        (found,) = second.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)

    assert [record.sample for record in received] == samples[8:]
    assert (found.offset, found.metadata) == (8, "half way")


def test_offsets_are_committed_automatically(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, varied_samples(10))

    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 100}
    with closing(clients.consumer(bootstrap, group, **settings)) as consumer:
        consumer.subscribe([topic])
        clients.receive(consumer, 10)
        # poll() is what commits, at its interval
        eventually(
            lambda: consumer.poll(0.05) is None and _committed(consumer, topic) == [10],
            what="the position is committed",
        )


def test_closing_commits_the_position(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, varied_samples(10))
    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 3_600_000}

    with closing(clients.consumer(bootstrap, group, **settings)) as consumer:
        consumer.subscribe([topic])
        clients.receive(consumer, 10)

    with closing(clients.consumer(bootstrap, group)) as later:
        assert _committed(later, topic) == [10]


def test_partitions_without_a_commit_have_no_offset(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    with closing(clients.consumer(bootstrap, group)) as consumer:
        clients.commit(consumer, [TopicPartition(topic, 1, 5)])
        no_offset = -1001
        assert _committed(consumer, topic, partitions=3) == [no_offset, 5, no_offset]


def _two_consumers_share_and_hand_over(
    bootstrap: str, topic: str, group: str, **settings: str
) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    producer = clients.producer(bootstrap)
    with closing(clients.consumer(bootstrap, group, **settings)) as first:
        first.subscribe([topic])
        eventually(lambda: _assigned(first) == {0, 1, 2}, what="the first member owns all")
        with closing(clients.consumer(bootstrap, group, **settings)) as second:
            second.subscribe([topic])

            def shared() -> bool:
                one, two = _assigned(first), _assigned(second)
                return bool(one) and bool(two) and one | two == {0, 1, 2} and not one & two

            eventually(shared, what="both members own a share")
            for number in range(3):
                clients.send(producer, topic, [Sample(None, b"%d" % number, now_ms())], number)
            expected = {b"0", b"1", b"2"}
            seen: set[bytes | None] = set()

            def all_seen() -> bool:
                for member in (first, second):
                    message = member.poll(0.05)
                    if message is not None and message.error() is None:
                        value = message.value()
                        assert not isinstance(value, str) and value not in seen
                        seen.add(value)
                return seen == expected

            eventually(all_seen, what="each record reaches one member")
        eventually(lambda: _assigned(first) == {0, 1, 2}, what="the first member owns all again")


def test_two_consumers_rebalance(bootstrap: str, topic: str, group: str) -> None:
    _two_consumers_share_and_hand_over(bootstrap, topic, group)


def test_two_consumers_rebalance_cooperatively(bootstrap: str, topic: str, group: str) -> None:
    _two_consumers_share_and_hand_over(
        bootstrap, topic, group, partition_assignment_strategy="cooperative-sticky"
    )


def test_two_consumers_rebalance_with_the_consumer_protocol(
    bootstrap: str, topic: str, group: str
) -> None:
    """KIP-848: the broker assigns. Members learn of it at their heartbeat."""
    _two_consumers_share_and_hand_over(bootstrap, topic, group, group_protocol="consumer")


def test_a_group_of_the_consumer_protocol_goes_on_where_it_committed(
    bootstrap: str, topic: str, group: str
) -> None:
    clients.create_topic(bootstrap, topic)
    samples = varied_samples(20)
    clients.send(clients.producer(bootstrap), topic, samples)

    with closing(clients.consumer(bootstrap, group, group_protocol="consumer")) as first:
        first.subscribe([topic])
        clients.receive(first, 8)
        first.commit(asynchronous=False)
    with closing(clients.consumer(bootstrap, group, group_protocol="consumer")) as second:
        second.subscribe([topic])
        received = clients.receive(second, 12)

    assert [record.sample for record in received] == samples[8:]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_static_member_comes_back_to_its_partitions(
    bootstrap: str, topic: str, group: str, protocol: str
) -> None:
    """And nobody else notices: no partition of the other member is revoked or assigned anew."""
    clients.create_topic(bootstrap, topic, partitions=3)
    settings = {"group_protocol": protocol}
    static = {"group_instance_id": "reader-1", **settings}
    moves: list[str] = []
    with closing(clients.consumer(bootstrap, group, **settings)) as other:
        other.subscribe(
            [topic],
            on_assign=lambda *_: moves.append("assigned"),
            on_revoke=lambda *_: moves.append("revoked"),
        )
        with closing(clients.consumer(bootstrap, group, **static)) as first:
            first.subscribe([topic])
            owned, kept = eventually(lambda: _shares(first, other), what="both members own a share")
        # A static member does not leave when it closes: nothing moves.
        moves.clear()
        with closing(clients.consumer(bootstrap, group, **static)) as again:
            again.subscribe([topic])
            # Both are polled: should the broker rebalance after all, the other has to take part.
            eventually(
                lambda: (_assigned(again), _assigned(other)) == (owned, kept),
                what="the same partitions come back",
            )
            assert moves == []


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_with_a_pattern_finds_topics(
    bootstrap: str, topic: str, group: str, protocol: str
) -> None:
    """In the consumer protocol the broker looks for them (RE2's syntax)."""
    clients.create_topic(bootstrap, f"{topic}.one")
    clients.create_topic(bootstrap, f"{topic}.two")
    producer = clients.producer(bootstrap)
    with closing(clients.consumer(bootstrap, group, group_protocol=protocol)) as consumer:
        consumer.subscribe([f"^{topic}[.].*"])
        for suffix in ("one", "two"):
            clients.send(producer, f"{topic}.{suffix}", [Sample(None, b"v", now_ms())])
        assert len(clients.receive(consumer, 2)) == 2
