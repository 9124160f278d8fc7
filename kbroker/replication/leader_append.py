"""Records of clients and coordinators on their way into a log that this broker leads.

A module of its own because it is imported, with all that validates records, when the first
partition comes to be: a broker without one is ready sooner.
"""

from typing import TYPE_CHECKING, Any

from kbroker.common.faults import Faults
from kbroker.config.config_def import LONG_MAX
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.inflate_at_once import AtOnceInflater
from kbroker.record.stream_walk import WALK_IS_COMPILED
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.batch_shapes import BatchShapes
from kbroker.storage.coordinator_batch import validate_coordinator_batch
from kbroker.storage.log_validator import ValidatedRecords, validate_records
from kbroker.storage.plain_batch import validate_plain_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kbroker.common.clock import Clock
    from kbroker.common.offload import Offload
    from kbroker.common.parts import Buffer
    from kbroker.config.broker_config import BrokerConfig, ConfigHolder
    from kbroker.replication.partition import Partition
    from kbroker.storage.unified_log import LogAppendInfo


def _walks_records(config: "BrokerConfig") -> bool:
    """``kbroker.record.validation=header`` trusts what clients say of their records."""
    return config.kbroker_record_validation != "header"


class LeaderAppend:
    """Validates batches and appends them as leader."""

    def __init__(
        self, *, config: "ConfigHolder", clock: "Clock", offload: "Offload", faults: Faults
    ) -> None:
        self._clock = clock
        self._offload = offload
        self._faults = faults
        self._has_failpoint = bool(faults.failpoint)
        self._at_once = AtOnceInflater()
        self._shapes = None if WALK_IS_COMPILED else BatchShapes()
        self._walk_records = _walks_records(config.current)
        config.subscribe(self._on_config_changed)

    def _on_config_changed(self, old: "BrokerConfig", new: "BrokerConfig") -> None:
        self._walk_records = _walks_records(new)

    def append_records(
        self,
        partition: "Partition",
        records: "Buffer",
        required_acks: int,
        *,
        is_one_batch: bool = False,
        is_alone: bool = False,
        before_late_append: "Callable[[], None] | None" = None,
    ) -> "LogAppendInfo | Coroutine[Any, Any, LogAppendInfo]":
        """Validate a client's batch and append it as leader.

        Gives a coroutine when it has to wait for a thread: to inflate, or to sync
        (flush.messages). ``is_one_batch``: see ``validate_records``. ``is_alone``: it is all of its
        request, so that it may be as much work at once as for ``append_plain_batch``.
        ``before_late_append`` is called when the validation has waited, and raises when the batch
        must not be appended.
        Raises KafkaError (RecordValidationError with the records at fault); nothing is written
        then.
        """
        batch = memoryview(records)
        config = partition.leader_log().config
        now_ms = self._clock.time_ms()
        validated: ValidatedRecords | Coroutine[Any, Any, ValidatedRecords] | None = None
        if is_one_batch and self._walk_records:
            at_once = self._at_once if is_alone else None
            validated = validate_plain_batch(
                batch, config, now_ms, at_once=at_once, shapes=self._shapes
            )
        if validated is None:
            validated = validate_records(
                batch,
                config=config,
                origin=AppendOrigin.CLIENT,
                now_ms=now_ms,
                offload=self._offload,
                topic_partition=f"{partition.topic}-{partition.index}",
                walk=self._walk_records,
                is_one_batch=is_one_batch,
                at_once=self._at_once,
            )
        if not isinstance(validated, ValidatedRecords):
            return self._append_when_validated(
                partition, validated, required_acks, before_late_append
            )
        info = self._append(partition, validated, required_acks)
        return self._when_flushed(partition, info) if info.must_flush else info

    def append_plain_batch(
        self,
        partition: "Partition",
        batch: memoryview,
        required_acks: int,
        *,
        allow_zstd: bool = True,
    ) -> "LogAppendInfo | None":
        """``append_records`` for one whole batch as most are; None: ask it, nothing has happened.

        Takes about a millisecond for a batch of 1 MiB, compressed or not: for requests of one
        batch. ``allow_zstd``: the request is of a version that may have it.
        Raises what the append raises; nothing is written then.
        """
        if not (self._walk_records and partition.is_leader):
            return None
        config = partition.log.config
        if config.flush_messages != LONG_MAX:
            return None
        validated = validate_plain_batch(
            batch,
            config,
            self._clock.time_ms(),
            at_once=self._at_once,
            allow_zstd=allow_zstd,
            shapes=self._shapes,
        )
        if validated is None:
            return None
        return self._append(partition, validated, required_acks)

    def append_plain_batches(
        self, batches: "list[tuple[Partition, memoryview]]", required_acks: int
    ) -> "list[LogAppendInfo | Exception] | None":
        """``append_plain_batch`` for one uncompressed batch each of different partitions.

        None when one of them has to go through ``append_records``: nothing has happened to any.
        Else what became of each: an error is that of its partition alone.
        """
        if not self._walk_records:
            return None
        now_ms = self._clock.time_ms()
        shapes = self._shapes
        validated: list[ValidatedRecords] = []
        for partition, batch in batches:
            config = partition.log.config
            if not partition.is_leader or config.flush_messages != LONG_MAX:
                return None
            records = validate_plain_batch(batch, config, now_ms, shapes=shapes)
            if records is None:
                return None
            validated.append(records)
        outcomes: list[LogAppendInfo | Exception] = []
        for (partition, _), records in zip(batches, validated, strict=True):
            try:
                outcomes.append(self._append(partition, records, required_acks))
            except Exception as error:  # the others are appended all the same
                outcomes.append(error)
        return outcomes

    async def _append_when_validated(
        self,
        partition: "Partition",
        validating: "Coroutine[Any, Any, ValidatedRecords]",
        required_acks: int,
        before_append: "Callable[[], None] | None",
    ) -> "LogAppendInfo":
        validated = await validating
        if before_append is not None:
            before_append()
        # The append looks anew at leadership and ISR: both may have changed meanwhile.
        info = self._append(partition, validated, required_acks)
        return await self._when_flushed(partition, info) if info.must_flush else info

    @staticmethod
    async def _when_flushed(partition: "Partition", info: "LogAppendInfo") -> "LogAppendInfo":
        """flush.messages is reached: what is answered must be on the device."""
        await partition.log.flush()
        return info

    def _append(
        self, partition: "Partition", validated: "ValidatedRecords", required_acks: int
    ) -> "LogAppendInfo":
        info = partition.append_records_to_leader(validated, required_acks)
        if self._has_failpoint:
            self._faults.hit("append.before_ack")
        return info

    def append_coordinator_batch(self, partition: "Partition", batch: bytearray) -> int:
        """Append a coordinator's batch, built by us; returns the offset that the high watermark
        must reach for it to be committed. Raises KafkaError; nothing is written then."""
        config = partition.log.config
        records = memoryview(batch)
        validated: ValidatedRecords | Coroutine[Any, Any, ValidatedRecords] | None
        validated = validate_coordinator_batch(records, config)
        if validated is None:
            validated = validate_records(
                records,
                config=config,
                origin=AppendOrigin.COORDINATOR,
                now_ms=self._clock.time_ms(),
                offload=self._offload,
            )
        if not isinstance(validated, ValidatedRecords):
            validated.close()
            raise KafkaError(
                ErrorCode.INVALID_RECORD, "a coordinator's batch must not be compressed"
            )
        info = partition.append_records_to_leader(validated, -1, AppendOrigin.COORDINATOR)
        return info.last_offset + 1
