"""Which old segments go: by time, by size, or because the log starts behind them."""

from collections.abc import Callable

from kbroker.storage.dormant_log import DormantLog
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.unified_log import UnifiedLog


def delete_old_segments(log: UnifiedLog) -> int:
    """Delete the segments that the topic's settings say may go; returns how many.

    Only from the front, never at or above the high watermark. The active segment may go too when
    time or size say so: an empty one takes its place. KAFKA_STORAGE_ERROR.
    """
    if not log.has_files:
        return 0
    config = log.config
    count = _delete_below_log_start(log)  # first: what it takes may hold back the others
    if config.delete:
        if config.retention_bytes >= 0:
            count += _delete_above_size(log, config.retention_bytes)
        if config.retention_ms >= 0:
            count += _delete_older_than(log, log.env.clock.time_ms() - config.retention_ms)
    return count


def may_have_old_segments(log: DormantLog, now_ms: int) -> bool:
    """Whether ``delete_old_segments`` would find one, told without loading the log; in doubt yes.

    Only segments whose end is replicated may go, and the first one goes first.
    """
    state, config = log.state, log.config
    if log.log_start_offset > state.first_base_offset and state.segment_count > 1:
        return True
    if not config.delete or not state.oldest_size:
        return False
    if config.retention_ms >= 0 and state.oldest_timestamp < now_ms - config.retention_ms:
        return True
    return 0 <= config.retention_bytes <= state.size - state.oldest_size


def _delete_older_than(log: UnifiedLog, oldest_ms: int) -> int:
    def is_old(segment: LogSegment, following: LogSegment | None) -> bool:
        return segment.largest_time_ms < oldest_ms

    return _delete_while(log, is_old)


def _delete_above_size(log: UnifiedLog, retention_bytes: int) -> int:
    excess = log.size - retention_bytes

    def is_excess(segment: LogSegment, following: LogSegment | None) -> bool:
        nonlocal excess
        if excess < segment.size:
            return False
        excess -= segment.size
        return True

    return _delete_while(log, is_excess) if excess > 0 else 0


def _delete_below_log_start(log: UnifiedLog) -> int:
    def is_below(segment: LogSegment, following: LogSegment | None) -> bool:
        return following is not None and following.base_offset <= log.log_start_offset

    return _delete_while(log, is_below)


def _delete_while(log: UnifiedLog, may_go: Callable[[LogSegment, LogSegment | None], bool]) -> int:
    segments = list(log.segments)
    deletable: list[LogSegment] = []
    for number, segment in enumerate(segments):
        following = segments[number + 1] if number + 1 < len(segments) else None
        end = following.base_offset if following is not None else log.log_end_offset
        if following is None and not segment.size:
            break
        if end > log.high_watermark or not may_go(segment, following):
            break
        deletable.append(segment)
    if deletable:
        if len(deletable) == len(segments):
            log.roll()
        log.delete_from_front(deletable)
    return len(deletable)
