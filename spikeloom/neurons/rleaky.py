"""The leaky integrate-and-fire layer with recurrence."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..cells.leaky import RLEAKY, RLEAKY_THROUGH_LAYER
from ._keeping import by_reset_mem
from ._neuron import SpikeGrad
from ._recurrent import Recurrent, Size


class RLeaky(Recurrent):
    """Leaky integrate-and-fire neuron whose own spikes of the step before come back as input.

    With b = clamp(beta, 0, 1) and R = H(mem - threshold) from the membrane of the step before:

    base = b * mem + x + f(spk)

    | reset_mechanism | membrane                    |
    | --------------- | --------------------------- |
    | "subtract"      | mem' = base - R * threshold |
    | "zero"          | mem' = (1 - R) * base       |
    | "none"          | mem' = base                 |

    and spk' = H(mem' - threshold). f(spk) is V * spk for each neuron by itself (all_to_all=False), or `recurrent(spk)`,
    an nn.Linear over all neurons or an nn.Conv2d over an image of them, with a bias that also acts at the first step.
    Unlike `Leaky`, "zero" clears input and feedback too. Gradient flows through the feedback.

    A module of your own may be assigned to `recurrent`, also a network with neurons that keep their states. It gets the
    spikes of the step before, once per step, also while the network is unrolled.

    Args:
        beta: decay per step, clamped to 0 to 1.
        V: weight of the one-to-one recurrence; a number or a tensor that broadcasts over the trailing dimensions.
        all_to_all: if False, each neuron feeds itself alone.
        linear_features: number of neurons, for recurrence through an nn.Linear.
        conv2d_channels: number of channels, for recurrence through an nn.Conv2d.
        kernel_size: of that convolution, whose padding keeps the size of the image if it is odd.
        learn_recurrent: if False, the recurrent weights stay as they are.
        reset_delay: if False, the reset acts within the step of the spike.
        The others are those of `Leaky`.

    Shapes:
        input_, spk and mem [B, *N] ([B, N] through a Linear, [B, C, H, W] through a convolution); returns (spk, mem),
        each as the input. Unrolled: [T, B, *N].

    Raises:
        TypeError: unless exactly one kind of recurrence is asked for. Also what `Leaky` raises.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", 2018,
    equation 1; Eshraghian et al., 2023, appendix B.

        >>> import torch, spikeloom as snn
        >>> lif = snn.RLeaky(beta=0.5, V=0.5, all_to_all=False)
        >>> spk, mem = lif.init_rleaky()
        >>> for _ in range(2):
        ...     spk, mem = lif(torch.tensor([1.25]), spk, mem)
        >>> mem.detach()
        tensor([1.3750])
    """

    one_to_one, through_layer = RLEAKY, RLEAKY_THROUGH_LAYER

    def __init__(
        self,
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

    def forward(self, input_: Tensor, spk: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, *N] and, unless the layer keeps them, spk and mem; returns spk, or (spk, mem)."""
        return self._run(input_, (spk, mem))

    init_rleaky = by_reset_mem
