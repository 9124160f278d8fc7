"""The hand-made requests are ones that a broker accepts, and its answers are looked at."""

from __future__ import annotations

import struct

import pytest

from benchmarks import wire_requests
from kbroker.protocol.messages.fetch_request import read_fetch_request
from kbroker.protocol.messages.fetch_response import (
    FetchableTopicResponse,
    FetchResponse,
    PartitionData,
    write_fetch_response,
)
from kbroker.protocol.messages.metadata_request import read_metadata_request
from kbroker.protocol.messages.produce_request import read_produce_request
from kbroker.record.batch import verify_crc
from kbroker.record.record import iter_records


def body_of(frame, key, version):
    (size,) = struct.unpack_from(">i", frame)
    assert size == len(frame) - 4
    api_key, api_version, _, client_id_size = struct.unpack_from(">hhih", frame, 4)
    assert (api_key, api_version) == (key, version)
    return 14 + client_id_size


@pytest.mark.parametrize("sizes", [[100], [1, 1024, 70_000, 0]])
def test_a_produce_request_holds_records_with_a_good_crc(sizes):
    values = [bytes([number]) * size for number, size in enumerate(sizes)]
    batch = wire_requests.record_batch(values)
    frame = wire_requests.produce_request("topic", batch, acks=-1)

    request, end = read_produce_request(memoryview(frame), body_of(frame, 0, 7), 7)
    assert end == len(frame)
    assert (request.acks, request.topic_data[0].name) == (-1, "topic")
    records = memoryview(request.topic_data[0].partition_data[0].records)
    assert verify_crc(records, 0, len(records))
    read = list(iter_records(records))
    assert [bytes(record.value) for record in read] == values
    assert [record.offset for record in read] == list(range(len(values)))


def test_an_error_in_a_produce_answer_is_noticed():
    answer = struct.pack(">iih", 1, 1, 5) + b"topic" + struct.pack(">iihq", 1, 0, 3, 9)

    with pytest.raises(ValueError, match="error_code=3"):
        wire_requests.check_produced(answer, "topic")
    sound = answer[:-10] + struct.pack(">hq", 0, 9)
    assert wire_requests.check_produced(sound, "topic") == 9


def test_a_fetch_request():
    frame = wire_requests.fetch_request("topic", 42, max_bytes=1000)

    request, end = read_fetch_request(memoryview(frame), body_of(frame, 1, 11), 11)
    assert end == len(frame)
    assert (request.max_bytes, request.session_epoch) == (1000, -1)
    (partition,) = request.topics[0].partitions
    assert (partition.fetch_offset, partition.partition_max_bytes) == (42, 1000)


@pytest.mark.parametrize(("error", "partition_error"), [(0, 0), (6, 0), (0, 6)])
def test_a_fetch_answer(error, partition_error):
    data = PartitionData(0, partition_error, 7, 7, 0, records=b"x" * 33)
    topics = [FetchableTopicResponse("topic", partitions=[data])]
    parts = [b"\0\0\0\1"]
    write_fetch_response(parts, FetchResponse(error_code=error, responses=topics), 11)
    answer = b"".join(parts)

    if error or partition_error:
        with pytest.raises(ValueError, match=r"error=6|partition_error=6"):
            wire_requests.check_fetched(answer, "topic")
    else:
        assert wire_requests.check_fetched(answer, "topic") == 33


def test_a_metadata_request():
    frame = wire_requests.metadata_request("topic")

    request, end = read_metadata_request(memoryview(frame), body_of(frame, 3, 1), 1)
    assert end == len(frame)
    assert [topic.name for topic in request.topics] == ["topic"]
    with pytest.raises(ValueError, match="without the topic"):
        wire_requests.check_metadata(b"another", "topic")
