"""kafka-python: consumer groups, their offsets and their rebalances."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import for_code
from kafka.structs import OffsetAndMetadata

from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms, varied_samples
from tests.compat.waiting import eventually


class Member:
    """One group member polling in a thread of its own, as a service would.

    kafka-python joins inside poll(), and a join waits for the other members: two of them in one
    thread would wait for each other.
    """

    def __init__(self, bootstrap: str, topic: str, group: str, **settings: Any) -> None:
        self.values: list[bytes | None] = []
        self.assigned: frozenset[int] = frozenset()
        self.error: BaseException | None = None
        self._consumer = clients.consumer(bootstrap, group, **settings)
        clients.subscribe(self._consumer, topic)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def generation(self) -> int:
        """The group's generation that it has joined last; kafka-python 2 does not tell."""
        return int(self._consumer.group_metadata().generation_id)

    def close(self) -> None:
        """Leaves the group; raises what went wrong in the thread."""
        self._stopping.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with closing(self._consumer):
                while not self._stopping.is_set():
                    for batch in self._consumer.poll(timeout_ms=100).values():
                        self.values += [record.value for record in batch]
                    found = self._consumer.assignment()
                    self.assigned = frozenset(partition.partition for partition in found)
        except BaseException as error:
            self.error = error


def test_a_group_goes_on_where_it_committed(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    samples = varied_samples(20)
    clients.produce(bootstrap, topic, samples)
    partition = TopicPartition(topic, 0)

    with closing(clients.consumer(bootstrap, group)) as first:
        clients.subscribe(first, topic)
        clients.receive(first, 20)
        first.commit({partition: OffsetAndMetadata(8, "half way", -1)})
    with closing(clients.consumer(bootstrap, group)) as second:
        clients.subscribe(second, topic)
        received = clients.receive(second, 12)
        found = second.committed(partition, metadata=True)

    assert [record.sample for record in received] == samples[8:]
    assert (found.offset, found.metadata) == (8, "half way")


def test_offsets_are_committed_automatically(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, varied_samples(10))

    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 100}
    with closing(clients.consumer(bootstrap, group, **settings)) as consumer:
        clients.subscribe(consumer, topic)
        clients.receive(consumer, 10)
        partition = TopicPartition(topic, 0)
        # poll() is what commits, at its interval
        eventually(
            lambda: not consumer.poll(timeout_ms=50) and consumer.committed(partition) == 10,
            what="the position is committed",
        )


def test_closing_commits_the_position(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, varied_samples(10))
    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 3_600_000}

    with closing(clients.consumer(bootstrap, group, **settings)) as consumer:
        clients.subscribe(consumer, topic)
        clients.receive(consumer, 10)

    with closing(clients.consumer(bootstrap, group)) as later:
        assert later.committed(TopicPartition(topic, 0)) == 10


def test_partitions_without_a_commit_have_no_offset(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)
    with closing(clients.consumer(bootstrap, group)) as consumer:
        consumer.commit({TopicPartition(topic, 1): OffsetAndMetadata(5, "", -1)})

        assert consumer.committed(TopicPartition(topic, 0)) is None
        assert consumer.committed(TopicPartition(topic, 1)) == 5


def test_two_consumers_rebalance(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    settings = {"heartbeat_interval_ms": 500}
    with closing(Member(bootstrap, topic, group, **settings)) as first:
        eventually(lambda: first.assigned == {0, 1, 2}, what="the first member owns all")
        with closing(Member(bootstrap, topic, group, **settings)) as second:

            def shared() -> bool:
                one, two = first.assigned, second.assigned
                return bool(one) and bool(two) and one | two == {0, 1, 2} and not one & two

            eventually(shared, what="both members own a share")
            for number in range(3):
                clients.produce(bootstrap, topic, [Sample(None, b"%d" % number, now_ms())], number)
            eventually(
                lambda: len(first.values + second.values) == 3, what="each record reaches a member"
            )
            assert sorted(first.values + second.values, key=repr) == [b"0", b"1", b"2"]
            assert first.values and second.values
        eventually(lambda: first.assigned == {0, 1, 2}, what="the first member owns all again")


@pytest.mark.skipif(clients.IS_VERSION_2, reason="kafka-python 2 has no static members")
def test_a_static_member_comes_back_to_its_partitions(
    bootstrap: str, topic: str, group: str
) -> None:
    """And nobody else notices: the group stays in its generation.

    Not what a rebalance listener was told: kafka-python calls it late, or, when its poll() has run
    out of time, never.
    """
    clients.create_topic(bootstrap, topic, partitions=3)
    settings = {"heartbeat_interval_ms": 500}
    static = {"group_instance_id": "reader-1", **settings}
    with closing(Member(bootstrap, topic, group, **settings)) as other:
        with closing(Member(bootstrap, topic, group, **static)) as first:

            def shared() -> bool:
                one, two = first.assigned, other.assigned
                return bool(one) and bool(two) and one | two == {0, 1, 2} and not one & two

            eventually(shared, what="both members own a share")
            eventually(lambda: first.generation == other.generation, what="they agree")
            owned, kept, generation = first.assigned, other.assigned, other.generation
        with closing(Member(bootstrap, topic, group, **static)) as again:
            eventually(lambda: again.assigned == owned, what="the same partitions come back")
            clients.produce(bootstrap, topic, [Sample(None, b"x", now_ms())], min(kept))
            eventually(lambda: other.values == [b"x"], what="the other member reads on")
            assert other.assigned == kept
            assert (other.generation, again.generation) == (generation, generation)


@pytest.mark.skipif(clients.IS_VERSION_2, reason="kafka-python 2 has no static members")
def test_of_two_static_members_of_one_name_the_first_is_fenced(
    bootstrap: str, topic: str, group: str
) -> None:
    clients.create_topic(bootstrap, topic)
    settings = {
        "group_instance_id": "reader-1",
        "heartbeat_interval_ms": 15_000,  # the commit, not a heartbeat, is to meet the refusal
        "session_timeout_ms": 45_000,
    }
    with closing(clients.consumer(bootstrap, group, **settings)) as first:
        clients.subscribe(first, topic)
        eventually(
            lambda: not first.poll(timeout_ms=50) and first.assignment(),
            what="the first one owns the partition",
        )
        with closing(Member(bootstrap, topic, group, **settings)) as second:
            eventually(lambda: second.assigned == {0}, what="the second one has taken its place")
            with pytest.raises(for_code(82)):  # FENCED_INSTANCE_ID
                first.commit({TopicPartition(topic, 0): OffsetAndMetadata(1, "", -1)})


def test_a_group_with_a_pattern_finds_topics(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, f"{topic}.one")
    clients.create_topic(bootstrap, f"{topic}.two")
    for suffix in ("one", "two"):
        clients.produce(bootstrap, f"{topic}.{suffix}", [Sample(None, b"v", now_ms())])

    with closing(clients.consumer(bootstrap, group)) as consumer:
        names = {f"{topic}.one", f"{topic}.two"}
        eventually(lambda: names <= consumer.topics(), what="both topics are known")
        consumer.subscribe(pattern=f"^{topic}[.].*")
        assert len(clients.receive(consumer, 2)) == 2
