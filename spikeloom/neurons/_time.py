"""How a neuron knows that it runs over a whole sequence: a context that `unroll` sets and neurons read.

While it is set, the network's tensors carry time folded into dimension 0, [T*B, ...], or [B, ...] where nothing has
depended on time yet (the static prefix). A neuron unfolds its input, runs all T steps, and folds what it returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Visit:
    """What one neuron saw during an unrolled run."""

    backend: str
    refusals: list[str]
    static: bool
    spk: Tensor


@dataclass
class Time:
    """An unrolled run: T steps of B rows each, whether inputs may be static, and what the neurons saw (by neuron)."""

    steps: int
    batch: int
    static: bool
    recording: bool = False
    seen: set[int] = field(default_factory=set)
    visits: dict[Any, Visit] = field(default_factory=dict)

    def unfold(self, x: Tensor, name: str) -> Tensor:
        """[T*B, *N] -> [T, B, *N]; a static [B, *N] -> [1, B, *N]."""
        rows = x.shape[0] if x.dim() else None
        if rows == self.steps * self.batch:
            return x.unflatten(0, (self.steps, self.batch))
        if self.static and rows == self.batch:
            return x.unsqueeze(0)
        wanted = f"{self.steps} * {self.batch} = {self.steps * self.batch}"
        raise ValueError(
            f"{name} got an input of shape {tuple(x.shape)} while unrolled over {self.steps} steps of {self.batch} rows; "
            f"dimension 0 must be steps * batch = {wanted}. Is a batch size written into the network's forward?"
        )


_time: ContextVar[Time | None] = ContextVar("spikeloom_time", default=None)
current_time = _time.get


@contextmanager
def time_is(time: Time | None) -> Iterator[Time | None]:
    """Within this context neurons run over `time`; None is step by step."""
    token = _time.set(time)
    try:
        yield time
    finally:
        _time.reset(token)
