"""The walk over record data that arrives in chunks, as a decompressor gives it.

Whole records of a chunk are passed by ``walk.walk_records``; the record that lies across the end of
a chunk is followed byte by byte, its key and value are counted, not kept. So memory stays at one
chunk, whatever lengths the data claims.
"""

from collections.abc import Callable, Generator
from types import FunctionType
from typing import Final, cast

from kbroker.protocol.error_codes import ErrorCode
from kbroker.record.encoding import Bytes, wrap_int64
from kbroker.record.walk import NO_TIMESTAMP, WalkResult, check_end, invalid, walk_records

WALK_IS_COMPILED: Final = not isinstance(walk_records, FunctionType)


def walkable(data: Bytes) -> bytes:
    """``data`` as ``kbroker.record.walk`` takes it: copied to bytes only where that is compiled."""
    return bytes(data) if WALK_IS_COMPILED else cast("bytes", data)


_EQUAL_FROM: Final = 24
"""Of fewer records each is looked at."""
_FIRST_STEP: Final = 8
_LAST_STEP: Final = 256


def walk_on(
    data: Bytes,
    position: int,
    end: int,
    *,
    limit: int,
    base_timestamp: int,
    result: WalkResult,
    strict: bool,
    length_error: ErrorCode = ErrorCode.INVALID_RECORD,
    buffer: bytearray | None = None,
    count: int | None = None,
) -> int:
    """``walk_records``, quicker where records of one shape follow each other.

    Where they do not, it is tried again after so many records that trying costs a hundredth.
    ``buffer`` begins with ``data``, and is the better of the two to take columns from. ``count``
    records should fill the data, by default ``limit``: when all have one shape, all are passed.
    Compiled, the walk itself is as quick as columns of short runs, but takes nothing but bytes.
    """
    step = limit - result.index
    is_worth_it = step >= _EQUAL_FROM
    if buffer is None:
        data = walkable(data)
    columns = data if buffer is None else buffer
    if is_worth_it:
        # Not before it is needed: nothing that a broker must load to be ready.
        if not result.index:
            from kbroker.record.equal_batch import pass_equal_batch

            position = pass_equal_batch(
                columns,
                position,
                end,
                count=limit if count is None else count,
                base_timestamp=base_timestamp,
                result=result,
            )
            if result.index >= limit:
                return position
        if WALK_IS_COMPILED:
            is_worth_it = False
        else:
            from kbroker.record.equal_records import pass_equal_records

            step = _FIRST_STEP
    walked = walkable(data)
    while True:
        if is_worth_it:
            before = result.index
            position = pass_equal_records(
                columns, position, end, limit=limit, base_timestamp=base_timestamp, result=result
            )
            if result.index == limit:
                return position
            if result.index > before:
                step = _FIRST_STEP
                continue  # the next one may be longer by a byte, and the first of many again
            step = min(2 * step, _LAST_STEP)
        stop = min(limit, result.index + step)
        position = walk_records(
            walked,
            position,
            end,
            limit=stop,
            base_timestamp=base_timestamp,
            result=result,
            strict=strict,
            length_error=length_error,
        )
        if result.index < stop or stop == limit:
            return position


def walk_uncompressed(
    data: Bytes, position: int, *, record_count: int, base_timestamp: int
) -> WalkResult:
    """Walks all records of an uncompressed batch; they must fill ``data`` exactly."""
    result = WalkResult()
    end = len(data)
    position = walk_on(
        data,
        position,
        end,
        limit=record_count,
        base_timestamp=base_timestamp,
        result=result,
        strict=True,
        # Kafka reads this one number outside its try block.
        length_error=ErrorCode.UNKNOWN_SERVER_ERROR,
    )
    check_end(result, position, end, record_count)
    return result


_Steps = Generator[None, None, int]

Observer = Callable[[int, int, int, int, int], None]
"""Called with a record's index, timestamp, offset delta, key size and value size (-1: null)."""


