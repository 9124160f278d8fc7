"""Which records ``kbroker produce`` makes of what it is given."""

from __future__ import annotations

import argparse
import os

import pytest

from kbroker.cli import produce
from kbroker.cli.cluster import UsageError
from kbroker.common.offload import ThreadOffload
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.produce_response import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kbroker.record.batch import RecordBatchHeader
from kbroker.record.record import iter_records
from tests.unit.client.scripted import ScriptedBroker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Files are read by threads of the event loop."""
    return "asyncio"


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    produce.add_arguments(parser)
    return produce.parse_arguments(parser, ["t", "--acks", "1", *words])


def answer(error: ErrorCode = ErrorCode.NONE):
    partition = PartitionProduceResponse(0, error, base_offset=0)
    return ProduceResponse([TopicProduceResponse("t", partition_responses=[partition])])


async def produced(*answers, told: argparse.Namespace) -> list:
    async with ScriptedBroker({ApiKey.PRODUCE: list(answers)}, topics={"t": 1}) as broker:
        async with broker.client() as client:
            await produce._produce(client, told)
        records = []
        for request in broker.requests(ApiKey.PRODUCE):
            view = memoryview(bytes(request.topic_data[0].partition_data[0].records))
            records += iter_records(view, RecordBatchHeader(view))
        return records


async def test_tombstones_and_headers_of_one_name(tmp_path) -> None:
    (tmp_path / "lines").write_bytes(b"a:1\nb:NULL\nNULL:NULLs\nc:")
    told = options(
        *("--lines", str(tmp_path / "lines"), "--key-separator", ":", "--null", "NULL"),
        *("--header", "h=1", "--header", "h=2", "--header", "bytes=" + os.fsdecode(b"\xff")),
    )
    records = await produced(answer(), told=told)
    expected = [(b"a", b"1"), (b"b", None), (None, b"NULLs"), (b"c", b"")]
    assert [(each.key, each.value) for each in records] == expected
    headers = [("h", b"1"), ("h", b"2"), ("bytes", b"\xff")]
    assert all(list(each.headers) == headers for each in records)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 100])
async def test_lines_come_out_whole_however_they_arrive(chunk_bytes: int) -> None:
    data = b"one\n\ntwo\r\nand a rather long one\nlast"
    chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    left = iter([None, *chunks, None, b""])
    lines = produce._lines(ThreadOffload(1), lambda: next(left), "a pipe")
    found = [line async for batch in lines for line in batch]
    assert found == [b"one", b"", b"two", b"and a rather long one", b"last"]


async def test_a_line_without_an_end_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(produce, "_LONGEST_LINE_BYTES", 1000)
    lines = produce._lines(ThreadOffload(1), lambda: b"x" * 300, "a pipe")
    with pytest.raises(UsageError, match="a line of a pipe exceeds 1000 bytes"):
        await anext(lines)


async def test_a_refusal_tells_how_much_was_written(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    told = options(str(tmp_path / "one"), str(tmp_path / "two"))
    with pytest.raises(KafkaError, match="partition 0; what was written before it: 1"):
        await produced(answer(), answer(ErrorCode.MESSAGE_TOO_LARGE), told=told)
