"""Penalties on firing rates, to be added to a loss."""

import torch
from torch import Tensor

from ._inputs import Lengths, Optioned, read

__all__ = ["l1_rate_sparsity", "rate_lower_bound", "rate_upper_bound"]


class l1_rate_sparsity(Optioned):
    """Penalty on the number of spikes.

        penalty = Lambda * sum of all spikes

    Args:
        Lambda: strength of the penalty.

    Call:
        spk_out [T, B, *N], and for sequences of different lengths either mask [T, B], True where a step counts, or
        lengths [B]. Returns [], float64 for float64 inputs, else float32.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> SF.l1_rate_sparsity(Lambda=0.01)(torch.ones(5, 2, 3))
        tensor(0.3000)
    """

    def __init__(self, Lambda: float = 1e-5):
        super().__init__()
        self.Lambda = Lambda

    def forward(self, spk_out: Tensor, *, mask: Tensor | None = None, lengths: Lengths | None = None) -> Tensor:
        """The penalty on spk_out [T, B, *N]."""
        if mask is None and lengths is None:
            return self.Lambda * spk_out.sum(dtype=torch.promote_types(spk_out.dtype, torch.float32))
        spk, _ = read(spk_out, self.__name__, "spk_out", mask, lengths, axes="[T, B, *N]")
        return self.Lambda * spk.sum()


class _RateBound(Optioned):
    """Base class of the two bounds."""

    def __init__(self, bound: float, Lambda: float):
        super().__init__()
        if not 0 <= bound <= 1:
            raise ValueError(f"{self.__name__} got bound={bound!r}; pass spikes per step, in [0, 1]")
        self.bound, self.Lambda = bound, Lambda

    def _rates(self, spk_out: Tensor, mask: Tensor | None, lengths: Lengths | None) -> Tensor:
        """Spikes per step of every neuron, [B, N]."""
        spk, steps = read(spk_out, self.__name__, "spk_out", mask, lengths, axes="[T, B, *N]")
        return steps.mean(spk)


class rate_lower_bound(_RateBound):
    """Penalty on neurons whose rate is below a bound, to avoid silent neurons.

    With r_n the spikes per step of neuron n:

        penalty = Lambda * mean over samples and neurons of max(0, bound - r_n)^2

    Args:
        bound: rate in spikes per step, at or above which the penalty is 0. Default: 0.01.
        Lambda: strength of the penalty, which is Lambda * bound^2 if all neurons are silent. Begin with about
            0.02 / bound^2, such as 20 for a bound of 0.03; with the default, 1, it is far below a cross-entropy.

    Call:
        spk_out [T, B, *N], and for sequences of different lengths either mask [T, B], True where a step counts, or
        lengths [B]. Returns [], float64 for float64 inputs, else float32.

    Raises:
        ValueError: for a bound outside [0, 1], or shapes that do not match.

    Source: Zenke and Vogels, "The remarkable robustness of surrogate gradient learning for instilling complex function
    in spiking neural networks", 2021 (there on counts; here on rates, so that the bound does not depend on T).

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(10, 1, 2)
        >>> spk[:5, 0, 0] = 1
        >>> SF.rate_lower_bound(bound=0.1)(spk)
        tensor(0.0050)
    """

    def __init__(self, bound: float = 0.01, Lambda: float = 1.0):
        super().__init__(bound, Lambda)

    def forward(self, spk_out: Tensor, *, mask: Tensor | None = None, lengths: Lengths | None = None) -> Tensor:
        """The penalty on spk_out [T, B, *N]."""
        missing = (self.bound - self._rates(spk_out, mask, lengths)).clamp(min=0)
        return self.Lambda * missing.square().mean()


class rate_upper_bound(_RateBound):
    """Penalty on a layer, or on single neurons, whose rate is above a bound.

    With r_n the spikes per step of neuron n:

        penalty = Lambda * mean over samples of max(0, mean over n of r_n - bound)^2
        penalty = Lambda * mean over samples and neurons of max(0, r_n - bound)^2        (per_neuron)

    Args:
        bound: rate in spikes per step, up to which the penalty is 0. Default: 0.2.
        Lambda: strength of the penalty.
        per_neuron: if False, the bound is on the mean rate of the layer. Default: False.

    For call, errors and source see `rate_lower_bound`.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(10, 1, 2)
        >>> spk[:8, 0, 0] = 1
        >>> SF.rate_upper_bound(bound=0.3)(spk), SF.rate_upper_bound(bound=0.3, per_neuron=True)(spk)
        (tensor(0.0100), tensor(0.1250))
    """

    def __init__(self, bound: float = 0.2, Lambda: float = 1.0, per_neuron: bool = False):
        super().__init__(bound, Lambda)
        self.per_neuron = per_neuron

    def forward(self, spk_out: Tensor, *, mask: Tensor | None = None, lengths: Lengths | None = None) -> Tensor:
        """The penalty on spk_out [T, B, *N]."""
        rates = self._rates(spk_out, mask, lengths)
        excess = (rates if self.per_neuron else rates.mean(1)) - self.bound
        return self.Lambda * excess.clamp(min=0).square().mean()