class StreamWalker:
    """Feed chunks in order, then ``finish``; both raise KafkaError INVALID_RECORD.

    ``strict`` and what is accepted otherwise: see ``kbroker.record.walk``. An ``observer`` sees
    every record, at ten times the price.
    """

    __slots__ = (
        "_base_timestamp",
        "_boundary",
        "_buffer",
        "_data",
        "_observer",
        "_position",
        "_strict",
        "count",
        "result",
    )

    def __init__(
        self,
        *,
        record_count: int,
        base_timestamp: int,
        strict: bool,
        observer: Observer | None = None,
    ) -> None:
        self.count = record_count
        self._observer = observer
        self.result = WalkResult()
        self._base_timestamp = base_timestamp
        self._strict = strict
        self._data: Bytes = b""
        self._buffer: bytearray | None = None
        self._position = 0
        self._boundary: Generator[None, None, None] | None = None

    def begin(self, chunk: Bytes, buffer: bytearray | None = None) -> None:
        """Take the next chunk; ``advance`` until it returns True before the next one.

        ``buffer``: see ``walk_on``.
        """
        self._data = walkable(chunk) if buffer is None else chunk
        self._buffer = buffer
        self._position = 0

    def advance(self, max_records: int) -> bool:
        """Pass at most about ``max_records`` records; True when the chunk is used up."""
        if self._boundary is not None:
            try:
                next(self._boundary)
                return True
            except StopIteration:
                self._boundary = None
        result = self.result
        end = len(self._data)
        limit = min(self.count, result.index + max_records)
        if self._observer is not None:
            return self._advance_observed(end, limit)
        if result.index:  # no columns of all any more
            self._data = walkable(self._data)
        self._position = walk_on(
            self._data,
            self._position,
            end,
            limit=limit,
            base_timestamp=self._base_timestamp,
            result=result,
            strict=self._strict,
            buffer=self._buffer,
            count=self.count,
        )
        if result.index == self.count:
            if self._position < end:
                check_end(result, self._position, end, self.count)
            return True
        if result.index >= limit:
            return self._position == end
        if self._position < end:
            self._boundary = self._follow_record()
            next(self._boundary)
        return True

    def _advance_observed(self, end: int, limit: int) -> bool:
        while self.result.index < limit:
            if self._position == end:
                return True
            self._boundary = self._follow_record()
            for _ in self._boundary:
                return True
            self._boundary = None
        if self.result.index == self.count:
            if self._position < end:
                check_end(self.result, self._position, end, self.count)
            return True
        return self._position == end

    def feed(self, chunk: Bytes, buffer: bytearray | None = None) -> None:
        """``begin`` and ``advance`` to the end of the chunk."""
        self.begin(chunk, buffer)
        while not self.advance(1 << 30):
            pass

    def finish(self) -> WalkResult:
        """The data has ended: all records must have been there."""
        check_end(self.result, 0, 0, self.count)
        return self.result

    def _byte(self) -> _Steps:
        while self._position >= len(self._data):
            yield
        byte = self._data[self._position]
        self._position += 1
        return byte

    def _varint(self, max_bytes: int = 5) -> _Steps:
        raw = 0
        for shift in range(0, 7 * max_bytes, 7):
            byte = yield from self._byte()
            raw |= (byte & 0x7F) << shift
            if byte < 0x80:
                raw &= 0xFFFFFFFF if max_bytes == 5 else 0xFFFFFFFFFFFFFFFF
                return (raw >> 1) ^ -(raw & 1)
        raise invalid(f"a varint of more than {max_bytes} bytes")

    def _skip(self, size: int) -> Generator[None, None, None]:
        while size > 0:
            step = min(size, len(self._data) - self._position)
            self._position += step
            size -= step
            if size:
                yield

    def _field(self) -> Generator[None, None, int]:
        """A length and as many bytes; returns the bytes that both take, and skips them."""
        size = yield from self._varint()
        yield from self._skip(size)
        return size

    def _follow_record(self) -> Generator[None, None, None]:
        """One record, however many chunks it takes."""
        length = yield from self._varint()
        fields = self._follow_fields()
        if not self._strict:
            yield from fields
            return
        if length < 0:
            raise invalid("a record has a negative length")
        # The record may take no byte more than its length, and must take all of them.
        left = length
        finished = False
        while True:
            before = self._position
            whole = self._data
            self._data = whole[: before + left]
            try:
                next(fields)
            except StopIteration:
                finished = True
            left -= self._position - before
            self._data = whole
            if finished:
                break
            if not left:
                raise invalid("a record is shorter than its fields")
            yield
        if left:
            raise invalid("the fields of a record do not end where its length says")

    def _follow_fields(self) -> Generator[None, None, None]:
        result = self.result
        if (yield from self._byte()):
            result.plain = False
        delta = yield from self._varint(10)
        timestamp = wrap_int64(self._base_timestamp + delta)
        offset_delta = yield from self._varint()
        if offset_delta != result.index:
            result.contiguous = False
        key_size = yield from self._field()
        value_size = yield from self._field()
        headers = yield from self._varint()
        if headers < 0:
            raise invalid("the count of record headers is negative")
        for _ in range(headers):
            if (yield from self._field()) < 0:
                raise invalid("a record header has a null key")
            yield from self._field()
        if timestamp > result.max_timestamp:
            result.max_timestamp = timestamp
            result.index_of_max_timestamp = result.index
        if timestamp != NO_TIMESTAMP:
            result.min_timestamp = min(result.min_timestamp, timestamp)
        if key_size < 0:
            result.has_null_key = True
        if result.index == 0:
            result.first_timestamp = timestamp
        if self._observer is not None:
            self._observer(result.index, timestamp, offset_delta, key_size, value_size)
        result.index += 1
