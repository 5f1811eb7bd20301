"""Neurons that snnTorch does not have, built from the equations in `cells/`, which hold their docstrings and papers."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from .._torch import exporting
from ..cells.adaptive import ADAPTIVE_CURRENT, ADAPTIVE_THRESHOLD, RECURRENT_ADAPTIVE_THRESHOLD
from ..cells.integrate import INTEGRATE_AND_FIRE, LEAKY_INTEGRATOR
from ..cells.nonlinear import EXPONENTIAL, IZHIKEVICH, QUADRATIC
from ..cells.parametric import PARAMETRIC
from ..cells.refractory import REFRACTORY
from ..cells.resonate import RESONATE_AND_FIRE
from ._from_equation import EquationNeuron, RecurrentEquationNeuron
from ._neuron import SpikeGrad
from .leaky import Leaky
from .recurrent import Size

Number = float | Tensor
"""A parameter: one number, or a tensor that broadcasts over the trailing dimensions of the input."""


class Options(TypedDict, total=False):
    """Keyword arguments of every neuron in this file, see `EquationNeuron`."""

    learn: str | Sequence[str]
    spike_grad: SpikeGrad | None
    surrogate_disable: bool
    init_hidden: bool
    output: bool
    decay: str


class ResetOptions(Options, total=False):
    """Keyword arguments of the neurons that fire and reset as `Leaky` does."""

    inhibition: bool
    reset_mechanism: str
    state_quant: Callable[[Tensor], Tensor] | bool
    reset_delay: bool
    graded_spikes_factor: Number


class RecurrentOptions(Options, total=False):
    """Keyword arguments of the neurons whose spikes are fed back, as those of `RLeaky`."""

    V: Number
    all_to_all: bool
    linear_features: int | None
    conv2d_channels: int | None
    kernel_size: Size | None
    learn_recurrent: bool


# At run time, the docstring of a class is that of its equation, with the states and the options.


class ALIF(EquationNeuron, model=ADAPTIVE_THRESHOLD):
    """Leaky integrate-and-fire neuron with an adaptive threshold (Bellec et al., 2018)."""

    def __init__(
        self,
        beta: Number = 0.9,
        rho: Number = 0.97,
        kappa: Number = 0.1,
        threshold: Number = 1.0,
        **options: Unpack[Options],
    ):
        super().__init__(beta, rho, kappa, threshold, **options)


class AdLIF(EquationNeuron, model=ADAPTIVE_CURRENT):
    """Adaptive leaky integrate-and-fire neuron (Bittar and Garner, 2022)."""

    def __init__(
        self,
        beta: Number = 0.9,
        rho: Number = 0.95,
        a: Number = 0.5,
        b: Number = 0.5,
        threshold: Number = 1.0,
        **options: Unpack[Options],
    ):
        super().__init__(beta, rho, a, b, threshold, **options)


class CuBaLIF(EquationNeuron, model=REFRACTORY):
    """Current-based leaky integrate-and-fire neuron with a refractory period."""

    def __init__(
        self,
        alpha: Number = 0.8,
        beta: Number = 0.9,
        period: Number = 2.0,
        threshold: Number = 1.0,
        **options: Unpack[Options],
    ):
        super().__init__(alpha, beta, period, threshold, **options)


class EIF(EquationNeuron, model=EXPONENTIAL):
    """Exponential integrate-and-fire neuron (Fourcaud-Trocmé et al., 2003)."""

    def __init__(
        self,
        tau: Number = 2.0,
        v_rest: Number = 0.0,
        sharpness: Number = 0.2,
        rheobase: Number = 0.8,
        threshold: Number = 1.0,
        v_reset: Number = 0.0,
        **options: Unpack[Options],
    ):
        super().__init__(tau, v_rest, sharpness, rheobase, threshold, v_reset, **options)


class IF(EquationNeuron, model=INTEGRATE_AND_FIRE):
    """Integrate-and-fire neuron without leak."""

    def __init__(self, threshold: Number = 1.0, **options: Unpack[ResetOptions]):
        super().__init__(threshold, **options)


class Izhikevich(EquationNeuron, model=IZHIKEVICH):
    """Izhikevich neuron (Izhikevich, 2003)."""

    def __init__(
        self,
        a: Number = 0.02,
        b: Number = 0.2,
        c: Number = -65.0,
        d: Number = 8.0,
        threshold: Number = 30.0,
        dt: Number = 1.0,
        **options: Unpack[Options],
    ):
        super().__init__(a, b, c, d, threshold, dt, **options)


class LI(EquationNeuron, model=LEAKY_INTEGRATOR):
    """Leaky integrator: a readout without spikes."""

    def __init__(self, beta: Number = 0.9, **options: Unpack[Options]):
        super().__init__(beta, **options)


class ParametricLIF(
    EquationNeuron, model=PARAMETRIC, learn=("beta",), decay="sigmoid", reset_mechanism="zero", reset_delay=False
):
    """Leaky integrate-and-fire neuron with a learned time constant (Fang et al., 2021)."""

    def __init__(self, beta: Number = 0.5, threshold: Number = 1.0, **options: Unpack[ResetOptions]):
        super().__init__(beta, threshold, **options)


class QIF(EquationNeuron, model=QUADRATIC):
    """Quadratic integrate-and-fire neuron (Latham et al., 2000)."""

    def __init__(
        self,
        tau: Number = 2.0,
        gain: Number = 1.0,
        v_rest: Number = 0.0,
        v_critical: Number = 0.8,
        threshold: Number = 1.0,
        v_reset: Number = 0.0,
        **options: Unpack[Options],
    ):
        super().__init__(tau, gain, v_rest, v_critical, threshold, v_reset, **options)


class RALIF(RecurrentEquationNeuron, model=RECURRENT_ADAPTIVE_THRESHOLD):
    """Recurrent leaky integrate-and-fire neuron with an adaptive threshold, as in an LSNN (Bellec et al., 2018)."""

    def __init__(
        self,
        beta: Number = 0.9,
        rho: Number = 0.97,
        kappa: Number = 0.1,
        threshold: Number = 1.0,
        **options: Unpack[RecurrentOptions],
    ):
        super().__init__(beta, rho, kappa, threshold, **options)


class ResonateFire(EquationNeuron, model=RESONATE_AND_FIRE):
    """Resonate-and-fire neuron (Izhikevich, 2001)."""

    def __init__(self, beta: Number = 0.95, omega: Number = 0.5, threshold: Number = 1.0, **options: Unpack[Options]):
        super().__init__(beta, omega, threshold, **options)


class NoisyLeaky(Leaky):
    """Leaky integrate-and-fire neuron with Gaussian noise on the membrane at every step.

    mem' = (mem' of `Leaky`) + sigma * n, n ~ N(0, 1) for each neuron and step; spk = H(mem' - threshold)

    Spikes and resets use the same noisy membrane. A neuron fires with probability Phi((u - threshold) / sigma), where u
    is the membrane without the noise of this step. The noise carries over into later states. It is drawn from torch's
    generator, in training and in evaluation; the same seed gives the same spikes step by step and unrolled.

    Args:
        sigma: standard deviation of the noise, in units of the membrane; a number or a tensor that broadcasts over the
            trailing dimensions. Assign 0 to `sigma` to switch the noise off.
        learn_sigma: if True, sigma is an nn.Parameter.
        The other arguments are those of `Leaky`; pass them by name.

    Shapes:
        The shapes of `Leaky`.

    Raises:
        The errors of `Leaky`.

    Source: Ma, Yan and Tang, "Exploiting noise as a resource for computation and learning in spiking neural networks",
    2023, equations 1 to 4, with Gaussian noise.

        >>> import torch, spikeloom as snn
        >>> _ = torch.manual_seed(0)
        >>> lif = snn.NoisyLeaky(beta=0.0, sigma=0.5)
        >>> spk, _ = snn.unroll(lif, torch.full((1, 10_000), 0.75), steps=1)
        >>> spk.mean()  # Phi(-0.5) = 0.309
        tensor(0.30...)
    """

    sigma: Tensor

    def __init__(self, beta: float | Tensor, sigma: float | Tensor = 0.1, *, learn_sigma: bool = False, **options: Any):
        super().__init__(beta, **options)
        self._register_value("sigma", sigma, learn_sigma)

    def _drive(self, x: Tensor, steps: int | None) -> Tensor:
        if steps is None:
            return self._drive_step(x, ())
        if exporting():
            return x + self.sigma.to(x.dtype) * torch.randn_like(x.expand(steps, *x.shape[1:]))
        one_step = x[0] if len(x) else x.new_empty(x.shape[1:])
        # drawn step by step, as a loop would
        noise = torch.stack([torch.randn_like(one_step) for _ in range(steps)] or [one_step])[:steps]
        return x + self.sigma.to(x.dtype) * noise

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        return x + self.sigma.to(x.dtype) * torch.randn_like(x)
