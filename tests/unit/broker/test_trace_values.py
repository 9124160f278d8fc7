"""Plain values of messages: what is left out, what is summarised, what is never shown."""

from typing import Any

import pytest

from kbroker.broker.trace_values import HIDDEN, MessageReader, summarize_records
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.create_delegation_token_response import (
    CreateDelegationTokenResponse,
)
from kbroker.protocol.messages.fetch_response import (
    FetchableTopicResponse,
    FetchResponse,
    PartitionData,
)
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from kbroker.protocol.messages.list_offsets_request import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kbroker.protocol.messages.produce_request import ProduceRequest
from kbroker.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequest
from kbroker.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponse
from kbroker.record.batch import build_batch
from kbroker.record.record import Record


def read(message: Any, most_items: int | None = 10) -> Any:
    return MessageReader(most_items).read(message)


def batch(values: list[bytes], **fields: Any) -> bytes:
    records = [Record(timestamp=1000 + i, value=value) for i, value in enumerate(values)]
    return bytes(build_batch(records, **fields))


def test_a_struct_is_a_dict_without_what_says_nothing():
    assert read(HeartbeatRequest("g", 3, "m")) == {
        "group_id": "g",
        "generation_id": 3,
        "member_id": "m",
    }


def test_minus_one_is_shown_where_it_means_something():
    latest = ListOffsetsPartition(partition_index=0, timestamp=-1)
    request = ListOffsetsRequest(topics=[ListOffsetsTopic("t", [latest])])
    (partition,) = read(request)["topics"][0]["partitions"]
    assert partition["timestamp"] == -1
    assert "current_leader_epoch" not in partition
    assert read(ProduceRequest(acks=-1))["acks"] == -1


def test_errors_have_their_names():
    answer = PartitionData(0, ErrorCode.OFFSET_OUT_OF_RANGE, -1, records=b"")
    response = FetchResponse(responses=[FetchableTopicResponse(partitions=[answer])])
    shown = read(response)
    assert shown["error_code"] == "NONE"
    assert shown["responses"][0]["partitions"][0]["error_code"] == "OFFSET_OUT_OF_RANGE"
    assert read(FetchResponse(error_code=31_999))["error_code"] == "31999"


def test_topic_ids_are_shown_as_kafka_writes_them():
    topic = FetchableTopicResponse(topic_id=bytes(range(16)))
    assert read(topic)["topic_id"] == "AAECAwQFBgcICQoLDA0ODw"


def test_keys_and_values_of_records_are_not_shown():
    data = batch([b"my secret", b"another"], producer_id=5, producer_epoch=1, base_sequence=7)
    answer = PartitionData(0, 0, 2, records=memoryview(data))
    shown = read(answer)["records"]
    assert shown == {
        "records": 2,
        "batches": 1,
        "bytes": len(data),
        "offsets": "0-1",
        "producer": "5/1",
        "sequence": 7,
    }
    assert "secret" not in repr(read(answer))


def test_codecs_transactions_and_several_batches_are_named():
    one = batch([b"x" * 100])
    two = batch(
        [b"y" * 100],
        base_offset=1,
        compression=4,
        transactional=True,
        producer_id=1,
        base_sequence=0,
    )
    shown = summarize_records(one + two)
    assert shown["batches"] == shown["records"] == 2
    assert (shown["offsets"], shown["codec"], shown["transactional"]) == ("0-1", "none+zstd", True)


@pytest.mark.parametrize("data", [b"\0" * 70, b"x" * 30, batch([b"v"])[:-1]])
def test_of_what_is_no_batch_only_the_size_is_told(data):
    shown = summarize_records(data)
    assert shown["bytes"] == len(data)
    assert "records" not in shown
    assert shown["problem"]


def test_what_authenticates_is_hidden():
    secret = b"\0alice\0alice-secret"
    assert read(SaslAuthenticateRequest(secret)) == {"auth_bytes": HIDDEN}
    assert read(SaslAuthenticateResponse(auth_bytes=secret))["auth_bytes"] == HIDDEN
    assert read(CreateDelegationTokenResponse(hmac=secret))["hmac"] == HIDDEN


@pytest.mark.parametrize(
    ("name", "is_hidden"),
    [
        ("ssl.keystore.password", True),
        ("listener.name.sasl_ssl.plain.sasl.jaas.config", True),
        ("delegation.token.secret.key", True),
        ("my.own.PassPhrase", True),
        ("retention.ms", False),
        ("cleanup.policy", False),
    ],
)
def test_values_of_secret_settings_are_hidden(name, is_hidden):
    config = AlterableConfig(name, 0, "the value")
    request = IncrementalAlterConfigsRequest([AlterConfigsResource(4, "1", [config])])
    (shown,) = read(request)["resources"][0]["configs"]
    assert shown["value"] == (HIDDEN if is_hidden else "the value")


def test_long_lists_and_texts_are_shortened_unless_all_is_asked_for():
    topics = [FetchableTopicResponse(str(number)) for number in range(13)]
    shown = read(FetchResponse(responses=topics))["responses"]
    assert len(shown) == 11
    assert shown[-1] == {"more": 3}
    assert len(read(FetchResponse(responses=topics), None)["responses"]) == 13
    long = HeartbeatRequest("g" * 500, 1, "m")
    assert read(long)["group_id"] == "g" * 200 + "... (500 characters)"
    assert read(long, None)["group_id"] == "g" * 500
