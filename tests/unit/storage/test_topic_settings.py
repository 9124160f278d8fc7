"""Every setting of a topic acts on a log that is in use: changed from one append to the next.

``ACTS`` has a check for each that the log engine acts upon, ``ELSEWHERE`` says of the others where
they act, or why they do not.
"""

from collections.abc import Callable

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, build_batch
from kbroker.record.record import Record
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_cleaner import LogCleaner
from kbroker.storage.log_retention import delete_old_segments
from kbroker.storage.log_validator import ValidatedRecords, validate_records
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    append,
    append_values,
    batch,
    config,
    environment,
    new_log,
)

NOW = 2_000_000
ELSEWHERE = {
    "min.insync.replicas": "Partition: test_partition",
    "unclean.leader.election.enable": "elections, once there is more than one replica",
    "leader.replication.throttled.replicas": "replication quotas, once followers fetch",
    "follower.replication.throttled.replicas": "replication quotas, once followers fetch",
    "remote.storage.enable": "no tiered storage: refused when it is set",
    "remote.log.copy.disable": "no tiered storage",
    "remote.log.delete.on.disable": "no tiered storage",
    "local.retention.ms": "no tiered storage",
    "local.retention.bytes": "no tiered storage",
    "internal.segment.bytes": "for Kafka's own tests; segment.bytes does the same here",
}
ACTS: dict[str, Callable[[UnifiedLog], None]] = {}


def acts(name: str) -> Callable[[Callable[[UnifiedLog], None]], Callable[[UnifiedLog], None]]:
    def add(check: Callable[[UnifiedLog], None]) -> Callable[[UnifiedLog], None]:
        ACTS[name] = check
        return check

    return add


def change(log: UnifiedLog, **settings: object) -> None:
    kept = {"retention_ms": -1}
    log.update_config(config(**{**kept, **settings}))


def put(log: UnifiedLog, key: bytes, value: bytes | None, timestamp: int = NOW) -> None:
    append(log, build_batch([Record(key=key, value=value, timestamp=timestamp)]))


def validated(log: UnifiedLog, data: bytearray, now_ms: int = NOW) -> ValidatedRecords:
    found = validate_records(
        memoryview(data),
        config=log.config,
        origin=AppendOrigin.CLIENT,
        now_ms=now_ms,
        offload=InlineOffload(),
    )
    if isinstance(found, ValidatedRecords):
        return found

    async def wait() -> ValidatedRecords:
        return await found

    return anyio.run(wait)


def refused(log: UnifiedLog, data: bytearray) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        validated(log, data)
    return caught.value.error_code


@acts("segment.bytes")
def segment_bytes(log: UnifiedLog) -> None:
    change(log, segment_bytes=100)
    append_values(log, b"c")
    assert len(log.segments) == 2


@acts("segment.ms")
def segment_ms(log: UnifiedLog) -> None:
    change(log, segment_ms=10)
    append(log, batch(b"c", timestamps=[1011]))
    assert len(log.segments) == 2


@acts("segment.jitter.ms")
def segment_jitter_ms(log: UnifiedLog) -> None:
    change(log, segment_ms=10**6, segment_jitter_ms=10**6)
    log.roll()
    active = log.segments.active
    assert active is not None and 0 < active.roll_jitter_ms < 10**6


@acts("segment.index.bytes")
def segment_index_bytes(log: UnifiedLog) -> None:
    change(log, segment_index_bytes=16, index_interval_bytes=0)
    for _ in range(5):
        append_values(log, b"c")
    assert len(log.segments) > 1


@acts("index.interval.bytes")
def index_interval_bytes(log: UnifiedLog) -> None:
    change(log, index_interval_bytes=0)
    append_values(log, b"c")
    active = log.segments.active
    assert active is not None and len(active.offset_index) == 1


@acts("preallocate")
def preallocate(log: UnifiedLog) -> None:
    change(log, preallocate=True, segment_bytes=5000)
    log.roll()
    active = log.segments.active
    assert active is not None and log.env.files.size(active.log_path) == 5000


@acts("retention.ms")
def retention_ms(log: UnifiedLog) -> None:
    log.roll()
    change(log, retention_ms=1000)
    assert delete_old_segments(log) == 1


@acts("retention.bytes")
def retention_bytes(log: UnifiedLog) -> None:
    log.roll()
    append_values(log, b"c")
    change(log, retention_bytes=60)
    assert delete_old_segments(log) == 1


@acts("file.delete.delay.ms")
def file_delete_delay_ms(log: UnifiedLog) -> None:
    delays: list[int] = []
    log.env.remove_later = lambda paths, delay_ms: delays.append(delay_ms)
    log.roll()
    change(log, retention_ms=1, file_delete_delay_ms=77)
    delete_old_segments(log)
    assert delays == [77]


@acts("flush.messages")
def flush_messages(log: UnifiedLog) -> None:
    change(log, flush_messages=3)
    assert append_values(log, b"c").must_flush


@acts("flush.ms")
def flush_ms(log: UnifiedLog) -> None:
    asked: list[int] = []
    log.env.on_dirty = lambda log, flush_ms: asked.append(flush_ms)
    change(log, flush_ms=5)  # the log is dirty already
    anyio.run(log.flush)
    append_values(log, b"c")
    assert asked == [5, 5]


