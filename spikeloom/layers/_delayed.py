"""What layers with delays share: the delays, which may be learned, and the inputs of the last steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons._checks import Passage, carried, checked_input, refuse_misplaced, restarted, usable, watched
from ..neurons._parameters import checked_value
from ..neurons._state import deep_copied, moved, state_for
from ._over_time import OverTime
from ._reading import lags_of


class Delayed(OverTime):
    """Base of the layers with delays.

    Args:
        shape: of the delays, [*D].
        max_delay: in steps.
        delay: what they start from; None draws them.
        learn_delay: if True, they are an nn.Parameter.
        sigma: width of the window for their gradient.
    """

    delay: Tensor
    past: Tensor
    _passage: Passage | None = None

    def __init__(
        self,
        shape: tuple[int, ...],
        max_delay: int,
        delay: float | Tensor | None,
        learn_delay: bool,
        sigma: float | None,
    ):
        super().__init__()
        if isinstance(max_delay, bool) or not hasattr(max_delay, "__index__") or max_delay < 0:
            raise ValueError(f"{self._label()} got max_delay={max_delay!r}; pass a whole number of steps, 0 or more")
        self.max_delay = max_delay.__index__()
        self.sigma = max(0.5, self.max_delay / 4) if sigma is None else sigma
        start = torch.rand(shape) * self.max_delay if delay is None else self._spread(delay, shape)
        if learn_delay:
            self.delay = nn.Parameter(start)
        else:
            self.register_buffer("delay", start)
        self.past = torch.zeros(0)

    def _spread(self, delay: float | Tensor, shape: tuple[int, ...]) -> Tensor:
        """The delays given, each of them a number of its own."""
        given = checked_value(delay, self._label(), "delay").detach()
        wide = given.to(given.dtype if given.is_floating_point() else torch.get_default_dtype())
        if not ((wide >= 0) & (wide <= self.max_delay)).all():
            raise ValueError(
                f"{self._label()} got a delay outside of 0 to max_delay={self.max_delay} steps; raise max_delay, or "
                "pass delays within"
            )
        try:
            return wide.expand(shape).clone()
        except RuntimeError as error:
            raise ValueError(
                f"{self._label()} got delays of shape {tuple(given.shape)}; pass a number, or a tensor that broadcasts "
                f"to {shape}"
            ) from error

    @property
    def lags(self) -> Tensor:
        """The delays in force, in whole steps: held within 0 to max_delay, and rounded."""
        return lags_of(self.delay.detach(), self.max_delay)

    @property
    def sigma(self) -> float:
        """Width, in steps, of the window through which a delay sees where it would be better."""
        return self._sigma

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        if not sigma > 0:
            raise ValueError(f"{self._label()} got sigma={sigma!r}; pass a width above 0, in steps")
        self._sigma = float(sigma)

    # -- running ------------------------------------------------------------------------------------------------------

    def over_time(self, x: Tensor) -> Tensor:
        """[T, *S] -> [T, *R], going on from the inputs of the last steps."""
        x = checked_input(x, self._label)
        self._admit(x)
        if not len(x):  # nothing passes, in the shape that a step would have
            return self._read(x.new_zeros(self.max_delay + 1, *x.shape[1:]))[:0]
        past = self._present(x)
        series, steps = torch.cat((past, x)), len(x)
        out = self._read(series)
        # cloned: a view would keep the whole sequence in memory
        self.past = series[steps:].clone() if steps > 1 else series[steps:]
        self._passage = watched(self._passage, (past,), (out, self.past))
        return out

    def _admit(self, x: Tensor) -> None:
        """Refuse a sequence [T, *S] that does not fit."""

    def _read(self, series: Tensor) -> Tensor:
        """[max_delay + T, *S] -> [T, *R]."""
        raise NotImplementedError

    def _present(self, x: Tensor) -> Tensor:
        """The last inputs, [max_delay, *S], in the dtype of x; zeros where there were none of this shape."""
        like = x.new_empty(()).expand(self.max_delay, *x.shape[1:])
        refuse_misplaced(self, [self.past])
        past = state_for(like, x.dtype, self, "past", self.past, kept=True)
        return carried(past, self, "past")

    # -- state --------------------------------------------------------------------------------------------------------

    def reset_mem(self) -> None:
        """Forget all inputs, also those that are still under way."""
        restarted(self)
        self.past = torch.zeros(0, dtype=self.past.dtype, device=self.past.device)

    def detach_mem(self) -> None:
        """Cut the last inputs from the graph that made them; those under way still arrive."""
        self.past = usable(self.past).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.past = moved(usable(self.past), fn)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # which sees another part of the batch
        replica.past, replica._passage = self.past.new_zeros(0), None
        return replica

    __deepcopy__ = deep_copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "past": usable(self.past).detach(), "_passage": None}

    def extra_repr(self) -> str:
        learned = isinstance(self.delay, nn.Parameter)
        return f"{', '.join(map(str, self.delay.shape))}, max_delay={self.max_delay}, learn_delay={learned}"
