"""Which tensors of a run are static, [B, ...], and which carry time, [T*B, ...]: followed through the user's forward.

Shapes alone cannot tell: with one step or one row they are the same, and a reshape by a size that was read off a static
tensor takes time for something else. So every torch call is watched, and where static and folded tensors meet, or where
random numbers are drawn that should differ from step to step, the run is given up. It is then made again with the
static input repeated over time, which needs none of this.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .._torch import FunctionMode, without_torch_function
from ._snapshot import torch_random


class NotStatic(BaseException):
    """The static input must be repeated. No Exception, so that a forward's own `except Exception` lets it through."""


class Following(FunctionMode):
    """Watches a run from a static input."""

    def __init__(self, steps: int, batch: int):
        super().__init__()
        self.why_not = ""
        self._rows, self._batch = steps * batch, batch
        self._static = WeakTensorKeyDictionary()
        self._random: list[Tensor] = []  # empty: to be read before the next call

    def is_static(self, x: Tensor) -> bool:
        """Whether x is the same at every step. One made by the forward itself is told by its rows."""
        known: bool | None = self._static.get(x)
        return (x.dim() > 0 and len(x) == self._batch != self._rows) if known is None else known

    def static(self, x: Tensor) -> Tensor:
        """x, noted as static. Every input passes here."""
        self._static[x] = True
        return x

    def mark(self, x: Tensor, static: bool) -> None:
        """Note where x comes from."""
        self._static[x] = static

    def aside(self) -> AbstractContextManager[Any]:
        """Within this context nothing is watched: a neuron knows about time, and may draw random numbers."""
        self._random = []
        return without_torch_function()

    def give_up(self, why: str) -> None:
        """End the run."""
        self.why_not = self.why_not or why
        raise NotStatic(why)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        met = {known for t in _tensors((args, kwargs)) if (known := self._static.get(t)) is not None}
        name = getattr(func, "__name__", str(func))
        if len(met) == 2:
            self.give_up(f"{name} joins a tensor that is the same at every step and one that is not")
        if False in met:
            result = func(*args, **kwargs)
            self._random = []
        else:
            result = self._without_randomness(name, func, args, kwargs)
        for known in met:
            changed = args[:1] if name == "__setitem__" else result
            for t in _tensors(changed):
                self.mark(t, known)
                if not known and t.dim() and len(t) != self._rows:
                    self.give_up(f"{name} takes time out of dimension 0: it returns {len(t)} rows, not {self._rows}")
        return result

    def _without_randomness(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        before = self._random or torch_random()
        result = func(*args, **kwargs)
        self._random = torch_random()
        own = any(isinstance(arg, torch.Generator) for arg in (*args, *kwargs.values()))
        if own or len(before) != len(self._random) or not all(map(torch.equal, before, self._random)):
            self.give_up(f"{name} draws random numbers, which are to differ from step to step")
        return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _tensors(branch)
