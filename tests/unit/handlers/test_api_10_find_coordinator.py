"""FindCoordinator over the wire."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.find_coordinator_request import FindCoordinatorRequest
from tests.unit.handlers.group_asking import group_asking

pytestmark = pytest.mark.anyio
KEY = 10
INVALID = ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", range(4))
async def test_one_key(version: int) -> None:
    async with group_asking() as client:
        for name in ("group", "", "gröup"):
            answer = await client.ask(KEY, version, FindCoordinatorRequest(key=name))
            assert (answer.error_code, answer.node_id) == (0, client.services.node_id)
            assert (answer.host, answer.port) == ("10.1.2.3", 4567)
            assert answer.error_message == ("NONE" if version else "")


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_many_keys(version: int) -> None:
    async with group_asking() as client:
        request = FindCoordinatorRequest(coordinator_keys=["a", "b", ""])
        answer = await client.ask(KEY, version, request)
        assert [(c.key, c.error_code, c.error_message) for c in answer.coordinators] == [
            ("a", 0, ""),
            ("b", 0, ""),
            ("", 0, ""),
        ]
        assert {(c.host, c.port) for c in answer.coordinators} == {("10.1.2.3", 4567)}
        empty = await client.ask(KEY, version, FindCoordinatorRequest())
        assert empty.coordinators == []


@pytest.mark.parametrize(
    ("key_type", "topic"),
    [(0, "__consumer_offsets"), (1, "__transaction_state"), (2, "__share_group_state")],
)
async def test_the_internal_topic_is_there_when_it_answers(key_type: int, topic: str) -> None:
    async with group_asking() as client:
        key = "g:AAAAAAAAAAAAAAAAAAAAAQ:0" if key_type == 2 else "g"
        request = FindCoordinatorRequest(key_type=key_type, coordinator_keys=[key])
        answer = await client.ask(KEY, 6, request)
        assert [c.error_code for c in answer.coordinators] == [0]
        assert client.services.metadata.image.topics.get(topic) is not None


@pytest.mark.parametrize("version", [1, 4, 6])
async def test_unknown_key_types(version: int) -> None:
    async with group_asking() as client:
        request = FindCoordinatorRequest(key_type=3)
        if version >= 4:
            request.coordinator_keys = ["k"]
        answer = await client.ask(KEY, version, request)
        found = answer.coordinators[0] if version >= 4 else answer
        assert (found.error_code, found.node_id, found.host, found.port) == (INVALID, -1, "", -1)
        assert found.error_message.startswith("This most likely occurs because of a request")


async def test_share_keys_need_version_6() -> None:
    async with group_asking() as client:
        old = await client.ask(KEY, 3, FindCoordinatorRequest(key_type=2, key="g"))
        assert old.error_code == INVALID
        request = FindCoordinatorRequest(
            key_type=2, coordinator_keys=["g:AAAAAAAAAAAAAAAAAAAAAQ:0"]
        )
        for version, error in ((5, INVALID), (6, 0)):
            answer = await client.ask(KEY, version, request)
            assert answer.coordinators[0].error_code == error
            assert answer.coordinators[0].error_message == ""


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("g", INVALID),
        ("", INVALID),
        ("g:x:0", INVALID),
        ("g:AAAAAAAAAAAAAAAAAAAAAQ:x", INVALID),
        (":AAAAAAAAAAAAAAAAAAAAAQ:0", INVALID),
        ("g:AAAAAAAAAAAAAAAAAAAAAQ:-1", 0),
        ("a:b:AAAAAAAAAAAAAAAAAAAAAQ:0", 0),
    ],
)
async def test_share_keys_are_checked(key: str, error: int) -> None:
    async with group_asking() as client:
        request = FindCoordinatorRequest(key_type=2, coordinator_keys=[key])
        answer = await client.ask(KEY, 6, request)
        assert answer.coordinators[0].error_code == error


async def test_a_topic_that_cannot_be_created() -> None:
    async with group_asking({"offsets.topic.replication.factor": "3"}) as client:
        answer = await client.ask(KEY, 3, FindCoordinatorRequest(key="g"))
        assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert answer.error_message == "The coordinator is not available."
