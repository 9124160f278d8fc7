"""Markers to the partitions of this broker, written at once or when replicas have them."""

import pytest

from kbroker.broker.transaction_markers import LocalMarkerWriter
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.transaction.marker_writer import TransactionMarker
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.data_plane import NOW_MS, World

PID = 1000
EPOCH = 4


def opened(replicas: tuple[int, ...] = (1,)) -> World:
    """Topic t with an open transaction of the producer, led here."""
    world = World()
    world.topic("t", 1, replicas=replicas, isr=replicas)
    batch = build_batch(
        [Record(key=None, value=b"v", timestamp=NOW_MS)],
        producer_id=PID,
        producer_epoch=EPOCH,
        base_sequence=0,
        transactional=True,
    )
    partition = world.partition("t")
    world.manager.leader_append.append_records(partition, memoryview(batch), 1)
    return world


def write(world: World, marker: TransactionMarker, topic: str = "t") -> "Deferred[None] | None":
    writer = LocalMarkerWriter(world.manager, lambda: world.group_coordinator, world.clock)
    return writer.write(topic, 0, marker)


def marker(epoch: int, *, level: int = 2, coordinator_epoch: int = 0) -> TransactionMarker:
    return TransactionMarker(PID, epoch, coordinator_epoch, False, level)


def refusal(world: World, refused: TransactionMarker, topic: str = "t") -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        write(world, refused, topic)
    return caught.value.error_code


def test_a_marker_ends_the_transaction() -> None:
    world = opened()
    log = world.partition("t").log
    assert log.last_stable_offset == 0
    assert write(world, marker(EPOCH + 1)) is None
    assert (log.last_stable_offset, log.log_end_offset) == (2, 2)
    assert write(world, marker(EPOCH + 1)) is None, "asked again: nothing is open"
    assert log.last_stable_offset == 3


@pytest.mark.parametrize(("level", "epoch"), [(2, EPOCH), (2, EPOCH - 1), (1, EPOCH - 1), (0, 0)])
def test_late_markers_are_refused(level: int, epoch: int) -> None:
    """At level 2 those of the records' own epoch too: they are of the transaction before."""
    world = opened()
    assert refusal(world, marker(epoch, level=level)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert world.partition("t").log.log_end_offset == 1


def test_before_level_2_the_epoch_is_that_of_the_records() -> None:
    world = opened()
    assert write(world, marker(EPOCH, level=1)) is None
    assert world.partition("t").log.last_stable_offset == 2


def test_what_else_is_refused() -> None:
    world = opened()
    assert refusal(world, marker(1), "?") is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert refusal(world, marker(-1)) is ErrorCode.UNKNOWN_SERVER_ERROR
    assert write(world, marker(EPOCH + 1, coordinator_epoch=9)) is None
    late = marker(EPOCH + 2, coordinator_epoch=8)
    assert refusal(world, late) is ErrorCode.TRANSACTION_COORDINATOR_FENCED


def test_a_marker_that_replicas_do_not_have_is_waited_for() -> None:
    world = opened((1, 2))
    outcome = write(world, marker(EPOCH + 1))
    assert isinstance(outcome, Deferred)
    assert not outcome.done
    partition = world.partition("t")
    follower = partition.follower(2, knows_leader_epoch=True)
    partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    assert not outcome.done
    partition.update_follower(follower, log_end_offset=2, log_start_offset=0)
    assert outcome.done
    assert outcome.result() is None


@pytest.mark.parametrize("change", ["resigned", "deleted"])
def test_how_else_the_wait_ends(change: str) -> None:
    world = opened((1, 2))
    outcome = write(world, marker(EPOCH + 1))
    assert isinstance(outcome, Deferred)
    if change == "deleted":
        world.delete_topic("t")
        assert outcome.result() is None, "there is nothing left to end"
    else:
        world.change_partition("t", 0, leader=2, leader_epoch=1)
        with pytest.raises(KafkaError) as caught:
            outcome.result()
        assert caught.value.error_code is ErrorCode.NOT_LEADER_OR_FOLLOWER
