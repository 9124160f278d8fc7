"""The hand-made Produce request is one that a broker accepts."""

from __future__ import annotations

import struct

import pytest

from benchmarks import round_trip
from kbroker.protocol.messages.produce_request import read_produce_request
from kbroker.record.batch import verify_crc
from kbroker.record.record import iter_records


def test_the_request_holds_one_record_with_a_good_crc() -> None:
    frame = round_trip.produce_request("topic")

    (size,) = struct.unpack_from(">i", frame)
    assert size == len(frame) - 4
    api_key, version, _, client_id_size = struct.unpack_from(">hhih", frame, 4)
    assert (api_key, version) == (0, 7)
    request, end = read_produce_request(memoryview(frame), 14 + client_id_size, version)
    assert end == len(frame)
    assert (request.acks, request.topic_data[0].name) == (-1, "topic")
    batch = memoryview(request.topic_data[0].partition_data[0].records)
    assert verify_crc(batch, 0, len(batch))
    (record,) = iter_records(batch)
    assert record.value == round_trip.VALUE


def test_an_error_in_the_answer_is_noticed() -> None:
    answer = struct.pack(">iih", 1, 1, 5) + b"topic" + struct.pack(">iih", 1, 0, 3)

    with pytest.raises(ValueError, match="error_code=3"):
        round_trip.check_answer(answer, "topic")
    round_trip.check_answer(answer[:-2] + b"\x00\x00", "topic")
