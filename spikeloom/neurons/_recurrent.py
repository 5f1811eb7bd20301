"""What the recurrent neurons add to the leaky ones: their own spikes of the step before come back."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..cells.firing import Model
from ..scan.loop import Feedback
from ._lif import LIF

Size = int | tuple[int, int]


class OneToOne(nn.Module):
    """Each neuron's spike comes back to itself: V * spk.

    Args:
        V: weight, a number or a tensor that broadcasts over the trailing dimensions of the spikes.
    """

    V: Tensor

    def __init__(self, V: Tensor):
        super().__init__()
        if isinstance(V, nn.Parameter):
            self.V = V
        else:
            self.register_buffer("V", V, persistent=False)

    def forward(self, spk: Tensor) -> Tensor:
        """V * spk, [B, *N]."""
        return self.V * spk


class Recurrent(LIF):
    """Base of the recurrent neurons. Their first state is their last output spike, which feeds their input.

    With ``all_to_all=False`` the weight V is a value of the equation. Otherwise the spikes come back through the layer
    `recurrent`, nn.Linear or nn.Conv2d, and the equation is that of the neuron without recurrence.
    """

    one_to_one: ClassVar[Model]
    through_layer: ClassVar[Model]
    all_to_all: bool = True
    recurrent: nn.Module
    V: Tensor
    spk: Tensor
    mem: Tensor

    @property
    def model(self) -> Model:  # type: ignore[override]
        """The equation."""
        return self.through_layer if self.all_to_all else self.one_to_one

    def _state_names(self) -> tuple[str, ...]:
        return self.one_to_one.states

    def _build(self, given: Mapping[str, Any]) -> None:
        layer = _recurrent_layer(type(self).__name__, given)
        self.all_to_all = layer is not None
        super()._build(given if layer else {**given, "learn_V": given["learn_recurrent"]})
        self.recurrent = layer or OneToOne(self.V)
        if not given["learn_recurrent"]:
            self.recurrent.requires_grad_(False)

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        return x + Feedback(self.recurrent)(states[0]) if self.all_to_all else x

    def _outs(self, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (outs[0], *outs[2:])  # the first state is the spikes themselves

    def _feedback(self) -> Feedback | None:
        return Feedback(self.recurrent) if self.all_to_all else None


def _recurrent_layer(kind: str, given: Mapping[str, Any]) -> nn.Module | None:
    """The layer that the arguments of a constructor ask for; None for one-to-one recurrence."""
    names = ("linear_features", "conv2d_channels", "kernel_size")
    linear, conv, kernel = (given[name] for name in names)
    if not given["all_to_all"]:
        if linear or conv or kernel:
            raise TypeError(
                f"{kind} got all_to_all=False and one of {', '.join(names)}; leave them out, or pass V alone"
            )
        return None
    if bool(linear) == bool(conv or kernel) or bool(conv) != bool(kernel):
        told = ", ".join(f"{name}={given[name]!r}" for name in names)
        raise TypeError(
            f"{kind} got {told}; with all_to_all=True pass linear_features, the number of neurons, or conv2d_channels "
            "and kernel_size; for one-to-one recurrence pass all_to_all=False"
        )
    if linear:
        return nn.Linear(linear, linear)
    sizes = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    return nn.Conv2d(conv, conv, sizes, padding=tuple(size // 2 for size in sizes))
