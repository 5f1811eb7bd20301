"""Delays between neurons: one per neuron, or one per connection.

A delay is a real number. The forward pass reads the input at the nearest step. The backward pass differentiates a
weighted mean of the inputs around the delay: the weights are a Gaussian over the lags 0 to max_delay, normalized to a
sum of one. A width of 0.5 covers the neighboring steps; a width of 0 differentiates a linear interpolation of these.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons._parameters import checked_params, checked_value, taken
from ..neurons._state import (
    checked_input,
    compute_dtype,
    deep_copied,
    moved,
    refuse_misplaced,
    restarted,
    state_for,
    usable,
)
from ._delayed_products import lags_of, product, shifted
from ._over_time import OverTime


class _Delayed(OverTime):
    """Base of the layers with delays: stores the delays, [*D], and the inputs of the last steps."""

    delay: Tensor
    past: Tensor

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
        """Check the given delays and expand them to one number per delay."""
        given = checked_value(delay, self._label(), "delay").detach()
        wide = given.to(given.dtype if given.is_floating_point() else torch.get_default_dtype())
        if not ((wide >= 0) & (wide <= self.max_delay)).all():
            raise ValueError(
                f"{self._label()} got a delay outside of 0 to max_delay={self.max_delay} steps; raise max_delay, or "
                "pass delays in that range"
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
        """The delays that are applied, in whole steps: clamped to [0, max_delay] and rounded."""
        return lags_of(self.delay.detach(), self.max_delay)

    @property
    def sigma(self) -> float:
        """Width, in steps, of the Gaussian window for the gradient of the delays; 0: a linear interpolation."""
        return self._sigma

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        if not sigma >= 0:
            raise ValueError(f"{self._label()} got sigma={sigma!r}; pass a width in steps, 0 or more")
        self._sigma = float(sigma)

    # -- running ------------------------------------------------------------------------------------------------------

    def over_time(self, x: Tensor) -> Tensor:
        """[T, *S] -> [T, *R], continuing from the inputs of the last steps."""
        x = checked_input(x, self._label)
        self._admit(x)
        if x.shape[0] == 0:  # an empty output, in the shape that a step would have
            return self._read(x.new_zeros(self.max_delay + 1, *x.shape[1:]))[:0]
        series, steps = torch.cat((self._present(x), x)), x.shape[0]
        out = self._read(series)
        # cloned: a view would keep the whole sequence in memory
        self.past = series[steps:].clone() if steps > 1 else series[steps:]
        return out

    def _admit(self, x: Tensor) -> None:
        """Reject a sequence [T, *S] of the wrong shape."""

    def _read(self, series: Tensor) -> Tensor:
        """[max_delay + T, *S] -> [T, *R]."""
        raise NotImplementedError

    def _present(self, x: Tensor) -> Tensor:
        """The last inputs, [max_delay, *S], in the dtype of x; zeros if none of this shape are stored."""
        like = x.new_empty(()).expand(self.max_delay, *x.shape[1:])
        refuse_misplaced(self, [self.past])
        return state_for(like, x.dtype, self, "past", self.past, stored=True)

    def _carried(self) -> tuple[str, ...]:
        return ("past",)

    # -- state --------------------------------------------------------------------------------------------------------

    def reset_mem(self) -> None:
        """Clear all stored inputs, including those that are still delayed."""
        restarted(self)
        self.past = torch.zeros(0, dtype=self.past.dtype, device=self.past.device)

    def detach_mem(self) -> None:
        """Detach the stored inputs from their autograd graph; their values are still returned after their delays."""
        self.past = usable(self.past).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.past = moved(usable(self.past), fn)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # it receives another part of the batch
        replica.past = self.past.new_zeros(0)
        return replica

    __deepcopy__ = deep_copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "past": usable(self.past).detach()}

    def extra_repr(self) -> str:
        learned = isinstance(self.delay, nn.Parameter)
        return f"{', '.join(map(str, self.delay.shape))}, max_delay={self.max_delay}, learn_delay={learned}"


class SynapticDelay(_Delayed):
    """Delay the output of each neuron by its own number of steps, fixed or learned: one delay per axon.

    out[t, n] = x[t - d_n, n], zero before the first input; d_n is delay_n, clamped to [0, max_delay] and rounded

    A learned delay is a real number. The forward pass returns x at the nearest step. The gradient of the delay is that
    of a mean of x, weighted by a Gaussian window of width `sigma` around the delay:

    d out[t, n] / d delay_n = sum_k w_k'(delay_n) x[t - k, n];  w_k(d) = exp(-(k - d)² / (2 sigma²)) / (sum over k)

    A delay therefore receives gradients from inputs within about 2 sigma steps. A sigma of 0.5 interpolates between the
    neighboring steps and only finds delays at most one step away, and so does 0, which differentiates a linear
    interpolation of these; the default covers the whole range. `sigma` may be assigned at any time; Hammouamri et al.
    decrease it to 0.5 in the course of training.

    Args:
        size: number of delays, N, or their shape, which broadcasts to the trailing dimensions of the input:
            ``(C, 1, 1)`` for one delay per channel.
        max_delay: longest delay, in steps. The layer stores as many inputs.
        delay: initial delays, in steps, in [0, max_delay]: a number or a tensor. If None, they are drawn uniformly from
            that range.
        learn_delay: if True, `delay` is an nn.Parameter. If an optimizer moves it out of [0, max_delay], it acts as
            the bound, with the gradient at the bound; ``layer.delay.data.clamp_(0, layer.max_delay)`` after an update
            prevents it from drifting further. `lags` returns the delays that are applied.
        sigma: width of the window, in steps. Default: max_delay / 4, at least 0.5.

    Shapes:
        x, one step, [B, *N] or [*N]; returns the same shape. In an unrolled network, all steps at once.

    Raises:
        ValueError: if the delays do not broadcast to the input, max_delay or sigma is negative, or a
            delay is outside of [0, max_delay].

    The layer stores its last inputs and continues from them, as neurons do from their state: `spikeloom.utils.reset`
    clears them, `spikeloom.utils.detach` detaches them. They follow ``.to()`` and are not in the state_dict.

    Sources: Shrestha and Orchard, "SLAYER: spike layer error reassignment in time", 2018, for learned axonal delays;
    Hammouamri, Khalfaoui-Hassani and Masquelier, "Learning delays in spiking neural networks using dilated convolutions
    with learnable spacings", 2024, for the Gaussian window, which they also use in the forward pass.

        >>> import torch, spikeloom as snn
        >>> late = snn.SynapticDelay(3, max_delay=2, delay=torch.tensor([0.0, 1.0, 2.0]))
        >>> x = torch.zeros(4, 1, 3)
        >>> x[0] = 1.0
        >>> snn.unroll(late, x).squeeze(1)
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.],
                [0., 0., 0.]])
    """

    def __init__(
        self,
        size: int | tuple[int, ...],
        max_delay: int,
        delay: float | Tensor | None = None,
        learn_delay: bool = False,
        sigma: float | None = None,
    ):
        super().__init__(size if isinstance(size, tuple) else (size,), max_delay, delay, learn_delay, sigma)

    def _read(self, series: Tensor) -> Tensor:
        values = checked_params({"delay": taken(self.delay)}, series[0], compute_dtype(series), self._label)
        return shifted(series, values["delay"], self.max_delay, self.sigma)


class DelayedLinear(_Delayed):
    """Linear layer in which each connection has a weight and a delay: one delay per synapse.

    out[t, o] = sum_i weight[o, i] x[t - d_oi, i] + bias[o]; d_oi is delay[o, i], clamped and rounded

    Kernels add up the weights of nonzero inputs, at a cost that does not depend on max_delay unless delays are learned
    through a window (sigma > 0). Inputs that are small, have many nonzeros, or are not on the CPU are convolved over
    time, which costs as much as max_delay + 1 linear layers.

    Args:
        in_features: I, the size of the input.
        out_features: O, the size of the output.
        max_delay: longest delay, in steps. The layer stores as many inputs.
        delay: initial delays, in steps, in [0, max_delay]: a number or a tensor that broadcasts to [O, I]. If None,
            they are drawn uniformly from that range.
        learn_delay: if True, `delay` is an nn.Parameter, clamped as in `SynapticDelay`.
        bias: if False, the layer has no bias. The bias is not delayed.
        sigma: width of the window for the gradient, as in `SynapticDelay`.

    Shapes:
        x, one step, [B, I] or [I]; returns [B, O] or [O]. In an unrolled network, all steps at once.

    Raises:
        ValueError: if the last dimension of the input is not I. Also the errors of `SynapticDelay`.

    The state and the sources are those of `SynapticDelay`.

        >>> import torch, spikeloom as snn
        >>> fc = snn.DelayedLinear(2, 1, max_delay=3, delay=torch.tensor([[0.0, 3.0]]), bias=False)
        >>> _ = torch.nn.init.ones_(fc.weight)
        >>> x = torch.zeros(5, 1, 2)
        >>> x[1] = 1.0
        >>> snn.unroll(fc, x).flatten()
        tensor([0., 1., 0., 0., 1.], grad_fn=...)
    """

    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        delay: float | Tensor | None = None,
        learn_delay: bool = False,
        bias: bool = True,
        sigma: float | None = None,
    ):
        super().__init__((out_features, in_features), max_delay, delay, learn_delay, sigma)
        bound = 1 / math.sqrt(max(1, in_features))  # as in nn.Linear
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.delay.data = self.delay.data.to(self.weight.dtype)  # kernels require one dtype; NumPy's is float64
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None
        )

    def _admit(self, x: Tensor) -> None:
        wanted = self.weight.shape[1]
        if x.dim() < 2 or x.shape[-1] != wanted:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape[1:])}; its last dimension must be "
                f"in_features={wanted}"
            )

    def _read(self, series: Tensor) -> Tensor:
        rows = series.flatten(1, -2) if series.dim() > 2 else series.unsqueeze(1)
        out = product(rows, self.weight, taken(self.delay), self.bias, self.max_delay, self.sigma)
        return out.reshape(-1, *series.shape[1:-1], out.shape[-1])
