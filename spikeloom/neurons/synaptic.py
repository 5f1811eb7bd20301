"""The current-based leaky integrate-and-fire neuron."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..cells.synaptic import SYNAPTIC
from ._methods import ClearedByEquation
from ._neuron import LIF, SpikeGrad
from ._state import by_reset_mem


class Synaptic(ClearedByEquation, LIF):
    """Second-order leaky integrate-and-fire neuron: spikes feed a synaptic current, which feeds the membrane.

    With a = clamp(alpha, 0, 1), b = clamp(beta, 0, 1) and R = H(mem - threshold) of the previous step:

    syn' = a * syn + x

    | reset_mechanism | membrane                              |
    | --------------- | ------------------------------------- |
    | "subtract"      | mem' = b * mem + syn' - R * threshold |
    | "zero"          | mem' = (1 - R) * (b * mem + syn')     |
    | "none"          | mem' = b * mem + syn'                 |

    and spk = H(mem' - threshold). Unlike in `Leaky`, "zero" also clears the contribution of the new current. The
    current itself is never reset.

    Args:
        alpha: decay of the current per step, clamped to [0, 1].
        beta: decay of the membrane per step, clamped to [0, 1].
        learn_alpha: if True, alpha is an nn.Parameter.
        reset_delay: if False, the reset is applied in the same step as the spike.
        The other arguments are those of `Leaky`.

    Shapes:
        input_, syn and mem [B, *N]; returns (spk, syn, mem), each of the input's shape. Unrolled: [T, B, *N].

    Raises:
        The errors of `Leaky`.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023, appendix B.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Synaptic(alpha=0.5, beta=0.5)
        >>> syn, mem = lif.init_synaptic()
        >>> for _ in range(2):
        ...     spk, syn, mem = lif(torch.tensor([0.5]), syn, mem)
        >>> spk, syn, mem
        (tensor([0.]), tensor([0.7500]), tensor([1.]))
    """

    model = SYNAPTIC
    syn: Tensor
    mem: Tensor

    def __init__(
        self,
        alpha: float | Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        reset_delay: bool = True,
        decay: str = "clamp",
    ):
        self._build(locals())

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, syn and mem; returns spk, or (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    init_synaptic = by_reset_mem
