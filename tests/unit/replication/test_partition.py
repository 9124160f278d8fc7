"""Leadership, the high watermark over the ISR, listeners, and what waiters are told."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.replication.partition import Partition
from tests.unit.data_plane import World, batch


class Listener:
    def __init__(self) -> None:
        self.told: list[object] = []

    def on_high_watermark_updated(self, offset: int) -> None:
        self.told.append(offset)

    def on_failed(self) -> None:
        self.told.append("failed")

    def on_deleted(self) -> None:
        self.told.append("deleted")


def append(world: World, partition: Partition, acks: int = 1) -> int:
    info = world.manager.leader_append.append_records(partition, batch(b"v"), acks)
    assert not hasattr(info, "send")
    return info.first_offset  # type: ignore[union-attr]


def error_of(call: object, *arguments: object, **named: object) -> ErrorCode:
    with pytest.raises(KafkaError) as raised:
        call(*arguments, **named)  # type: ignore[operator]
    return raised.value.error_code


def test_a_created_topic_is_led_at_once() -> None:
    world = World()
    world.topic("t", 3)
    partition = world.partition("t", 2)
    assert partition.is_leader
    assert partition.leader_epoch == 0
    assert partition.leader_epoch_start_offset == 0
    assert partition.log.end_offset_for_epoch(0) == (0, 0)
    assert len(list(world.manager.partitions())) == 3


def test_the_only_replica_commits_with_each_append() -> None:
    world = World()
    world.topic()
    partition = world.partition()
    listener = Listener()
    partition.add_listener(listener)
    partition.add_listener(listener)
    assert [append(world, partition, -1) for _ in range(3)] == [0, 1, 2]
    assert partition.log.high_watermark == 3
    assert listener.told == [1, 2, 3]
    partition.remove_listener(listener)
    append(world, partition)
    assert listener.told == [1, 2, 3]


def test_the_high_watermark_waits_for_every_in_sync_replica() -> None:
    world = World()
    world.topic(replicas=(1, 2, 3))
    partition = world.partition()
    append(world, partition)
    assert partition.log.high_watermark == 0
    second = partition.follower(2, knows_leader_epoch=True)
    third = partition.follower(3, knows_leader_epoch=True)
    partition.update_follower(second, log_end_offset=1, log_start_offset=0)
    assert partition.log.high_watermark == 0
    partition.update_follower(third, log_end_offset=1, log_start_offset=0)
    assert partition.log.high_watermark == 1


def test_a_replica_out_of_sync_is_not_waited_for() -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,))
    append(world, world.partition())
    assert world.partition().log.high_watermark == 1


def test_the_high_watermark_stands_still_below_min_isr() -> None:
    """KAFKA-15583: acks=1 is appended, but not committed on too few replicas."""
    world = World()
    world.topic(replicas=(1, 2), isr=(1,), min_insync_replicas="2")
    partition = world.partition()
    append(world, partition, 1)
    assert partition.log.high_watermark == 0
    assert error_of(append, world, partition, -1) == ErrorCode.NOT_ENOUGH_REPLICAS
    assert partition.log.log_end_offset == 1
    world.configure("t", min_insync_replicas="1")
    assert partition.log.high_watermark == 1


def test_min_isr_is_never_more_than_the_replicas() -> None:
    world = World()
    world.topic(min_insync_replicas="2")
    partition = world.partition()
    assert partition.effective_min_isr == 1
    append(world, partition, -1)
    assert partition.log.high_watermark == 1


def test_an_isr_that_shrinks_lets_the_high_watermark_go_on() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    partition = world.partition()
    append(world, partition)
    world.change_partition(replicas=(1, 2), isr=(1,), leader_epoch=0)
    assert partition.log.high_watermark == 1


def test_another_leader_makes_this_one_resign() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    partition = world.partition()
    listener = Listener()
    partition.add_listener(listener)
    world.change_partition(leader=2, replicas=(1, 2), leader_epoch=1)
    assert not partition.is_leader
    assert listener.told == ["failed"]
    assert error_of(append, world, partition) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert partition.check_enough_replicas_reach(1) == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_new_epoch_begins_at_the_log_end_and_forgets_the_followers() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    partition = world.partition()
    append(world, partition)
    follower = partition.follower(2, knows_leader_epoch=True)
    partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    world.change_partition(replicas=(1, 2), leader_epoch=3)
    assert partition.leader_epoch_start_offset == 1
    assert partition.log.end_offset_for_epoch(2) == (0, 1)
    assert partition.follower(2, knows_leader_epoch=True).log_end_offset == -1
    append(world, partition)
    assert partition.log.high_watermark == 1


def test_the_same_epoch_again_moves_nothing() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    partition = world.partition()
    append(world, partition)
    world.change_partition(replicas=(1, 2), leader_epoch=0)
    assert partition.leader_epoch_start_offset == 0


def test_an_older_image_is_ignored() -> None:
    world = World()
    world.topic(leader_epoch=5)
    partition = world.partition()
    old = world.metadata.image.topics.by_name["t"].partitions[0]
    world.change_partition(leader=1, leader_epoch=6)
    partition.update(old)
    assert partition.leader_epoch == 6


def test_epochs_are_compared_both_ways() -> None:
    world = World()
    world.topic(leader_epoch=5)
    partition = world.partition()
    assert error_of(partition.check_leader_epoch, 4) == ErrorCode.FENCED_LEADER_EPOCH
    assert error_of(partition.check_leader_epoch, 6) == ErrorCode.UNKNOWN_LEADER_EPOCH
    partition.check_leader_epoch(5)


def test_a_stranger_is_no_follower() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    follower = world.partition().follower
    assert error_of(follower, 9, knows_leader_epoch=True) == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert error_of(follower, 9, knows_leader_epoch=False) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert error_of(follower, 1, knows_leader_epoch=False) == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_enough_replicas_after_the_append() -> None:
    world = World()
    world.topic(replicas=(1, 2), min_insync_replicas="2")
    partition = world.partition()
    append(world, partition, -1)
    assert partition.check_enough_replicas_reach(1) is None
    follower = partition.follower(2, knows_leader_epoch=True)
    partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    assert partition.check_enough_replicas_reach(1) == ErrorCode.NONE
    world.change_partition(replicas=(1, 2), isr=(1,), leader_epoch=0)
    assert partition.check_enough_replicas_reach(1) == ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND


def test_delete_records_moves_the_low_watermark() -> None:
    world = World()
    world.topic()
    partition = world.partition()
    for _ in range(3):
        append(world, partition)
    assert partition.delete_records(2) == 2
    assert partition.low_watermark() == 2
    assert partition.delete_records(-1) == 3
    assert partition.low_watermark() == 3
    assert error_of(partition.delete_records, 4) == ErrorCode.OFFSET_OUT_OF_RANGE
    assert error_of(partition.delete_records, -2) == ErrorCode.OFFSET_OUT_OF_RANGE


def test_the_low_watermark_is_that_of_the_slowest_replica() -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,))
    partition = world.partition()
    append(world, partition)
    partition.delete_records(1)
    assert partition.low_watermark() == -1
    follower = partition.follower(2, knows_leader_epoch=True)
    partition.update_follower(follower, log_end_offset=1, log_start_offset=1)
    assert partition.low_watermark() == 1


def test_records_of_a_compacted_topic_stay() -> None:
    world = World()
    world.topic("c", cleanup_policy="compact")
    world.topic("both", cleanup_policy="compact,delete")
    refused = error_of(world.partition("c").delete_records, 0)
    assert refused == ErrorCode.POLICY_VIOLATION
    assert world.partition("both").delete_records(0) == 0


def test_deleting_a_topic_drops_its_partitions_and_logs() -> None:
    world = World()
    world.topic("t", 2)
    world.topic("kept")
    partition = world.partition("t", 1)
    listener = Listener()
    partition.add_listener(listener)
    world.delete_topic("t")
    assert listener.told == ["deleted"]
    assert world.manager.get_partition("t", 1) is None
    assert sorted(world.logs.deleted) == [("t", 0), ("t", 1)]
    assert error_of(append, world, partition) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert world.manager.get_partition("kept", 0) is not None


def test_a_topic_made_again_under_its_name_is_another_one() -> None:
    world = World()
    world.topic()
    append(world, world.partition())
    old = world.partition()
    world.topic()  # the same name, another id, in one change
    new = world.partition()
    assert new is not old
    assert new.log.log_end_offset == 0
    assert world.logs.deleted == [("t", 0)]


def test_a_replica_that_moved_away_is_dropped() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    world.change_partition(leader=2, replicas=(2,))
    assert world.manager.get_partition("t", 0) is None
    lookup = world.manager.get_partition_or_raise
    assert error_of(lookup, "t", 0) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert error_of(lookup, "t", 1) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert error_of(lookup, "t", -1) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert error_of(lookup, "other", 0) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_settings_reach_the_logs() -> None:
    world = World(message_max_bytes="5000")
    world.topic("own", max_message_bytes="70")
    world.topic("plain")
    assert world.partition("own").log.config.max_message_bytes == 70
    assert world.partition("plain").log.config.max_message_bytes == 5000
    world.configure("own", max_message_bytes="80")
    assert world.partition("own").log.config.max_message_bytes == 80
    world.config.replace(world.config.current.with_dynamic({"message.max.bytes": "6000"}, {}))
    assert world.partition("plain").log.config.max_message_bytes == 6000
    assert world.partition("own").log.config.max_message_bytes == 80
