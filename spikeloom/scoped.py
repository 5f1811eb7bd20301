"""A context variable, set by a `with` block, that code under torch.compile can read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

import torch

Value = TypeVar("Value")


class Scoped(Generic[Value]):
    """A ContextVar with one value per thread that torch.compile can trace.

    torch.compile cannot trace a ContextVar. While it traces, the value is in an attribute, which is set and restored
    within the trace, so that no other thread ever sees it.

    Args:
        name: the name of the ContextVar.
        default: the value outside of all blocks.
        outer: whether a block may enclose compiled code. That code then reads the ContextVar, which breaks the graph,
            since code compiled in one block must not run in another.
    """

    def __init__(self, name: str, default: Value, outer: bool = False):
        self._outer = outer
        self._context = ContextVar(name, default=default)
        self._traced = default
        self._blocks: set[object] = set()
        self._open = 0  # the number of blocks, which torch.compile reads faster

    def get(self) -> Value:
        """The current value."""
        if not torch.compiler.is_dynamo_compiling():
            return self._context.get()
        if self._open:
            return self.outside()
        return self._traced

    def outside(self) -> Value:
        """The current value where compiled code was called; reading it breaks the graph."""
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
        before, block = self._context.get(), object() if self._outer else None
        try:
            if block is not None:
                self._count(self._blocks.add, block)
            self._context.set(value)
            yield
            self._leave(block, value, before)
        except BaseException:  # Ctrl-C may have come anywhere in these lines
            self._leave(block, value, before)
            raise

    def _leave(self, block: object, value: Value, before: Value) -> None:
        if self._context.get() is value:  # not if Ctrl-C left this block open and it is closed later, within another
            self._context.set(before)
        if block is not None:
            self._count(self._blocks.discard, block)

    def _count(self, change: Callable[[object], None], block: object) -> None:
        change(block)
        while self._open != len(
            self._blocks
        ):  # without a lock, which Ctrl-C could leave locked; threads agree in the end
            self._open = len(self._blocks)
