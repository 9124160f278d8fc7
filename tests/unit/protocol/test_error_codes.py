"""Error codes and the exception that carries them."""

import copy
import json
import pickle

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.reference_codec import SCHEMAS

TABLE = json.loads((SCHEMAS / "errors.json").read_text())


def test_all_of_the_table():
    codes = ErrorCode.all()
    assert {code.name: int(code) for code in codes} == {row["name"]: row["code"] for row in TABLE}
    assert all(getattr(ErrorCode, code.name) is code for code in codes)
    assert {code.name for code in codes if code.retriable} == {
        row["name"] for row in TABLE if row["retriable"]
    }


def test_the_facts_of_4_3():
    assert len(ErrorCode.all()) == 135
    assert ErrorCode.NONE == 0
    assert ErrorCode.UNKNOWN_SERVER_ERROR == -1
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER.retriable
    assert not ErrorCode.TOPIC_ALREADY_EXISTS.retriable


def test_codes_from_the_wire():
    assert ErrorCode.for_code(36) is ErrorCode.TOPIC_ALREADY_EXISTS
    assert ErrorCode.for_code(12345) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_it_is_a_number_of_which_there_is_one():
    code = ErrorCode.INVALID_CONFIG
    assert ErrorCode(40) is code
    assert copy.deepcopy(code) is code
    assert pickle.loads(pickle.dumps(code)) is code
    assert {code: 1}[40] == 1
    assert (f"{code} {code!r} {code:3d}", json.dumps(code)) == (
        "40 <ErrorCode.INVALID_CONFIG: 40>  40",
        "40",
    )
    with pytest.raises(ValueError, match="no error 12345"):
        ErrorCode(12345)


def test_messages():
    assert ErrorCode.NONE.message == "NONE"
    assert ErrorCode.NOT_COORDINATOR.message == "Not coordinator."


def test_kafka_error():
    error = KafkaError(ErrorCode.INVALID_CONFIG, "segment.bytes is too small")
    assert error.error_code is ErrorCode.INVALID_CONFIG
    assert error.message == "segment.bytes is too small"
    assert str(error) == "INVALID_CONFIG: segment.bytes is too small"
    bare = KafkaError(ErrorCode.NOT_COORDINATOR)
    assert bare.message is None
    assert str(bare) == "NOT_COORDINATOR"
