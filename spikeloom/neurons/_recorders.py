"""The recorder of `spikeloom.fuse` that is active in this thread: neurons pass it their steps instead of running."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Recorders:
    """Which recorder is active. `open` counts them over all threads, so that a step without any has one check."""

    def __init__(self) -> None:
        self.open = 0
        self._context: ContextVar[Any] = ContextVar("spikeloom_recorder", default=None)

    def current(self) -> Any:
        """The recorder of this thread, or None."""
        return self._context.get()

    @contextmanager
    def active(self, recorder: Any) -> Iterator[None]:
        """Within this block, `recorder` is active; None for none."""
        token = self._context.set(recorder)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            self._context.reset(token)


recorders = Recorders()
