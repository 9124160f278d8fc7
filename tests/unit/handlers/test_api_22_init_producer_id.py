"""InitProducerId: fresh ids, refused requests, transactional ids."""

import pytest

from kbroker.handlers import api_22_init_producer_id
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
from kbroker.protocol.messages.init_producer_id_response import InitProducerIdResponse
from tests.unit.data_plane import World, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def init(world: World, **fields: object) -> tuple[int, int, int]:
    asked = InitProducerIdRequest(**fields)  # type: ignore[arg-type]
    answer = api_22_init_producer_id.handle(world.services, world.context(22, 5), asked)
    assert isinstance(answer, InitProducerIdResponse)
    return answer.error_code, answer.producer_id, answer.producer_epoch


def test_every_producer_gets_its_own_id() -> None:
    world = World()
    assert init(world, transactional_id=None) == (0, 1000, 0)
    assert init(world, transactional_id=None, transaction_timeout_ms=-5) == (0, 1001, 0)
    again = init(world, transactional_id=None, producer_id=1000, producer_epoch=3)
    assert again == (0, 1002, 0)


@pytest.mark.anyio
async def test_a_new_block_is_waited_for() -> None:
    world = World()
    world.producer_ids.slow = True
    asked = InitProducerIdRequest(transactional_id=None)
    handled = api_22_init_producer_id.handle(world.services, world.context(22, 5), asked)
    answer = await finish(handled)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 1000, 0)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"transactional_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"transactional_id": None, "producer_id": 5}, ErrorCode.INVALID_REQUEST),
        ({"transactional_id": None, "producer_epoch": 5}, ErrorCode.INVALID_REQUEST),
        ({"transactional_id": "x", "producer_id": 5}, ErrorCode.INVALID_REQUEST),
        (
            {"transactional_id": "x", "transaction_timeout_ms": 0},
            ErrorCode.INVALID_TRANSACTION_TIMEOUT,
        ),
        (
            {"transactional_id": "x", "transaction_timeout_ms": 900_001},
            ErrorCode.INVALID_TRANSACTION_TIMEOUT,
        ),
        (
            {"transactional_id": "x", "transaction_timeout_ms": 900_000},
            ErrorCode.NOT_COORDINATOR,
        ),
    ],
)
def test_what_is_refused(fields: dict[str, object], error: ErrorCode) -> None:
    assert init(World(), **fields) == (error, -1, -1)


def test_a_transactional_id_keeps_its_producer_id_and_gets_the_next_epoch() -> None:
    world = World()
    world.topic("__transaction_state", 3)
    asked = {"transactional_id": "x", "transaction_timeout_ms": 1000}
    assert init(world, **asked) == (0, 1000, 0)
    assert init(world, **asked) == (0, 1000, 1)
    assert init(world, **asked, producer_id=1000, producer_epoch=1) == (0, 1000, 2)
    assert init(world, **asked, producer_id=1000, producer_epoch=1) == (0, 1000, 2), "a retry"
    fenced = (ErrorCode.PRODUCER_FENCED, -1, -1)
    assert init(world, **asked, producer_id=1000, producer_epoch=0) == fenced
    assert init(world, **asked, producer_id=7, producer_epoch=2) == fenced


def test_the_error_of_the_request() -> None:
    error = KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    answer = api_22_init_producer_id.error_response(InitProducerIdRequest(), error, 5)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (15, -1, -1)
