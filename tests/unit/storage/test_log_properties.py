"""Random appends, reads, truncations, deletions and reopenings against a list."""

import itertools
import random

import anyio
import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.errors import KafkaError
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_retention import delete_old_segments
from kbroker.storage.unified_log import UnifiedLog
from tests.sizes import size
from tests.unit.storage.log_fixture import (
    append,
    batch,
    config,
    environment,
    new_log,
    read_all,
    read_bytes,
    records_of,
    reload,
)


class Model:
    """The log as a list of batches: (first offset, values, timestamps, epoch)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.config = config(
            segment_bytes=self.random.choice([300, 500, 3000]),
            index_interval_bytes=self.random.choice([0, 50, 300]),
            segment_ms=self.random.choice([100, 10**9]),
            retention_bytes=self.random.choice([-1, 1500]),
            retention_ms=-1,
        )
        self.log = new_log(environment(MemoryFileSystem()), self.config)
        self.batches: list[tuple[int, list[bytes], list[int], int]] = []
        self.log_start = 0
        self.end = 0
        self.epoch = 0
        self.recovery_point = 0
        self.sequence = dict.fromkeys(range(3), 0)
        self.appended: dict[int, list[tuple[int, int]]] = {}

    # Steps

    def append(self) -> None:
        count = self.random.randint(1, 4)
        values = [b"%d" % self.random.randint(0, 10 ** self.random.randint(1, 40))] * count
        timestamps = [self.random.randint(0, 1000) for _ in values]
        if self.random.random() < 0.1:
            self.epoch += 1
        producer_id = self.random.randint(-2, 2)
        sequence = self.sequence.get(producer_id, 0)
        data = batch(
            *values,
            timestamps=timestamps,
            producer_id=max(producer_id, -1),
            base_sequence=sequence,
            compression=self.random.choice([0, 0, 1]),
        )
        info = append(self.log, data, leader_epoch=self.epoch)
        assert (info.first_offset, info.last_offset) == (self.end, self.end + count - 1)
        if producer_id >= 0:
            self.appended.setdefault(producer_id, []).append((sequence, self.end))
            self.sequence[producer_id] = sequence + count
            again = append(self.log, data, leader_epoch=self.epoch)
            assert again.duplicate and again.first_offset == self.end
        self.batches.append((self.end, values, timestamps, self.epoch))
        self.end += count

    def truncate(self) -> None:
        if not self.batches:
            return
        # Where a batch begins, as a follower truncates.
        keep = self.random.randint(max(0, len(self.batches) - 3), len(self.batches))
        self.end = self.batches[keep][0] if keep < len(self.batches) else self.end
        del self.batches[keep:]
        for producer_id, appended in self.appended.items():
            while appended and appended[-1][1] >= self.end:
                self.sequence[producer_id] = appended.pop()[0]
        self.log.truncate_to(self.end)
        self.log_start = min(self.log_start, self.end)
        self.recovery_point = min(self.recovery_point, self.end)

    def delete_records(self) -> None:
        self.log_start = max(
            self.log_start, self.random.randint(self.log_start, max(self.log_start, self.end))
        )
        self.log.maybe_increment_log_start_offset(self.log_start)

    def retain(self) -> None:
        delete_old_segments(self.log)
        self.log_start = self.log.log_start_offset

    def roll(self) -> None:
        self.log.roll()

    def flush(self) -> None:
        anyio.run(self.log.flush)
        self.recovery_point = self.log.recovery_point

    def idle(self) -> None:
        self.log.env.open_files.close_idle()

    def reopen(self) -> None:
        if not self.log.has_files:
            return
        is_clean = self.random.random() < 0.5
        if is_clean:
            self.log.close()
        self.log = reload(
            self.log,
            is_clean=is_clean,
            recovery_point=self.recovery_point,
            log_start_offset=self.log_start,
        )
        self.log.update_high_watermark(self.log.log_end_offset)

    def step(self) -> None:
        steps = [self.append] * 12 + [
            self.truncate,
            self.delete_records,
            self.retain,
            self.roll,
            self.flush,
            self.idle,
            self.idle,
            self.reopen,
        ]
        self.random.choice(steps)()

    # Checks

    def expected(self) -> list[tuple[int, bytes]]:
        return [
            (first + number, value)
            for first, values, _, _ in self.batches
            for number, value in enumerate(values)
            if first + number >= self.log_start
        ]

    def check(self) -> None:
        log = self.log
        assert (log.log_start_offset, log.log_end_offset) == (self.log_start, self.end)
        assert log.high_watermark == log.last_stable_offset == self.end
        assert read_all(log) == self.expected()
        self.check_reads(log)
        self.check_epochs(log)
        self.check_times(log)
        for producer_id, appended in self.appended.items():
            entry = log.producer_state.producers.get(producer_id)
            if appended and entry is not None and entry.batches:
                assert entry.last_sequence == self.sequence[producer_id] - 1

    def check_reads(self, log: UnifiedLog) -> None:
        for _ in range(5):
            offset = self.random.randint(0, self.end + 1)
            if not self.log_start <= offset <= self.end:
                with pytest.raises(KafkaError):
                    read_bytes(log, offset)
                continue
            found = records_of(
                read_bytes(
                    log,
                    offset,
                    max_bytes=self.random.randint(0, 600),
                    isolation=self.random.choice(list(FetchIsolation)),
                )
            )
            wanted = [each for each in self.expected() if each[0] >= offset]
            got = [(each.offset, each.value) for each in found if each.offset >= offset]
            assert got == wanted[: len(got)]
            assert bool(got) is bool(wanted)

    def check_epochs(self, log: UnifiedLog) -> None:
        if self.expected():  # an epoch that begins at the log's end is forgotten on reopening
            assert log.latest_epoch == self.batches[-1][3]
            for number, (first, _, _, epoch) in enumerate(self.batches):
                if first >= self.log_start:
                    higher = [each[0] for each in self.batches[number:] if each[3] > epoch]
                    assert log.end_offset_for_epoch(epoch) == (
                        epoch,
                        higher[0] if higher else self.end,
                    )

    def check_times(self, log: UnifiedLog) -> None:
        times = {
            first + number: timestamp
            for first, _, timestamps, _ in self.batches
            for number, timestamp in enumerate(timestamps)
        }
        target = self.random.randint(0, 1000)
        found = log.offset_for_timestamp(target)
        if found is not None:
            assert found.offset >= self.log_start
            assert times[found.offset] == found.timestamp >= target
        segment_starts = [*log.segments.base_offsets, self.end]
        for base, end in itertools.pairwise(segment_starts):
            inside = [time for offset, time in times.items() if base <= offset < end]
            segment = log.segments.floor(base)
            assert segment is not None
            if inside:
                assert segment.largest_timestamp.timestamp == max(inside)


@pytest.mark.parametrize("seed", range(size(ci=12, full=600)))
def test_a_log_is_a_list(seed: int) -> None:
    model = Model(seed)
    for _ in range(80):
        model.step()
        if model.random.random() < 0.3:
            model.check()
    model.check()
    model.reopen()
    model.check()
