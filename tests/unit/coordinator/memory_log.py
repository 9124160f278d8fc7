"""The log a coordinator writes to, in memory: appends may fail, and commit when the test says."""

from collections import defaultdict
from collections.abc import AsyncIterator

from anyio.lowlevel import checkpoint

from kbroker.coordinator.writer import PartitionListener
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, patch
from kbroker.record.record import Record, iter_records


class MemoryLog:
    """PartitionWriter and CoordinatorLoader in one.

    ``replicated`` True moves the high watermark at each append, as an in-sync set of one does;
    otherwise ``commit`` does. ``failure`` is raised by the next appends.
    """

    def __init__(self) -> None:
        self.batches: dict[int, list[bytearray]] = defaultdict(list)
        self.ends: dict[int, int] = defaultdict(int)
        self.high_watermarks: dict[int, int] = defaultdict(int)
        self.listeners: dict[int, list[PartitionListener]] = defaultdict(list)
        self.replicated = True
        self.failure: Exception | None = None
        self.load_failures: list[Exception] = []
        self.size_limit = 1_048_588

    # -- PartitionWriter

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        if self.failure is not None:
            raise self.failure
        if len(batch) > self.size_limit:
            raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE)
        header = RecordBatchHeader(batch)
        patch(batch, 0, self.ends[partition], 0)
        self.batches[partition].append(batch)
        self.ends[partition] += header.last_offset_delta + 1
        if self.replicated:
            self.commit(topic, partition)
        return self.ends[partition]

    def commit(self, topic: str, partition: int) -> None:
        """All that is written is committed."""
        self.high_watermarks[partition] = self.ends[partition]
        for listener in list(self.listeners[partition]):
            listener.on_high_watermark_updated(topic, partition, self.ends[partition])

    def high_watermark(self, topic: str, partition: int) -> int:
        return self.high_watermarks[partition]

    def max_batch_size(self, topic: str, partition: int) -> int:
        return self.size_limit

    def register_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self.listeners[partition].append(listener)

    def deregister_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self.listeners[partition].remove(listener)

    # -- CoordinatorLoader

    def is_empty(self, topic: str, partition: int) -> bool:
        return not self.batches[partition]

    async def load(self, topic: str, partition: int) -> AsyncIterator[bytes]:
        if self.load_failures:
            raise self.load_failures.pop()
        for number, batch in enumerate(list(self.batches[partition])):
            if number % 64 == 0:
                await checkpoint()
            yield bytes(batch)

    # -- what tests look at

    def records(self, partition: int) -> list[Record]:
        """All records, in order."""
        return [record for batch in self.batches[partition] for record in iter_records(batch)]

    def fail(self, error: KafkaError | Exception) -> None:
        """Let appends fail from now on."""
        self.failure = error
