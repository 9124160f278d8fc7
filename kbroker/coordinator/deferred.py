"""An answer that may come later: completed by plain calls, awaited only by those who must wait."""

from collections.abc import Callable
from typing import Generic, TypeVar, Union

import anyio

T = TypeVar("T")


class Deferred(Generic[T]):
    """A value or an exception that is set once, on the event loop.

    Unlike an asyncio future it belongs to no event loop and needs none until somebody waits: the
    ordinary path completes it in the same call that made it, and nobody ever waits.
    """

    __slots__ = ("_callbacks", "_error", "_event", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._event: anyio.Event | None = None
        self._callbacks: list[Callable[[Deferred[T]], object]] | None = None

    def complete(self, value: T) -> bool:
        """Set the value; False when it is done already (the value is dropped then)."""
        if self.done:
            return False
        self._value = value
        self._finish()
        return True

    def fail(self, error: BaseException) -> bool:
        """Set an exception; False when it is done already."""
        if self.done:
            return False
        self._error = error
        self._finish()
        return True

    def _finish(self) -> None:
        self.done = True
        if self._event is not None:
            self._event.set()
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                callback(self)

    def on_done(self, callback: Callable[["Deferred[T]"], object]) -> None:
        """Call ``callback(self)`` once it is done; at once when it is."""
        if self.done:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def result(self) -> T:
        """The value, or raises the exception. Only when done."""
        assert self.done, "the deferred is not done"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None only where T allows it

    async def wait(self) -> T:
        """The value or the exception, when it comes. May be cancelled without harm."""
        if not self.done:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
        return self.result()


Answer = Union[T, Deferred[T]]  # noqa: UP007  # X | Y makes no generic alias of a TypeVar
"""A value that is there, or one that will be."""


def all_of(outcomes: list[Answer[T]]) -> Answer[list[T]]:
    """The values in order: at once when all are there, else a Deferred; its error is the first."""
    waiting = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
    if all(outcome.done for outcome in waiting):
        return [_value(outcome) for outcome in outcomes]
    gathered: Deferred[list[T]] = Deferred()
    left = len(waiting)

    def on_one_done(_: Deferred[T]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            try:
                gathered.complete([_value(outcome) for outcome in outcomes])
            except Exception as error:
                gathered.fail(error)

    for outcome in waiting:
        outcome.on_done(on_one_done)
    return gathered


def _value(outcome: Answer[T]) -> T:
    return outcome.result() if isinstance(outcome, Deferred) else outcome
