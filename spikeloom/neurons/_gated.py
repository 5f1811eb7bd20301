"""What the LSTM neurons add to the shell: gates, which a layer makes of the input and of the membrane.

The input's part of the gates is one product over all time, and a static input's is made once. The membrane's part is a
product per step, so these neurons run on the loop.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cells.firing import Frame
from ..cells.lstm import LSTM
from ..scan.loop import Trajectory
from ..scan.program import Program
from ._methods import ByMethods, MethodFiring
from ._neuron import SpikingNeuron
from ._state import compute_dtype


class Gated(SpikingNeuron):
    """Base of the LSTM neurons: states syn and mem of their own size, whatever that of the input is."""

    model = LSTM
    gate_order: ClassVar[str] = "ifgo"
    gate_dim: ClassVar[int] = -1
    memoryless: bool = False
    syn: Tensor
    mem: Tensor

    def _build(self, given: Mapping[str, Any]) -> None:
        super()._build(given)
        if not given["learn_threshold"] and bool((self.threshold >= 1).all()):
            # the levels: _build, the constructor, the metaclass, the caller
            warnings.warn(
                f"{type(self).__name__} cannot fire: its membrane stays below 1, and its threshold is "
                f"{self.threshold.max().item():g}; pass a threshold of 0.1 or less",
                stacklevel=4,
            )

    def _of_input(self, x: Tensor) -> Tensor:
        """The input's part of all gates side by side, of rows [R, ...]."""
        raise NotImplementedError

    def _of_membrane(self, mem: Tensor) -> Tensor:
        """The membrane's part of all gates side by side, [B, ...]."""
        raise NotImplementedError

    def _pooled(self, mem: Tensor) -> Tensor:
        """The membrane that is compared with the threshold."""
        return mem

    def _split(self, gates: Tensor) -> dict[str, Tensor]:
        """The gates by their letters."""
        return dict(zip(self.gate_order, gates.chunk(4, dim=self.gate_dim), strict=True))

    def _scan(
        self, x: Tensor, steps: int | None, one_step: Tensor, given: tuple[Tensor | None, ...]
    ) -> tuple[Trajectory, str, list[str]]:
        gates = self._of_input(x) if steps is None else self._of_input(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        gates = gates.to(compute_dtype(x))
        one = gates if steps is None else gates[0] if len(gates) else gates.new_empty(gates.shape[1:])
        return super()._scan(gates, steps, self._split(one)["i"], given)

    def _chosen_program(self) -> Program:
        return GatedProgram(self)


def promoted(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a product takes, in one dtype: the wider of that of the values and of the weights."""
    dtype = torch.promote_types(x.dtype, weight.dtype)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


class GatedProgram(ByMethods):
    """A step of an LSTM neuron. Its input is the input's part of the gates, all side by side."""

    neuron: Gated

    def __init__(self, neuron: Gated):
        super().__init__(neuron, ["the membrane enters its gates by a product at every step"])

    def step(self, params: Mapping[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """One step: the gates, then the frame that all neurons share."""
        neuron, firing = self.neuron, _PooledFiring(self.neuron)
        frame = Frame(neuron.reset_mechanism)

        def step(x: Tensor, syn: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
            if neuron.memoryless:
                syn, mem = torch.zeros_like(syn), torch.zeros_like(mem)
            gates = neuron._split(x + neuron._of_membrane(mem).to(x.dtype))
            results = neuron.model.step(firing, frame, tuple(gates[name] for name in "ifgo"), (syn, mem), params)
            return tuple(result.to(x.dtype) for result in results)

        return step


class _PooledFiring(MethodFiring):
    """Fires by the neuron's `fire`, on its pooled membrane; inhibition means nothing to these neurons."""

    def spikes(self, mem: Tensor) -> Tensor:
        spk: Tensor = self.neuron.fire(self.neuron._pooled(mem))
        return spk
