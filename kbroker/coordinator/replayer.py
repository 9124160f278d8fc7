"""Replays a partition's batches into a shard, the last record of a key in place of all before it.

Replaying a compacted log gives the same state as replaying it whole; so within a window of records
only the last of each key is decoded and replayed, which makes loading a log of many commits to few
partitions as cheap as iterating it. Transactional records and markers are replayed in their order.
"""

import logging
from collections.abc import Iterator
from itertools import islice

from anyio.lowlevel import checkpoint

from kbroker.coordinator.record_scan import (
    BatchContent,
    Place,
    open_batch,
    scan_in_order,
    scan_latest,
    scan_plain_batches,
)
from kbroker.coordinator.shard import (
    CoordinatorRecordSerde,
    CoordinatorShard,
    EncodedRecord,
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
    """One load. ``add`` batches in order, ``flush`` at the end."""

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
        self._place = Place()
        self._replayed = 0  # since other tasks had their turn

    @property
    def next_offset(self) -> int:
        """The offset after the last record seen."""
        return self._place.next_offset

    @property
    def record_count(self) -> int:
        """Records seen."""
        return self._place.record_count

    async def add(self, run: bytes) -> None:
        """Take whole batches, one behind the other.

        A batch whose records cannot be read is skipped and logged: the rest of the log counts.
        """
        place = self._place
        place.position = 0
        while place.position < len(run):
            try:
                scan_plain_batches(run, place, self._latest, WINDOW)
                if place.position < len(run) and len(self._latest) < WINDOW:
                    self._add_batch(open_batch(run, place))
            except KafkaError as error:
                self._log.error("skipped a batch behind offset %d: %s", self.next_offset, error)
            if len(self._latest) >= WINDOW or self._in_order:
                await self.flush()

    def _add_batch(self, content: BatchContent) -> None:
        if content.is_in_order:
            self._add_in_order(content)
        else:
            scan_latest(content, self._latest)

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
        """Replay what has been collected; it and ``add`` give way now and then."""
        latest, self._latest = self._latest, {}
        in_order, self._in_order = self._in_order, []
        records = iter(latest.items())
        for left in range(len(latest), 0, -TURN):
            self._replay_turn(islice(records, TURN))
            self._replayed += min(left, TURN)
            await self._maybe_give_way()
        if in_order and self._encoded is not None:
            self._encoded.forget()
        for offset, producer_id, key, value in in_order:
            if offset == _MARKER:
                self._shard.replay_end_transaction_marker(producer_id, commit=bool(value))
            else:
                self._replay(offset, producer_id, key, value)
            self._replayed += 1
            await self._maybe_give_way()

    async def _maybe_give_way(self) -> None:
        if self._replayed >= TURN:
            self._replayed = 0
            await checkpoint()

    def _replay_turn(self, records: Iterator[EncodedRecord]) -> None:
        encoded = self._encoded
        if encoded is not None:
            while (unusual := encoded.replay(records)) is not None:
                key, (offset, value) = unusual
                self._replay(offset, _NO_PRODUCER_ID, key, value)
            return
        for key, (offset, value) in records:
            self._replay(offset, _NO_PRODUCER_ID, key, value)

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
