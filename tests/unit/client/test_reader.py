"""What a reader shows of a partition: committed records, none of aborted transactions."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from kbroker.client.reader import Reader
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_response import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchResponse,
    PartitionData,
)
from kbroker.record.batch import build_batch, build_end_transaction_marker
from kbroker.record.record import Record
from tests.unit.client.scripted import ScriptedBroker

pytestmark = pytest.mark.anyio
FIRST, SECOND = 1001, 1002


class Log:
    """Batches of one partition, one record each, at consecutive offsets."""

    def __init__(self) -> None:
        self.end = 0
        self.content = bytearray()

    def add(self, value: bytes, producer_id: int | None = None) -> int:
        """A record, of a transaction when it has a producer; its offset."""
        told = {} if producer_id is None else {"producer_id": producer_id, "producer_epoch": 0}
        return self._append(
            build_batch(
                [Record(value=value, timestamp=1)],
                base_offset=self.end,
                base_sequence=-1 if producer_id is None else 0,
                transactional=producer_id is not None,
                **told,
            )
        )

    def end_transaction(self, producer_id: int, *, commit: bool) -> int:
        marker = build_end_transaction_marker(
            producer_id=producer_id,
            producer_epoch=0,
            commit=commit,
            coordinator_epoch=0,
            timestamp=1,
        )
        marker[0:8] = self.end.to_bytes(8, "big")
        return self._append(marker)

    def _append(self, batch: bytearray) -> int:
        self.content += batch
        self.end += 1
        return self.end - 1

    def answer(self, *aborted: tuple[int, int]):
        listed = [AbortedTransaction(producer_id, offset) for producer_id, offset in aborted]
        data = PartitionData(0, aborted_transactions=listed, records=bytes(self.content))
        return FetchResponse(responses=[FetchableTopicResponse("t", partitions=[data])])


async def read(answer: FetchResponse, position: int = 0) -> tuple[list[bytes | None], int]:
    """(values, position afterwards) of one poll."""
    async with ScriptedBroker({ApiKey.FETCH: [answer]}, topics={"t": 1}) as broker:
        async with broker.client() as client:
            reader = Reader(client, "t", {0: position})
            fetched = await reader.poll()
        (request,) = broker.requests(ApiKey.FETCH)
        assert request.isolation_level == 1
        return [each.record.value for each in fetched], reader.positions[0]


async def test_aborted_transactions_are_left_out_and_committed_ones_are_not():
    log = Log()
    log.add(b"plain 1")
    aborted = log.add(b"aborted 1", FIRST)
    log.add(b"committed 1", SECOND)
    log.add(b"aborted 2", FIRST)
    log.end_transaction(FIRST, commit=False)
    log.add(b"committed 2", SECOND)
    log.add(b"committed 3", FIRST)  # the producer's next transaction
    log.end_transaction(SECOND, commit=True)
    log.end_transaction(FIRST, commit=True)
    values, position = await read(log.answer((FIRST, aborted)))
    assert values == [b"plain 1", b"committed 1", b"committed 2", b"committed 3"]
    assert position == log.end


async def test_two_aborted_transactions_of_one_producer_listed_in_any_order():
    log = Log()
    begins = []
    for number in range(2):
        begins.append(log.add(b"aborted %d" % number, FIRST))
        log.end_transaction(FIRST, commit=False)
        log.add(b"committed %d" % number, FIRST)
        log.end_transaction(FIRST, commit=True)
    log.add(b"plain")
    for order in (begins, begins[::-1]):
        values, _ = await read(log.answer(*((FIRST, each) for each in order)))
        assert values == [b"committed 0", b"committed 1", b"plain"]


async def test_a_transaction_that_began_before_the_fetch():
    log = Log()
    log.end = 5
    log.add(b"aborted", FIRST)
    log.end_transaction(FIRST, commit=False)
    log.add(b"plain")
    assert await read(log.answer((FIRST, 3)), position=5) == ([b"plain"], 8)


async def test_an_abort_of_one_producer_does_not_end_that_of_another():
    log = Log()
    first = log.add(b"a", FIRST)
    second = log.add(b"b", SECOND)
    log.end_transaction(FIRST, commit=False)
    log.add(b"c", SECOND)
    log.end_transaction(SECOND, commit=False)
    log.add(b"d", SECOND)
    log.end_transaction(SECOND, commit=True)
    values, _ = await read(log.answer((FIRST, first), (SECOND, second)))
    assert values == [b"d"]


async def test_records_before_the_position_are_left_out():
    batch = build_batch([Record(value=b"%d" % n, timestamp=1) for n in range(5)])
    data = PartitionData(0, aborted_transactions=None, records=bytes(batch))
    answer = FetchResponse(responses=[FetchableTopicResponse("t", partitions=[data])])
    assert await read(answer, position=3) == ([b"3", b"4"], 5)


async def test_half_a_batch_at_the_end():
    log = Log()
    log.add(b"whole")
    log.content += log.content[:30]
    assert await read(log.answer()) == ([b"whole"], 1)


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})])
async def test_a_wrong_checksum_is_fetched_again_and_then_told():
    log = Log()
    log.add(b"whole")
    log.content[-1] ^= 1
    script = {ApiKey.FETCH: [log.answer()]}
    async with ScriptedBroker(script, topics={"t": 1}) as broker, broker.client() as client:
        with pytest.raises(KafkaError, match="a wrong checksum"):
            await Reader(client, "t", {0: 0}).poll()
        assert len(broker.requests(ApiKey.FETCH)) > 10
