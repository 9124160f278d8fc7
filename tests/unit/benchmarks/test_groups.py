"""The requests of the group benchmarks are what they are meant to be."""

from __future__ import annotations

from struct import pack, unpack_from

import pytest

from benchmarks.groups import check_committed, commit_request, heartbeat_interval_s, subjects
from kbroker.protocol import registry
from kbroker.protocol.headers import read_request_header
from kbroker.protocol.messages.offset_commit_response import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)


def test_a_commit_is_a_framed_request_of_version_7():
    frame = commit_request("g", "t", 5)
    assert unpack_from(">i", frame) == (len(frame) - 4,)
    header, position = read_request_header(frame, 4)
    assert (header.request_api_key, header.request_api_version) == (8, 7)
    request = registry.read_request(8, 7, frame, position)
    (topic,) = request.topics
    (partition,) = topic.partitions
    assert (request.group_id, request.member_id, topic.name) == ("g", "", "t")
    assert (partition.partition_index, partition.committed_offset) == (0, 5)


@pytest.mark.parametrize("error_code", [0, 16])
def test_an_answer_is_looked_at(error_code: int):
    partition = OffsetCommitResponsePartition(0, error_code)
    response = OffsetCommitResponse(topics=[OffsetCommitResponseTopic("t", partitions=[partition])])
    parts = [pack(">i", 1)]
    registry.write_response(8, 7, response, parts)
    answer = memoryview(b"".join(parts))
    if error_code:
        with pytest.raises(ValueError, match="error_code=16"):
            check_committed(answer, "t")
    else:
        check_committed(answer, "t")


def test_many_members_send_fewer_heartbeats_each():
    assert [heartbeat_interval_s(count) for count in (10, 100, 1000)] == [0.1, 0.1, 1.0]


def test_subjects_have_names_of_their_own():
    names = [name for name, _ in subjects()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("groups ") for name in names)
