"""What begins an epoch of a group of KIP-848, and what of the topics it remembers."""

from typing import TYPE_CHECKING

from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_records import (
    group_epoch_record,
    partition_metadata_tombstone,
)
from kbroker.coordinator.group.consumer_replay import ConsumerReplay
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.metadata.delta import difference
from kbroker.metadata.image import BrokerImage, MetadataImage, TopicImage, TopicsImage
from kbroker.metadata.values import PartitionValue
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.consumer_group_partition_metadata_key import (
    ConsumerGroupPartitionMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_partition_metadata_value import (
    ConsumerGroupPartitionMetadataValue,
)
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, topic_id

if TYPE_CHECKING:
    from kbroker.coordinator.group.group_kinds import Group


SETTINGS = {"group.consumer.assignment.interval.ms": "0"}


def bench_with(**topics: int) -> GroupBench:
    bench = GroupBench(SETTINGS)
    bench.set_topics(**(topics or {"t": 4}))
    return bench


def racked(
    replicas: list[tuple[int, ...]], racks: dict[int, str | None], revision: int = 0
) -> MetadataImage:
    """Topic "t" with these replicas, brokers with these racks."""
    partitions = [
        PartitionValue(
            leader=nodes[0], leader_epoch=0, replicas=nodes, isr=nodes, mod_revision=revision
        )
        for nodes in replicas
    ]
    topic = TopicImage("t", topic_id("t"), partitions, is_internal=False)
    brokers = {
        node: BrokerImage(node_id=node, epoch=1, endpoints={}, rack=rack)
        for node, rack in racks.items()
    }
    return MetadataImage(topics=TopicsImage({"t": topic}, {topic.topic_id: topic}), brokers=brokers)


class TestHash:
    def of(self, image: MetadataImage, *names: str) -> int:
        topics = TopicsView()
        topics.update(image, topics_changed=True)
        return topics.metadata_hash(names)

    def test_of_nothing_and_of_what_is_not_there(self) -> None:
        image = racked([(1,)], {})
        assert self.of(image) == self.of(image, "missing") == 0
        assert self.of(image, "t") == self.of(image, "missing", "t") != 0

    def test_the_order_does_not_count(self) -> None:
        bench = bench_with(t=1, u=2)
        assert self.of(bench.image, "t", "u") == self.of(bench.image, "u", "t")

    def test_racks_count_and_leaders_do_not(self) -> None:
        racks = {1: "a", 2: "b", 3: "a"}
        first = self.of(racked([(1, 2), (2,)], racks), "t")
        assert self.of(racked([(2, 1), (2,)], racks), "t") == first
        assert self.of(racked([(3, 2), (2,)], racks), "t") == first
        assert self.of(racked([(1, 3), (2,)], racks), "t") != first
        assert self.of(racked([(1, 2), (1,)], racks), "t") != first
        assert self.of(racked([(1,), (2, 2)], racks), "t") != first
        assert self.of(racked([(1, 2), (2,)], {}), "t") != first

    def test_where_brokers_have_none_only_the_number_counts(self) -> None:
        one = self.of(racked([(1,), (2,)], {1: None, 2: None}), "t")
        assert self.of(racked([(2,), (1,)], {}), "t") == one
        assert self.of(racked([(2,)], {}), "t") != one

    def test_it_is_remembered_until_topics_change(self) -> None:
        topics = TopicsView()
        topics.update(racked([(1,)], {1: "a"}), topics_changed=True)
        first = topics.metadata_hash(["t"])
        topics.update(racked([(1,)], {1: "b"}), topics_changed=False)
        assert topics.metadata_hash(["t"]) == first
        topics.update(racked([(1,)], {1: "b"}), topics_changed=True)
        assert topics.metadata_hash(["t"]) != first


class TestTopics:
    def apply(self, bench: GroupBench, image: MetadataImage) -> None:
        before, bench.image = bench.image, image
        bench.coordinator.apply(difference(before, image), image)

    def test_replicas_in_another_rack_begin_an_epoch(self) -> None:
        bench = bench_with()
        racks: dict[int, str | None] = {1: "a", 2: "b"}
        self.apply(bench, racked([(1,)], racks, 1))
        bench.consumer("a", topics=["t"])
        assert bench.consumer("a", 2).member_epoch == 2
        self.apply(bench, racked([(2,)], racks, 2))
        assert bench.consumer("a", 2).member_epoch == 3
        self.apply(bench, racked([(2,)], racks, 3))
        assert bench.consumer("a", 3).member_epoch == 3

    def test_one_that_goes_and_one_that_comes(self) -> None:
        bench = bench_with(t=2, u=2)
        bench.consumer("a", topics=["t", "u"])
        bench.set_topics(t=2)
        gone = bench.consumer("a", 2, owned={"t": [0, 1], "u": [0, 1]})
        assert bench.assigned(gone) == {"t": [0, 1]}
        bench.consumer("a", 2, owned={"t": [0, 1]})
        bench.set_topics(t=2, v=2)
        assert bench.consumer("a", 3).member_epoch == 3
        bench.set_topics(t=2, u=2, v=2)
        assert bench.assigned(bench.consumer("a", 3)) == {"t": [0, 1], "u": [0, 1]}

    def test_an_epoch_that_could_not_be_written_is_begun_again(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.set_topics(t=6)
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        assert bench.consumer("a", 2).error_code != NONE
        bench.log.failure = None
        again = bench.consumer("a", 2)
        assert (again.error_code, again.member_epoch) == (NONE, 3)
        assert bench.assigned(again) == {"t": [0, 1, 2, 3, 4, 5]}

    def test_a_loaded_group_is_compared_at_its_first_heartbeat(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.set_topics(t=5)
        other = bench.load(settings=SETTINGS)
        assert bench.assigned(other.consumer("a", 2)) == {"t": [0, 1, 2, 3, 4]}


class TestPartitionMetadata:
    """Releases before 4.1 wrote the topics of a group in place of a hash."""

    def record(self, replay: ConsumerReplay, value: object | None) -> None:
        key = ConsumerGroupPartitionMetadataKey(GROUP)
        replay.by_key()[ConsumerGroupPartitionMetadataKey](key, value)

    def test_is_remembered_until_its_tombstone(self) -> None:
        groups: dict[str, Group] = {}
        replay = ConsumerReplay(groups, lambda *_: None)
        self.record(replay, None)
        assert groups == {}
        self.record(replay, ConsumerGroupPartitionMetadataValue([]))
        group = groups[GROUP]
        assert isinstance(group, ConsumerGroup)
        assert group.has_partition_metadata
        assert (group.group_epoch, group.metadata_hash) == (1, 0)
        self.record(replay, None)
        assert not group.has_partition_metadata

    def test_is_taken_away_when_a_member_is_heard_first(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        group = bench.consumer_group()
        # As it was before an upgrade: the record is there, the hash is not.
        group.has_partition_metadata = True
        group.metadata_hash = 0
        group.checked_topics_version = -1
        count = len(bench.written())
        answer = bench.consumer("a", 2)
        assert answer.member_epoch == 3
        tombstone = partition_metadata_tombstone(GROUP)
        new = bench.written()[count:]
        assert (tombstone.key, None) == new[0]
        assert not group.has_partition_metadata
        assert group.metadata_hash != 0
        bench.consumer("a", 3)
        assert bench.written()[count:] == new

    def test_goes_with_the_group(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        count = len(bench.written())
        bench.join_new()
        bench.settle()
        keys = [key for key, value in bench.written()[count:] if value is None]
        tombstones = [partition_metadata_tombstone(GROUP).key, group_epoch_record(GROUP, 1, 0).key]
        assert keys[-2:] == tombstones


class TestMembers:
    def test_what_does_not_concern_topics_is_no_epoch(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", topics=["t"], rebalance_ms=9_000, assignor="range", client_id="x")
        group = bench.consumer_group()
        assert group.group_epoch == 2
        assert group.members["a"].rebalance_timeout_ms == 9_000
        assert group.members["a"].server_assignor == "range"
        assert bench.load().consumer_group().members == group.members

    def test_the_same_topics_in_another_order_are_no_epoch(self) -> None:
        bench = bench_with(t=1, u=1)
        bench.consumer("a", topics=["t", "u"])
        assert bench.consumer("a", 2, topics=["u", "t"]).member_epoch == 2

    def test_each_who_comes_or_goes_is_one(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("b", topics=["t"])
        assert bench.consumer_group().group_epoch == 3
        bench.consumer("b", -1)
        assert bench.consumer_group().group_epoch == 4
        assert bench.consumer("a", 2).member_epoch == 4

    def test_who_takes_nothing_is_none(self) -> None:
        bench = bench_with()
        assert bench.consumer("a", topics=[]).member_epoch == 1
        group = bench.consumer_group()
        assert (group.group_epoch, group.assignment_epoch, group.state_name) == (1, 1, "Stable")
        assert bench.load().consumer_group().members == group.members
        assert bench.consumer("b", topics=["t"]).member_epoch == 2

    def test_who_goes_takes_its_topics_out_of_the_hash(self) -> None:
        bench = bench_with(t=1, u=1)
        bench.consumer("a", topics=["t"])
        alone = bench.consumer_group().metadata_hash
        bench.consumer("b", topics=["u"])
        assert bench.consumer_group().metadata_hash != alone
        bench.consumer("b", -1)
        assert bench.consumer_group().metadata_hash == alone

    def test_who_gives_up_in_time_is_not_timed_any_more(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], rebalance_ms=5_000)
        bench.consumer("b", topics=["t"])
        bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        bench.advance(4.9)
        assert bench.consumer("a", 2, owned={"t": [0, 1]}).member_epoch == 3
        bench.advance(10)
        assert set(bench.consumer_group().members) == {"a", "b"}

    def test_an_empty_group_without_offsets_goes_in_time(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.advance(700)
        assert bench.shard.groups == {}
        bench.consumer("a", topics=["t"])
        for _ in range(20):
            bench.consumer("a", 2)
            bench.advance(40)
        assert set(bench.consumer_group().members) == {"a"}
