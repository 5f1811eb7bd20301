"""A linear layer and the leaky integrator without reset, in one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._neuron import SpikeGrad
from ._sequence import Ran
from .state_leaky import StateLeaky


class LinearLeaky(StateLeaky):
    """`StateLeaky` over the output of an nn.Linear, `linear`: one product over all time, then one scan.

    The equations are those of `StateLeaky`, with x the output of the linear layer. What the last call returned is kept
    as `mem` and `spk`, [T, B, out_features]; the next call does not go on from it.

    Args:
        beta: from which the decay follows; a number, or one per output.
        in_features: size of the input.
        out_features: size of the output, the number of neurons.
        bias: whether the linear layer has one.
        device: of the linear layer.
        dtype: of the linear layer.
        kernel_truncation_steps: K, if each membrane is to sum up the last K inputs alone.
        exact: whether the decay is beta itself, and the factor counts once.
        The others are those of `StateLeaky`.

    Shapes:
        input_ [T, B, in_features]; returns (spk, mem), each [T, B, out_features], or mem.

    Raises:
        what `StateLeaky` and nn.Linear raise.

        >>> import torch, spikeloom as snn
        >>> spk, mem = snn.LinearLeaky(beta=0.9, in_features=3, out_features=4)(torch.rand(25, 2, 3))
        >>> spk.shape
        torch.Size([25, 2, 4])
    """

    mem: Tensor
    spk: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = True,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        kernel_truncation_steps: int | None = None,
        exact: bool = False,
    ):
        self._build(locals() | {"channels": out_features})
        self.linear = nn.Linear(in_features, out_features, bias, device, dtype)

    def _state_names(self) -> tuple[str, ...]:
        return "mem", "spk"

    def _starts_at(self, name: str) -> float:
        return 0.0

    def forward(self, input_: Tensor) -> Any:
        """A whole sequence: input_ [T, B, in_features]; returns (spk, mem), each [T, B, out_features], or mem."""
        return self._integrated(self.linear(self._checked(input_)))

    def _whole(self, steps: int, x: Tensor) -> Ran:
        ran = super()._whole(steps, x)
        *spk, mem = ran.outs
        if steps:
            self._keep((mem, *(spk or [self.spk])))
        return ran
