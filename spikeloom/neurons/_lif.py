"""LIF: what the leaky neurons add to the shell, a decay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ._neuron import SpikeGrad, SpikingNeuron


class LIF(SpikingNeuron):
    """Base of the leaky neurons: a `SpikingNeuron` with a decay `beta`; it has no forward of its own."""

    beta: Tensor

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
    ):
        self._build(locals())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("LIF is the base of the leaky neurons and has no forward; use Leaky")
