"""Which partitions are here, and what a failing disk does to one of them."""

import pytest

from kbroker.common.faults import Faults
from kbroker.metadata.image import TopicImage
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.crc import crc32c
from kbroker.replication.ack_before_append import AckBeforeAppendPartition
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.data_plane import NODE, World, batch, partition_image


def error_of(call: object, *arguments: object) -> ErrorCode:
    with pytest.raises(KafkaError) as raised:
        call(*arguments)  # type: ignore[operator]
    return raised.value.error_code


def test_a_coordinators_batch_is_committed_at_its_last_offset() -> None:
    world = World()
    world.topic("__consumer_offsets", 2, cleanup_policy="compact")
    keyed = batch(b"a", b"b", keys=[b"k", b"l"])
    append = world.manager.append_coordinator_batch
    assert append("__consumer_offsets", 1, keyed) == 2
    assert append("__consumer_offsets", 1, batch(b"c", keys=[b"k"])) == 3
    partition = world.partition("__consumer_offsets", 1)
    assert partition.log.high_watermark == 3


def test_a_coordinator_is_told_why_it_cannot_write() -> None:
    world = World()
    world.topic("followed", leader=2, replicas=(1, 2))
    world.topic("alone", replicas=(1, 2), isr=(1,), min_insync_replicas="2")
    world.topic("small", max_message_bytes="70")
    append = world.manager.append_coordinator_batch
    assert error_of(append, "nope", 0, batch(b"a")) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert error_of(append, "followed", 0, batch(b"a")) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert error_of(append, "alone", 0, batch(b"a")) == ErrorCode.NOT_ENOUGH_REPLICAS
    assert error_of(append, "small", 0, batch(b"a" * 99)) == ErrorCode.MESSAGE_TOO_LARGE


def test_a_partition_whose_storage_fails_is_offline_and_the_others_are_led(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    assign = UnifiedLog.maybe_assign_epoch_start_offset

    def fail_for_the_second(log: UnifiedLog, epoch: int, offset: int) -> None:
        if log.partition == 1:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        assign(log, epoch, offset)

    monkeypatch.setattr(UnifiedLog, "maybe_assign_epoch_start_offset", fail_for_the_second)
    world.topic("t", 3)
    lookup = world.manager.get_leader_partition
    assert lookup("t", 0).is_leader
    assert error_of(lookup, "t", 1) == ErrorCode.KAFKA_STORAGE_ERROR
    assert lookup("t", 2).is_leader
    monkeypatch.setattr(UnifiedLog, "maybe_assign_epoch_start_offset", assign)
    world.change_partition("t", 1)
    assert lookup("t", 1).is_leader


def test_an_offline_partition_is_forgotten_with_its_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def fail(log: UnifiedLog, epoch: int, offset: int) -> None:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)

    monkeypatch.setattr(UnifiedLog, "maybe_assign_epoch_start_offset", fail)
    world.topic()
    world.delete_topic("t")
    lookup = world.manager.get_partition_or_raise
    assert error_of(lookup, "t", 0) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_files_that_cannot_be_removed_do_not_stop_the_deletion(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.topic("t", 2)

    def fail(topic: str, partition: int) -> None:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)

    monkeypatch.setattr(world.logs, "delete_log", fail)
    world.delete_topic("t")
    assert list(world.manager.partitions()) == []
    assert "stay behind" in caplog.text


def test_partitions_that_are_added_are_led() -> None:
    world = World()
    old = world.topic("t", 1)
    first = world.partition("t", 0)
    added = partition_image(NODE, (NODE,), None, 0, revision=99)
    grown = TopicImage("t", old.topic_id, [*old.partitions, added], is_internal=False)
    world.publish({"t": grown})
    assert world.partition("t", 0) is first
    assert world.partition("t", 1).is_leader


def test_records_are_walked_unless_the_header_is_trusted() -> None:
    """One record more in the header's counts than there is."""
    for validation, accepted in (("full", False), ("header", True)):
        world = World(kbroker_record_validation=validation)
        world.topic()
        partition = world.partition()
        lying = build_lying_batch()
        if accepted:
            world.manager.leader_append.append_records(partition, lying, 1)
            assert partition.log.log_end_offset == 3
        else:
            with pytest.raises(KafkaError):
                world.manager.leader_append.append_records(partition, lying, 1)
            assert partition.log.log_end_offset == 0


def build_lying_batch() -> bytearray:
    data = batch(b"a", b"b")
    data[23:27] = (2).to_bytes(4, "big")  # last offset delta
    data[57:61] = (3).to_bytes(4, "big")  # records
    data[17:21] = crc32c(memoryview(data)[21:]).to_bytes(4, "big")
    return data


def test_the_planted_fault_spares_coordinators() -> None:
    world = World(faults=Faults(planted="ack_before_append"))
    world.topic()
    partition = world.partition()
    assert isinstance(partition, AckBeforeAppendPartition)
    assert world.manager.append_coordinator_batch("t", 0, batch(b"a")) == 1
    assert partition.log.log_end_offset == 1
