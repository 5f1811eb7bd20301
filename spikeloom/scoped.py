"""A value for the time of a `with` block, which also code under torch.compile can read."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Generic, TypeVar

import torch

from .forks import in_child

Value = TypeVar("Value")


class Scoped(Generic[Value]):
    """A ContextVar, so that every thread has a value of its own.

    torch.compile cannot trace a ContextVar. While it traces, the value stands in an attribute, which is set and put
    back within the trace, so that no other thread ever sees it.

    Args:
        name: of the ContextVar.
        default: the value outside of all blocks.
        outer: whether a block may stand around compiled code. Then that code asks the ContextVar, which breaks the
            graph: what is compiled in one block must not be used in another.
    """

    def __init__(self, name: str, default: Value, outer: bool = False):
        self._outer = outer
        self._context = ContextVar(name, default=default)
        self._traced = default
        self._open = 0
        self._renew_lock()
        in_child(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = Lock()

    def get(self) -> Value:
        """The value in force."""
        if not torch.compiler.is_dynamo_compiling():
            return self._context.get()
        if self._open:
            return self.outside()
        return self._traced

    def outside(self) -> Value:
        """The value in force where compiled code was called; to ask for it breaks the graph."""
        return self._context.get()

    @contextmanager
    def set(self, value: Value) -> Iterator[None]:
        """Within this block `get` returns `value`."""
        if torch.compiler.is_dynamo_compiling():
            before, self._traced = self._traced, value
            try:
                yield
            finally:
                self._traced = before
            return
        token = self._context.set(value)
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)
            self._context.reset(token)

    def _count(self, change: int) -> None:
        if self._outer:
            with self._lock:
                self._open += change
