"""The leaky integrate-and-fire neuron."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..cells.firing import AnyModel
from ..cells.leaky import LEAKY
from ._neuron import LIF, SpikeGrad
from ._state import by_reset_mem


class Leaky(LIF):
    """First-order leaky integrate-and-fire neuron.

    With b = clamp(beta, 0, 1) and R = H(mem - threshold), computed from the membrane of the previous step:

    | reset_mechanism | membrane                          |
    | --------------- | --------------------------------- |
    | "subtract"      | mem' = b * mem + x - R * threshold |
    | "zero"          | mem' = b * (1 - R) * mem + x       |
    | "none"          | mem' = b * mem + x                 |

    and spk = graded_spikes_factor * H(mem' - threshold). A membrane exactly at the threshold does not fire.
    The reset is delayed by one step, and R is detached. With ``reset_delay=False`` the membrane is reset in the step in
    which it fires, and the gradient flows through the reset.

    Args:
        beta: decay per step, clamped to [0, 1]; a number or a tensor that broadcasts over the trailing dimensions.
        threshold: membrane above which the neuron fires.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer stores its state and returns only the spikes.
        inhibition: if True, only the neuron with the highest membrane in dimension 1 may fire.
        learn_beta: if True, beta is an nn.Parameter.
        learn_threshold: if True, the threshold is an nn.Parameter.
        reset_mechanism: "subtract", "zero" or "none".
        state_quant: a function that quantizes the membrane after every step, or False.
        output: if True, return (spk, mem) even with init_hidden.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, the amplitude is an nn.Parameter.
        reset_delay: if False, the reset is applied in the same step as the spike.
        decay: how beta is restricted to [0, 1]: "clamp"; "sigmoid", stored as `beta_logit`; or "tau", stored as a
            time constant in steps, `beta_tau`. In each case `lif.beta` returns the decay.

    Shapes:
        input_ and mem [B, *N], with any number of dimensions; returns spk and mem of the input's shape.
        Unrolled (see `spikeloom.unroll`): [T, B, *N]. A mem of another shape is broadcast to the input. If it
        does not broadcast, it is replaced by zeros; the layer warns once if it was not zero.

    Raises:
        ValueError: for an unknown reset_mechanism, or a parameter that does not broadcast to the input.
        TypeError: if mem is passed to a layer with init_hidden=True.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023, equation 4.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Leaky(beta=0.5)
        >>> mem = lif.init_leaky()
        >>> for _ in range(3):
        ...     spk, mem = lif(torch.tensor([0.75]), mem)
        >>> spk, mem
        (tensor([0.]), tensor([0.3125]))
    """

    model: AnyModel = LEAKY
    mem: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        decay: str = "clamp",
    ):
        self._build(locals())

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, mem [B, *N]; returns spk, or (spk, mem)."""
        return self._run(input_, (mem,))

    # -- snnTorch spellings -----------------------------------------------------------------------------------------

    init_leaky = by_reset_mem