def choose(log: UnifiedLog, last_cleaned: int | None = None) -> bool:
    return LogCleaner(log.env).choose([log], lambda _: last_cleaned) is not None


@acts("cleanup.policy")
def cleanup_policy(log: UnifiedLog) -> None:
    put(log, b"k", b"1")
    log.roll()
    assert not choose(log)
    change(log, cleanup_policy="compact")
    assert choose(log)


@acts("min.cleanable.dirty.ratio")
def min_cleanable_dirty_ratio(log: UnifiedLog) -> None:
    put(log, b"k", b"1")
    log.roll()
    put(log, b"k", b"2")
    log.roll()
    middle = log.segments.base_offsets[1]
    change(log, cleanup_policy="compact", min_cleanable_dirty_ratio=0.9)
    assert not choose(log, middle)
    change(log, cleanup_policy="compact", min_cleanable_dirty_ratio=0.1)
    assert choose(log, middle)


@acts("min.compaction.lag.ms")
def min_compaction_lag_ms(log: UnifiedLog) -> None:
    log.truncate_fully_and_start_at(0)
    put(log, b"k", b"1", timestamp=NOW - 50)
    log.roll()
    change(log, cleanup_policy="compact", min_compaction_lag_ms=100)
    assert not choose(log)
    change(log, cleanup_policy="compact", min_compaction_lag_ms=10)
    assert choose(log)


@acts("max.compaction.lag.ms")
def max_compaction_lag_ms(log: UnifiedLog) -> None:
    put(log, b"k", b"1", timestamp=NOW - 50)
    log.roll()
    settings = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": 1.0}
    change(log, **settings)
    assert not choose(log)
    change(log, **settings, max_compaction_lag_ms=10)
    assert choose(log)


@acts("delete.retention.ms")
def delete_retention_ms(log: UnifiedLog) -> None:
    log.truncate_fully_and_start_at(0)
    put(log, b"k", None)
    log.roll()
    change(log, cleanup_policy="compact", delete_retention_ms=123)
    cleaner = LogCleaner(log.env)
    found = cleaner.choose([log], lambda _: None)
    assert found is not None
    anyio.run(cleaner.clean, found)
    (data,) = log.read_batches(0)
    assert RecordBatchHeader(data).delete_horizon_ms == NOW + 123


@acts("compression.type")
def compression_type(log: UnifiedLog) -> None:
    change(log, compression_type="gzip")
    assert validated(log, batch(b"v" * 500)).attributes & 7 == 1


def _compressed_size(log: UnifiedLog) -> int:
    text = b"".join(b"%d," % (number * number) for number in range(4000))
    return len(validated(log, batch(text)).data)


@acts("compression.gzip.level")
def compression_gzip_level(log: UnifiedLog) -> None:
    change(log, compression_type="gzip", compression_gzip_level=1)
    fast = _compressed_size(log)
    change(log, compression_type="gzip", compression_gzip_level=9)
    assert _compressed_size(log) < fast


@acts("compression.zstd.level")
def compression_zstd_level(log: UnifiedLog) -> None:
    change(log, compression_type="zstd", compression_zstd_level=1)
    fast = _compressed_size(log)
    change(log, compression_type="zstd", compression_zstd_level=19)
    assert _compressed_size(log) != fast


@acts("compression.lz4.level")
def compression_lz4_level(log: UnifiedLog) -> None:
    change(log, compression_type="lz4", compression_lz4_level=1)
    fast = _compressed_size(log)
    change(log, compression_type="lz4", compression_lz4_level=12)
    assert _compressed_size(log) < fast


@acts("max.message.bytes")
def max_message_bytes(log: UnifiedLog) -> None:
    data = batch(b"v" * 200)
    change(log, max_message_bytes=100)
    assert refused(log, data) is ErrorCode.MESSAGE_TOO_LARGE


@acts("message.timestamp.type")
def message_timestamp_type(log: UnifiedLog) -> None:
    change(log, message_timestamp_type="LogAppendTime")
    assert validated(log, batch(b"v"), NOW + 5).max_timestamp == NOW + 5


@acts("message.timestamp.before.max.ms")
def message_timestamp_before_max_ms(log: UnifiedLog) -> None:
    change(log, message_timestamp_before_max_ms=10)
    assert refused(log, batch(b"v", timestamps=[NOW - 11])) is ErrorCode.INVALID_TIMESTAMP


@acts("message.timestamp.after.max.ms")
def message_timestamp_after_max_ms(log: UnifiedLog) -> None:
    change(log, message_timestamp_after_max_ms=10)
    assert refused(log, batch(b"v", timestamps=[NOW + 11])) is ErrorCode.INVALID_TIMESTAMP


def test_every_setting_is_here() -> None:
    assert not ACTS.keys() & ELSEWHERE.keys()
    assert {*ACTS, *ELSEWHERE} == set(LogConfig.settings())


@pytest.mark.parametrize("name", sorted(ACTS))
def test_a_change_acts_on_a_log_in_use(name: str) -> None:
    log = new_log(environment(clock=ManualClock(time_ms=NOW)), config(retention_ms=-1))
    append_values(log, b"a", b"b")
    ACTS[name](log)
