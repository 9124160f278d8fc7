"""A Fetch request that waits for data."""

from typing import TYPE_CHECKING

from kbroker.protocol.errors import KafkaError
from kbroker.replication.log_read import FetchParams, diverging_epoch
from kbroker.replication.purgatory import DelayedOperation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbroker.replication.cached_partition import CachedPartition
    from kbroker.replication.partition import Partition
    from kbroker.replication.replica_manager import ReplicaManager


class DelayedFetch(DelayedOperation["Partition"]):
    """Complete when the partitions together hold ``min_bytes``, or one of them must be told of.

    A change costs the partition that changed, not all that are waited for.
    """

    __slots__ = ("_available", "_by_partition", "_params", "_total")

    def __init__(
        self,
        manager: "ReplicaManager",
        params: FetchParams,
        asked: "Sequence[CachedPartition]",
    ) -> None:
        super().__init__()
        self._params = params
        self._by_partition: dict[Partition, list[CachedPartition]] = {}
        self._available: dict[Partition, int] = {}
        self._total = 0
        for one in asked:
            assert one.topic is not None
            partition = manager.get_partition(one.topic, one.index)
            if partition is None:
                self.is_completed = True  # it went since it was read: the next read says so
            else:
                self._by_partition.setdefault(partition, []).append(one)

    @property
    def keys(self) -> "list[Partition]":
        """The partitions whose changes matter."""
        return list(self._by_partition)

    def try_complete(self, key: "Partition") -> bool:
        available = self._look(key)
        if available is None:
            return True
        self._total += available - self._available.get(key, 0)
        self._available[key] = available
        return self._total >= self._params.min_bytes

    def _look(self, partition: "Partition") -> int | None:
        """Bytes that a read would give now; None when the request has to be answered anyway."""
        available = 0
        for asked in self._by_partition[partition]:
            found = self._available_to(partition, asked)
            if found is None:
                return None
            available += found
        return available

    def _available_to(self, partition: "Partition", asked: "CachedPartition") -> int | None:
        params = self._params
        if partition.leader < 0 or (params.only_leader and not partition.is_leader):
            return None
        try:
            if asked.current_leader_epoch >= 0:
                partition.check_leader_epoch(asked.current_leader_epoch)
            if asked.last_fetched_epoch >= 0 and diverging_epoch(partition, asked) is not None:
                return None
            end_offset = partition.end_offset(params.isolation)
            if asked.fetch_offset > end_offset:
                return None  # truncated, or beyond what a reader may see: answered empty
            if asked.fetch_offset == end_offset:
                return 0
            if params.min_bytes <= 1:
                return 1
            active = partition.log.segments.active
            if active is not None and asked.fetch_offset < active.base_offset <= end_offset:
                return None  # a read ends with its segment: waiting would not give more
            info = partition.log.read(
                asked.fetch_offset,
                max_bytes=asked.max_bytes,
                isolation=params.isolation,
                min_one_message=False,
            )
        except (KafkaError, OSError):
            return None  # the read that follows meets the same error and answers it
        return asked.max_bytes if info.first_entry_incomplete else len(info.records)
