"""What the recurrent neurons add to the leaky ones: their own spikes of the step before come back."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..cells.firing import Model
from ..engine.feedback import Feedback
from ._lif import LIF
from ._time import current_time, time_is

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
    `recurrent`, nn.Linear or nn.Conv2d, and the equation is that of the neuron without recurrence. So it is with a
    module of the user's that is assigned to `recurrent`: any that takes the spikes of a step, also a network with
    neurons of its own.
    """

    one_to_one: ClassVar[Model]
    through_layer: ClassVar[Model]
    all_to_all: bool
    linear_features: int | None
    conv2d_channels: int | None
    kernel_size: Size | None
    learn_recurrent: bool
    recurrent: nn.Module
    V: Tensor
    spk: Tensor
    mem: Tensor

    @property
    def model(self) -> Model:  # type: ignore[override]
        """The equation."""
        return self.through_layer if self._through_layer else self.one_to_one

    def _state_names(self) -> tuple[str, ...]:
        return self.one_to_one.states

    def _build(self, given: Mapping[str, Any]) -> None:
        layer = _recurrent_layer(type(self).__name__, given)
        self._through_layer = layer is not None
        super()._build(given if layer else {**given, "learn_V": given["learn_recurrent"]})
        for name in ("all_to_all", "linear_features", "conv2d_channels", "kernel_size", "learn_recurrent"):
            setattr(self, name, given[name])
        self.recurrent = layer or OneToOne(self.V)
        if not given["learn_recurrent"]:
            self.recurrent.requires_grad_(False)

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        return x + Feedback(self.recurrent)(states[0]) if self._through_layer else x

    def _outs(self, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (outs[0], *outs[2:])  # the first state is the spikes themselves

    def _feedback(self) -> Feedback | None:
        if not self._through_layer:
            return None
        return Feedback(self.recurrent) if current_time() is None else _FeedbackByStep(self.recurrent)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "recurrent":
            self._through_layer = not isinstance(value, OneToOne)
            self._retrace()


class _FeedbackByStep(Feedback):
    """That of a sequence, whose layer sees one step at a time, as its own neurons must know."""

    def __call__(self, spk: Tensor) -> Tensor:
        with time_is(None):
            return super().__call__(spk)


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
