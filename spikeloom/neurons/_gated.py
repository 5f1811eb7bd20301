"""What the neurons with gates share: their inputs are products of the input and of their own membrane."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cells.firing import Model
from ..engine.feedback import Map, MemFeedback
from ..engine.run import Trajectory
from ._dynamics import ClearedByEquation
from ._neuron import SpikingNeuron
from ._state import compute_dtype

LEVELS = 5
"""From a warning to the user's call: its function, _build, the constructor, the metaclass, the caller."""


class Gated(ClearedByEquation, SpikingNeuron):
    """Base of the neurons that are long short-term memory cells.

    A subclass has the layer that holds the weights, and says what of the gates comes from the input and what from the
    membrane. The former is computed at once over all time, and once for an input that is the same at every step.
    """

    model: Model
    map: Map
    syn: Tensor
    mem: Tensor

    def _build(self, given: Mapping[str, Any]) -> None:
        super()._build({**given, "inhibition": False})
        _warn(type(self).__name__, given)

    def _of_input(self, x: Tensor) -> Tensor:
        """What the inputs x [R, ...] add to the gates, bias and all, in the dtype of x."""
        raise NotImplementedError

    def _weight_of_mem(self) -> Tensor:
        """The weight of what the membrane adds to the gates, through `map`."""
        raise NotImplementedError

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...] | None:
        raise NotImplementedError

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        """What the gates get at one step, from an input and a membrane, the last state, that go together."""
        raise NotImplementedError

    def _mem_feedback(self, dtype: torch.dtype) -> MemFeedback:
        return MemFeedback(self.map, self._weight_of_mem().to(dtype))

    def _like_a_state(self, x: Tensor) -> Tensor:
        with torch.no_grad():  # only its shape is read; a recomputed step need not ask, and must save the same tensors
            return self._of_input(x).chunk(self.model.inputs, self.map.axis)[0]

    def _scan(
        self, x: Tensor, steps: int | None, one_step: Tensor, given: tuple[Tensor | None, ...]
    ) -> tuple[Trajectory, str, list[str]]:
        x = x.to(compute_dtype(x))
        gates = self._of_input(x) if steps is None else self._of_input(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        row = gates if steps is None else gates[0] if len(gates) else gates.new_empty(gates.shape[1:])
        like_a_state = row.chunk(self.model.inputs, self.map.axis)[0]
        return super()._scan(gates, steps, like_a_state, given)


def _warn(kind: str, given: Mapping[str, Any]) -> None:
    """Of what the arguments do not do."""
    if given["inhibition"]:
        warnings.warn(f"{kind} ignores inhibition, as in snnTorch; every neuron may fire", stacklevel=LEVELS)
    if not given["learn_threshold"] and bool((torch.as_tensor(given["threshold"]) >= 1).all()):
        warnings.warn(
            f"{kind} got threshold={given['threshold']!r} and cannot fire: its membrane stays below 1; "
            "pass a threshold of 0.1 or less",
            stacklevel=LEVELS,
        )
