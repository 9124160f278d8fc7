"""What answers instead of dispatch: asked first, believed, and no worse when it fails."""

import logging

import pytest

from kbroker.common.clock import ManualClock
from kbroker.network.connection import (
    CLOSED_BY_FAILURE,
    CLOSED_BY_SERVER,
    Connection,
    ConnectionSettings,
    Turn,
)
from kbroker.network.limits import BufferPool, ByteBudget, NetworkCounters, NetworkLimits
from kbroker.request_context import ConnectionContext
from tests.unit.network.peers import ECHO, answer, request

ANSWER = b"\0\0\0\4abcd"


class Repeated:
    """Gives ``outcome``, after ``before`` has been called."""

    def __init__(self, outcome, before=lambda: None):
        self.outcome = outcome
        self.before = before

    def answer(self, frame):
        self.before()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def connection(repeated):
    limits = NetworkLimits()
    settings = ConnectionSettings(
        dispatch=lambda context, frame, position: [
            context.correlation_id.to_bytes(4, "big"),
            bytes(frame[position:]),
        ],
        limits=limits,
        clock=ManualClock(),
        budget=ByteBudget(limits.queued_bytes),
        pool=BufferPool(limits.pooled_bytes),
        counters=NetworkCounters(),
        log=logging.getLogger("kbroker.test"),
    )
    made = Connection(settings, ConnectionContext(connection_id=1), on_room=lambda: None)
    made.context.repeated = repeated
    return made


def give(to, data):
    to.get_buffer()[: len(data)] = data
    return to.answer_alone(len(data))


def test_it_is_asked_first():
    assert give(connection(Repeated(ANSWER)), request(ECHO, 1, b"x")) == ANSWER


def test_dispatch_answers_what_it_does_not_know():
    assert give(connection(Repeated(None)), request(ECHO, 1, b"x")) == answer(1, b"x")


def test_an_answer_in_parts():
    given = give(connection(Repeated([b"ab", b"cd"])), request(ECHO, 1, b"x"))
    assert given == ANSWER


def test_several_requests_at_once():
    to = connection(Repeated(ANSWER))
    data = request(ECHO, 1, b"x") * 3
    to.get_buffer()[: len(data)] = data
    to.received(len(data))
    assert to.turn() is Turn.IDLE
    assert b"".join(to.output.take()) == ANSWER * 3
    assert to.output.size == 0


def test_the_last_answer_of_a_connection_that_ends_meanwhile():
    to = connection(Repeated(ANSWER))
    to.context.repeated.before = lambda: to.end_input(CLOSED_BY_SERVER)
    assert give(to, request(ECHO, 1, b"x")) is Turn.CLOSE
    assert b"".join(to.output.take()) == ANSWER


def test_a_failure_closes_the_connection(caplog: pytest.LogCaptureFixture):
    to = connection(Repeated(ZeroDivisionError("planted")))
    assert give(to, request(ECHO, 1, b"x")) is Turn.CLOSE
    assert to.close_reason == CLOSED_BY_FAILURE
    assert "a request from" in caplog.text
