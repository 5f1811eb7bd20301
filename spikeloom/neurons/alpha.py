"""The alpha neuron: each spike shapes the membrane as an alpha function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..cells.alpha import ALPHA
from ._methods import charged, less
from ._neuron import LIF, SpikeGrad
from ._state import by_reset_mem


class Alpha(LIF):
    """Alpha neuron: its membrane responds to an input spike with the difference of two decaying currents.

    With a = clamp(alpha, 0, 1), b = clamp(beta, 0, 1) and R = H(mem - threshold) of the previous step:

    exc = a * syn_exc + x;  inh = b * syn_inh - x;  m = tau * (exc + inh),  tau = ln(a) / (ln(b) - ln(a)) + 1

    | reset_mechanism | syn_exc'            | syn_inh'        | mem'            |
    | --------------- | ------------------- | --------------- | --------------- |
    | "zero"          | (1 - R) * exc       | (1 - R) * inh   | (1 - R) * m     |
    | "subtract"      | exc - R * threshold | (1 - R) * inh   | m + R * syn_inh |
    | "none"          | exc                 | inh             | m               |

    and spk = H(mem' - threshold). The membrane is a function of the two currents and rises one step after the input.

    Args:
        alpha: decay of the excitatory current per step; must be greater than beta.
        beta: decay of the inhibitory current per step; must not be 1.
        learn_alpha: if True, alpha is an nn.Parameter.
        reset_mechanism: "subtract", "zero" or "none". Default: "zero".
        The other arguments are those of `Leaky`.

    Shapes:
        input_ and each state [B, *N]; returns (spk, syn_exc, syn_inh, mem), each of the input's shape.
        Unrolled: [T, B, *N].

    Raises:
        ValueError: if alpha is not greater than beta for every neuron, or beta is 1. Also the errors of `Leaky`.

    Source: Rall, "Distinguishing theoretical synaptic potentials computed for different soma-dendritic distributions
    of synaptic input", 1967; Eshraghian et al., 2023, appendix B.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Alpha(alpha=0.9, beta=0.8)
        >>> syn_exc, syn_inh, mem = lif.init_alpha()
        >>> for _ in range(2):
        ...     spk, syn_exc, syn_inh, mem = lif(torch.tensor([0.7]), syn_exc, syn_inh, mem)
        >>> mem
        tensor([0.1326])
    """

    model = ALPHA
    syn_exc: Tensor
    syn_inh: Tensor
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
        reset_mechanism: str = "zero",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        decay: str = "clamp",
    ):
        self._build(locals())
        a, b = torch.as_tensor(alpha), torch.as_tensor(beta)
        if not bool((a > b).all()) or bool((b == 1).any()):
            raise ValueError(
                f"Alpha got alpha={a.tolist()} and beta={b.tolist()}; alpha must be above beta for every neuron, and "
                "beta not 1"
            )

    def forward(
        self, input_: Tensor, syn_exc: Tensor | None = None, syn_inh: Tensor | None = None, mem: Tensor | None = None
    ) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, the states; returns spk, or spk and the states."""
        return self._run(input_, (syn_exc, syn_inh, mem))

    def _base_state_reset_sub_function(self, input_: Tensor) -> tuple[Tensor, ...]:
        """The amount that the reset by subtraction removes from each new state. It follows from the equation, even if a
        subclass overrides the charge."""
        _, inh, _ = charged(self, input_)
        return self.threshold, inh, -self.syn_inh

    def _base_sub(self, input_: Tensor) -> tuple[Tensor, ...]:
        """The new states with the reset by subtraction."""
        return less(self, self._base_state_function(input_), self._base_state_reset_sub_function(input_))

    init_alpha = by_reset_mem
