"""The current-based leaky integrate-and-fire layer with recurrence."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..cells.synaptic import RSYNAPTIC, SYNAPTIC
from ._dynamics import ClearedByEquation
from ._keeping import by_reset_mem
from ._neuron import SpikeGrad
from ._recurrent import Recurrent, Size


class RSynaptic(ClearedByEquation, Recurrent):
    """Current-based leaky integrate-and-fire neuron whose own spikes of the step before come back as input.

    With a = clamp(alpha, 0, 1), b = clamp(beta, 0, 1), R = H(mem - threshold) from the membrane of the step before:

    syn' = a * syn + x + f(spk);  base = b * mem + syn'

    | reset_mechanism | membrane                    |
    | --------------- | --------------------------- |
    | "subtract"      | mem' = base - R * threshold |
    | "zero"          | mem' = (1 - R) * base       |
    | "none"          | mem' = base                 |

    and spk' = H(mem' - threshold). f(spk) is the recurrence of `RLeaky`: V * spk, or a layer. The current is never
    reset.

    Args:
        alpha: decay of the current per step, clamped to 0 to 1.
        beta: decay of the membrane per step, clamped to 0 to 1.
        learn_alpha: if True, alpha is an nn.Parameter.
        The others are those of `RLeaky`.

    Shapes:
        input_, spk, syn and mem as in `RLeaky`; returns (spk, syn, mem), each as the input. Unrolled: [T, B, *N].

    Raises:
        what `RLeaky` raises.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023, appendix B.

        >>> import torch, spikeloom as snn
        >>> lif = snn.RSynaptic(alpha=0.5, beta=0.5, linear_features=3, init_hidden=True)
        >>> spk = snn.unroll(lif, torch.rand(25, 2, 3))
        >>> spk.shape, lif.syn.shape
        (torch.Size([25, 2, 3]), torch.Size([2, 3]))
    """

    one_to_one, through_layer = RSYNAPTIC, SYNAPTIC
    syn: Tensor

    def __init__(
        self,
        alpha: float | Tensor,
        beta: float | Tensor,
        V: float | Tensor = 1.0,
        all_to_all: bool = True,
        linear_features: int | None = None,
        conv2d_channels: int | None = None,
        kernel_size: Size | None = None,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        learn_recurrent: bool = True,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        reset_delay: bool = True,
        decay: str = "clamp",
    ):
        self._build(locals())

    def forward(
        self, input_: Tensor, spk: Tensor | None = None, syn: Tensor | None = None, mem: Tensor | None = None
    ) -> Any:
        """One step: input_ [B, *N] and, unless the layer keeps them, the states; returns spk, or (spk, syn, mem)."""
        return self._run(input_, (spk, syn, mem))

    init_rsynaptic = by_reset_mem
