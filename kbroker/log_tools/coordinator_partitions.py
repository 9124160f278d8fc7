"""How many partitions a coordinator's topic has, where only some of their directories are at hand.

A group or transactional id belongs to partition ``hash(id) % count``: with a wrong count nobody
would find what was committed. The ids in the logs tell which counts can be.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from kbroker.coordinator.partitioning import partition_for
from kbroker.log_tools.log_scan import Batch, Damage, scan_log
from kbroker.log_tools.partition_listing import LOG, PartitionListing
from kbroker.log_tools.read_only import opened
from kbroker.log_tools.replica import Replica
from kbroker.metadata.topic_names import CONSUMER_OFFSETS, TRANSACTION_STATE
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import CONTROL_BIT, RecordBatchHeader
from kbroker.record.record import iter_records

PLACED_BY_ID: Final = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE})
_DEFAULT_COUNT: Final = 50
_LARGEST_COUNT: Final = 1000
_IDS_PER_PARTITION: Final = 20
_RECORDS_PER_PARTITION: Final = 10_000
_KEY_PREFIX = struct.Struct(">hh")  # of every key: record type, length of the id that follows


def partition_count(found: int, replicas: Sequence[Replica]) -> int | None:
    """``found`` partitions or more; None when no count agrees with the ids in these logs."""
    ids = [(replica.key[1], each) for replica in replicas for each in _some_ids(replica)]
    candidates: list[int] = [found, _DEFAULT_COUNT, *range(found + 1, _LARGEST_COUNT + 1)]
    for count in candidates:
        if count >= found and all(partition_for(each, count) == index for index, each in ids):
            return count
    return None


def _some_ids(replica: Replica) -> set[str]:
    """Groups, or transactional ids, of the partition's first records."""
    ids: set[str] = set()
    seen = 0
    for key in _keys(PartitionListing(replica.path)):
        seen += 1
        if len(ids) == _IDS_PER_PARTITION or seen > _RECORDS_PER_PARTITION:
            break
        if len(key) < _KEY_PREFIX.size:
            continue
        _, size = _KEY_PREFIX.unpack_from(key)
        if 0 < size <= len(key) - _KEY_PREFIX.size:
            ids.add(bytes(key[_KEY_PREFIX.size : _KEY_PREFIX.size + size]).decode(errors="replace"))
    return ids


def _keys(listing: PartitionListing) -> Iterator[bytes]:
    for base_offset in listing.base_offsets:
        with opened(listing.path(base_offset, LOG)) as file:
            for found in scan_log(file, 0, file.size()):
                if isinstance(found, Damage) or not found.is_valid:
                    break
                if not isinstance(found, Batch) or found.header.attributes & CONTROL_BIT:
                    continue
                data = found.data or b""
                try:
                    records = list(iter_records(data, RecordBatchHeader(data)))
                except KafkaError:
                    continue  # the coordinator passes over such a batch too
                for record in records:
                    if record.key is not None:
                        yield record.key
