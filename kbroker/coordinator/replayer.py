"""Replays a partition's batches into a shard, the last record of a key in place of all before it.

Replaying a compacted log gives the same state as replaying it whole; so within a window of records
only the last of each key is decoded and replayed, which makes loading a log of many commits to few
partitions as cheap as iterating it. Transactional records and markers are replayed in their order.
"""

import logging

from anyio.lowlevel import checkpoint

from kbroker.coordinator.record_scan import BatchContent, open_batch, scan_in_order, scan_latest
from kbroker.coordinator.shard import (
    CoordinatorRecordSerde,
    CoordinatorShard,
    EncodedReplay,
    UnknownRecord,
)
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import DecodeError
from kbroker.record.batch import CONTROL_ABORT, CONTROL_COMMIT, read_control_type

WINDOW = 20_000
"""Distinct keys held before they are replayed: some megabytes."""
TURN = 256
"""Records replayed before other tasks get their turn: about 2 ms."""

_NO_PRODUCER_ID = -1


class Replayer:
    """One load. ``add`` batches in order, ``flush`` when it says so and at the end."""

    def __init__(
        self,
        shard: CoordinatorShard,
        serde: CoordinatorRecordSerde,
        log: logging.Logger,
        encoded: EncodedReplay | None = None,
    ) -> None:
        self._shard = shard
        self._encoded = encoded
        self._serde = serde
        self._log = log
        self._latest: dict[bytes, tuple[int, bytes | None]] = {}
        self._in_order: list[tuple[int, int, bytes, bytes | None]] = []
        self.next_offset = 0
        """The offset after the last record seen."""
        self.record_count = 0

    def add(self, batch: memoryview) -> bool:
        """Take one whole batch; True when ``flush`` should be called.

        A batch whose records cannot be read is skipped and logged: the rest of the log counts.
        """
        try:
            content = open_batch(batch)
            self.next_offset = content.next_offset
            self.record_count += content.record_count
            if content.is_in_order:
                self._add_in_order(content)
            else:
                scan_latest(content, self._latest)
        except KafkaError as error:
            self._log.error("skipped a batch behind offset %d: %s", self.next_offset, error)
        return len(self._latest) >= WINDOW or bool(self._in_order)

    def _add_in_order(self, content: BatchContent) -> None:
        producer_id = content.producer_id
        for offset, key, value in scan_in_order(content):
            if not content.is_control:
                self._in_order.append((offset, producer_id, key, value))
                continue
            kind = read_control_type(key)
            if kind in (CONTROL_ABORT, CONTROL_COMMIT):
                marker = b"" if kind == CONTROL_ABORT else b"commit"
                self._in_order.append((_MARKER, producer_id, b"", marker))

    async def flush(self) -> None:
        """Replay what has been collected, giving way now and then."""
        latest, self._latest = self._latest, {}
        in_order, self._in_order = self._in_order, []
        count = 0
        encoded = self._encoded
        for key, (offset, value) in latest.items():
            if encoded is None or not encoded.replay(offset, key, value):
                self._replay(offset, _NO_PRODUCER_ID, key, value)
            count += 1
            if count % TURN == 0:
                await checkpoint()
        if in_order and encoded is not None:
            encoded.forget()
        for offset, producer_id, key, value in in_order:
            if offset == _MARKER:
                self._shard.replay_end_transaction_marker(producer_id, commit=bool(value))
            else:
                self._replay(offset, producer_id, key, value)
            count += 1
            if count % TURN == 0:
                await checkpoint()

    def _replay(self, offset: int, producer_id: int, key: bytes, value: bytes | None) -> None:
        try:
            key_message, value_message = self._serde.deserialize(key, value)
        except UnknownRecord as error:
            self._log.warning("skipped a record at offset %d: %s", offset, error)
        except DecodeError as error:
            self._log.error("skipped a record at offset %d: %s", offset, error)
        else:
            self._shard.replay(offset, producer_id, key_message, value_message)


_MARKER = -1
"""In place of an offset: the entry ends a transaction."""
