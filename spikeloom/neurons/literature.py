"""Neurons beyond snnTorch's. Each follows from its equation, which stands in `cells/` with its paper."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cells.adaptive import ADAPTIVE_CURRENT, ADAPTIVE_THRESHOLD
from ..cells.integrate import INTEGRATE_AND_FIRE, LEAKY_INTEGRATOR
from ..cells.nonlinear import EXPONENTIAL, IZHIKEVICH, QUADRATIC
from ..cells.parametric import PARAMETRIC
from ..cells.refractory import REFRACTORY
from ..cells.resonate import RESONATE_AND_FIRE
from ._from_equation import made
from .leaky import Leaky

ALIF = made("ALIF", __name__, ADAPTIVE_THRESHOLD)
AdLIF = made("AdLIF", __name__, ADAPTIVE_CURRENT)
CuBaLIF = made("CuBaLIF", __name__, REFRACTORY)
EIF = made("EIF", __name__, EXPONENTIAL)
IF = made("IF", __name__, INTEGRATE_AND_FIRE)
Izhikevich = made("Izhikevich", __name__, IZHIKEVICH)
LI = made("LI", __name__, LEAKY_INTEGRATOR)
ParametricLIF = made(
    "ParametricLIF", __name__, PARAMETRIC, ("beta",), decay="sigmoid", reset_mechanism="zero", reset_delay=False
)
QIF = made("QIF", __name__, QUADRATIC)
ResonateFire = made("ResonateFire", __name__, RESONATE_AND_FIRE)


class NoisyLeaky(Leaky):
    """Leaky integrate-and-fire neuron whose membrane gets Gaussian noise at every step.

    mem' = (that of `Leaky`) + sigma * n, n drawn from N(0, 1) for each neuron and step; spk = H(mem' - threshold)

    Spike and reset follow from the same noisy membrane. So a neuron fires with the probability Phi((u - threshold) /
    sigma), u its membrane without this step's noise, and its noise is also in the states to come. The noise is drawn in
    training and in evaluation, from torch's generator; the same seed gives the same spikes step by step and unrolled.

    Args:
        sigma: standard deviation of the noise, in units of the membrane; a number or a tensor that broadcasts over the
            trailing dimensions. Assign 0 to `sigma` for a run without noise.
        learn_sigma: if True, sigma is an nn.Parameter.
        The others are those of `Leaky`; pass them by name.

    Shapes:
        those of `Leaky`.

    Raises:
        what `Leaky` raises.

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
        one_step = x[0] if len(x) else x.new_empty(x.shape[1:])
        # drawn step by step, as a loop would
        noise = torch.stack([torch.randn_like(one_step) for _ in range(steps)] or [one_step])[:steps]
        return x + self.sigma.to(x.dtype) * noise

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        return x + self.sigma.to(x.dtype) * torch.randn_like(x)
