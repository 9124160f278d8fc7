"""The topics and settings that a cluster's metadata tells."""

import pytest

from kbroker.log_tools.cluster_metadata import (
    ClusterMetadataError,
    MetadataEnd,
    read_cluster_metadata,
)
from kbroker.protocol.internal_records.abort_transaction_record import AbortTransactionRecord
from kbroker.protocol.internal_records.begin_transaction_record import BeginTransactionRecord
from kbroker.protocol.internal_records.config_record import ConfigRecord
from kbroker.protocol.internal_records.end_transaction_record import EndTransactionRecord
from kbroker.protocol.internal_records.no_op_record import NoOpRecord
from kbroker.protocol.internal_records.partition_change_record import PartitionChangeRecord
from kbroker.protocol.internal_records.producer_ids_record import ProducerIdsRecord
from kbroker.protocol.internal_records.remove_topic_record import RemoveTopicRecord
from tests.unit.log_tools.kafka_directory import (
    METADATA,
    metadata_batch,
    topic_records,
    write_metadata_log,
    write_snapshot,
)
from tests.unit.log_tools.partition_files import TOPIC_ID

OTHER_ID = bytes(range(1, 17))


def read(tmp_path):
    return read_cluster_metadata(str(tmp_path / METADATA))


def names(metadata):
    return sorted(topic.name for topic in metadata.topics.values())


def test_a_log_from_its_beginning(tmp_path):
    write_metadata_log(
        tmp_path,
        NoOpRecord(),
        *topic_records(partitions=3),
        *topic_records("gone", OTHER_ID),
        ConfigRecord(2, "orders", "retention.ms", "1"),
        ConfigRecord(2, "orders", "segment.ms", "2"),
        ConfigRecord(2, "orders", "segment.ms", None),
        ConfigRecord(2, "gone", "segment.ms", "2"),
        RemoveTopicRecord(OTHER_ID),
        ProducerIdsRecord(1, 1, 3000),
        ProducerIdsRecord(1, 1, 2000),
    )
    metadata = read(tmp_path)
    assert names(metadata) == ["orders"]
    assert metadata.configs == {(2, "orders"): {"retention.ms": "1"}}
    assert metadata.next_producer_id == 3000
    assert sorted(metadata.topics[TOPIC_ID].partitions) == [0, 1, 2]
    assert metadata.end == MetadataEnd(1, 15)


def test_changes_of_a_partition(tmp_path):
    write_metadata_log(
        tmp_path,
        *topic_records(epoch=5),
        PartitionChangeRecord(0, TOPIC_ID, leader=-1),
        PartitionChangeRecord(0, TOPIC_ID, leader=2, isr=[2]),
        PartitionChangeRecord(0, TOPIC_ID, isr=[]),
        PartitionChangeRecord(0, TOPIC_ID, eligible_leader_replicas=[2], last_known_elr=[3]),
        PartitionChangeRecord(9, TOPIC_ID, leader=1),
    )
    partitions = read(tmp_path).topics[TOPIC_ID].partitions
    assert (partitions[0].leader_epoch, partitions[0].holders) == (7, {2, 3})
    assert (partitions[1].leader_epoch, partitions[1].holders) == (5, {1})


def test_metadata_transactions(tmp_path):
    write_metadata_log(
        tmp_path,
        BeginTransactionRecord(),
        *topic_records("aborted", OTHER_ID),
        AbortTransactionRecord(),
        BeginTransactionRecord(),
        *topic_records(),
        EndTransactionRecord(),
        BeginTransactionRecord(),
        *topic_records("unfinished", OTHER_ID),
    )
    assert names(read(tmp_path)) == ["orders"]


def test_the_newest_snapshot_and_what_follows_it(tmp_path):
    write_snapshot(tmp_path, 10, *topic_records("old", OTHER_ID))
    write_snapshot(tmp_path, 20, *topic_records())
    path = write_metadata_log(tmp_path, *topic_records("early", OTHER_ID), base_offset=5)
    with path.open("ab") as file:
        file.write(metadata_batch(ConfigRecord(2, "orders", "a", "b"), base_offset=20, epoch=3))
    metadata = read(tmp_path)
    assert names(metadata) == ["orders"]
    assert metadata.configs == {(2, "orders"): {"a": "b"}}
    assert metadata.end == MetadataEnd(3, 21)


def test_a_snapshot_without_its_end_is_passed_over(tmp_path):
    write_snapshot(tmp_path, 10, *topic_records())
    newest = write_snapshot(tmp_path, 20, *topic_records("newest", OTHER_ID))
    newest.write_bytes(newest.read_bytes()[:-75])
    assert names(read(tmp_path)) == ["orders"]
    (tmp_path / METADATA / f"{10:020d}-{1:010d}.checkpoint").unlink()
    with pytest.raises(ClusterMetadataError, match="has no end"):
        read(tmp_path)


def test_a_gap_between_snapshot_and_log(tmp_path):
    write_snapshot(tmp_path, 10, *topic_records())
    write_metadata_log(tmp_path, *topic_records("late", OTHER_ID), base_offset=12)
    with pytest.raises(ClusterMetadataError, match="the log begins behind it, at 12"):
        read(tmp_path)


def test_a_torn_end_counts_for_nothing(tmp_path):
    path = write_metadata_log(tmp_path, *topic_records())
    with path.open("ab") as file:
        file.write(metadata_batch(*topic_records("torn", OTHER_ID), base_offset=3)[:-5])
    assert names(read(tmp_path)) == ["orders"]


def test_damage_before_the_end_is_refused(tmp_path):
    path = write_metadata_log(tmp_path, *topic_records())
    write_metadata_log(tmp_path, *topic_records("late", OTHER_ID), base_offset=3)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ClusterMetadataError, match="at byte 0: the batch is damaged"):
        read(tmp_path)


def test_nothing_there(tmp_path):
    (tmp_path / METADATA).mkdir()
    with pytest.raises(ClusterMetadataError, match="holds no snapshot and no log"):
        read(tmp_path)
