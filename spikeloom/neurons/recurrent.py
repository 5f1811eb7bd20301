"""Recurrent leaky neurons: their spikes are fed back as input one step later, one-to-one or through a layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..cells.firing import AnyModel
from ..cells.leaky import RLEAKY, RLEAKY_THROUGH_LAYER
from ..cells.synaptic import RSYNAPTIC, SYNAPTIC
from ..engine.feedback import Feedback
from ._methods import ClearedByEquation
from ._neuron import LIF, SpikeGrad, SpikingNeuron
from ._state import by_reset_mem
from ._unrolled_run import current_run, running

Size = int | tuple[int, int]

RECURRENCE: Mapping[str, Any] = {
    "V": 1.0,
    "all_to_all": True,
    "linear_features": None,
    "conv2d_channels": None,
    "kernel_size": None,
    "learn_recurrent": True,
}
"""The arguments that describe the recurrence, and their defaults; see `RLeaky`."""


class OneToOne(nn.Module):
    """One-to-one recurrence: each neuron's spike is fed back to itself, as V * spk.

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


class Recurrent(SpikingNeuron):
    """Base of the recurrent neurons. Their first state is their last output spike, which feeds their input.

    With ``all_to_all=False`` the weight V is a parameter of the equation. Otherwise the spikes are fed back through the
    layer `recurrent`, an nn.Linear or nn.Conv2d, and the equation is that of the neuron without recurrence. The same
    holds for a custom module that is assigned to `recurrent`; it must accept the spikes of a step and may itself
    contain spiking neurons.
    """

    one_to_one: ClassVar[AnyModel]
    through_layer: ClassVar[AnyModel]
    all_to_all: bool
    linear_features: int | None
    conv2d_channels: int | None
    kernel_size: Size | None
    learn_recurrent: bool
    recurrent: nn.Module
    V: Tensor
    spk: Tensor

    @property
    def model(self) -> AnyModel:  # type: ignore[override]
        """The equation."""
        return self.through_layer if self._through_layer else self.one_to_one

    def _state_names(self) -> tuple[str, ...]:
        return self.one_to_one.states

    def _build(self, given: Mapping[str, Any]) -> None:
        layer = _recurrent_layer(type(self).__name__, given)
        self._through_layer = layer is not None
        super()._build(given if layer else {**given, "learn_V": given["learn_recurrent"]})
        for name in RECURRENCE:
            if name != "V":
                setattr(self, name, given[name])
        self.recurrent = layer or OneToOne(self.V)
        if not given["learn_recurrent"]:
            self.recurrent.requires_grad_(False)

    def _learnable_names(self) -> tuple[str, ...]:
        return self.through_layer.params  # without V, which learn_recurrent is about

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        return x + Feedback(self.recurrent)(states[0]) if self._through_layer else x

    def _outs(self, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (outs[0], *outs[2:])  # the first state is the spikes themselves

    def _feedback(self) -> Feedback | None:
        if not self._through_layer:
            return None
        return Feedback(self.recurrent) if current_run() is None else _FeedbackByStep(self.recurrent)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "recurrent":
            self._through_layer = not isinstance(value, OneToOne)
            self._retrace()


class _FeedbackByStep(Feedback):
    """Feedback in an unrolled network: the recurrent layer, and neurons within it, run one step at a time."""

    def __call__(self, spk: Tensor) -> Tensor:
        with running(None):
            return super().__call__(spk)


class RLeaky(Recurrent, LIF):
    """Recurrent leaky integrate-and-fire neuron: its spikes are fed back as input one step later.

    With b = clamp(beta, 0, 1) and R = H(mem - threshold), computed from the membrane of the previous step:

    base = b * mem + x + f(spk)

    | reset_mechanism | membrane                    |
    | --------------- | --------------------------- |
    | "subtract"      | mem' = base - R * threshold |
    | "zero"          | mem' = (1 - R) * base       |
    | "none"          | mem' = base                 |

    and spk' = H(mem' - threshold). f(spk) is V * spk (all_to_all=False), or `recurrent(spk)`, an nn.Linear over all
    neurons or an nn.Conv2d over an image of neurons; its bias also acts at the first step. Unlike in `Leaky`, "zero"
    also clears the input and the feedback. The gradient flows through the feedback.

    A custom module may be assigned to `recurrent`, including a network with neurons that store their states. It is
    called once per step with the spikes of the previous step, in an unrolled network too.

    Args:
        beta: decay per step, clamped to [0, 1].
        V: weight of the one-to-one recurrence; a number or a tensor that broadcasts over the trailing dimensions.
        all_to_all: if False, each neuron is connected only to itself.
        linear_features: number of neurons, for recurrence through an nn.Linear.
        conv2d_channels: number of channels, for recurrence through an nn.Conv2d.
        kernel_size: kernel size of that convolution; its padding preserves the size of the image if this is odd.
        learn_recurrent: if False, the recurrent weights are frozen.
        reset_delay: if False, the reset is applied in the same step as the spike.
        The other arguments are those of `Leaky`.

    Shapes:
        input_, spk and mem [B, *N] ([B, N] through a Linear, [B, C, H, W] through a convolution); returns (spk, mem),
        each of the input's shape. Unrolled: [T, B, *N].

    Raises:
        TypeError: if not exactly one kind of recurrence is requested. Also the errors of `Leaky`.

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
    mem: Tensor

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
        """One step: input_ [B, *N] and, unless init_hidden, spk and mem; returns spk, or (spk, mem)."""
        return self._run(input_, (spk, mem))

    init_rleaky = by_reset_mem


class RSynaptic(ClearedByEquation, Recurrent, LIF):
    """Recurrent current-based leaky integrate-and-fire neuron: its spikes are fed back as input one step later.

    With a = clamp(alpha, 0, 1), b = clamp(beta, 0, 1), R = H(mem - threshold) of the previous step:

    syn' = a * syn + x + f(spk);  base = b * mem + syn'

    | reset_mechanism | membrane                    |
    | --------------- | --------------------------- |
    | "subtract"      | mem' = base - R * threshold |
    | "zero"          | mem' = (1 - R) * base       |
    | "none"          | mem' = base                 |

    and spk' = H(mem' - threshold). f(spk) is the recurrence of `RLeaky`: V * spk, or a layer. The current is never
    reset.

    Args:
        alpha: decay of the current per step, clamped to [0, 1].
        beta: decay of the membrane per step, clamped to [0, 1].
        learn_alpha: if True, alpha is an nn.Parameter.
        The other arguments are those of `RLeaky`.

    Shapes:
        input_, spk, syn and mem as in `RLeaky`; returns (spk, syn, mem), each of the input's shape.
        Unrolled: [T, B, *N].

    Raises:
        The errors of `RLeaky`.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023, appendix B.

        >>> import torch, spikeloom as snn
        >>> lif = snn.RSynaptic(alpha=0.5, beta=0.5, linear_features=3, init_hidden=True)
        >>> spk = snn.unroll(lif, torch.rand(25, 2, 3))
        >>> spk.shape, lif.syn.shape
        (torch.Size([25, 2, 3]), torch.Size([2, 3]))
    """

    one_to_one, through_layer = RSYNAPTIC, SYNAPTIC
    syn: Tensor
    mem: Tensor

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
        """One step: input_ [B, *N] and, unless init_hidden, the states; returns spk, or (spk, syn, mem)."""
        return self._run(input_, (spk, syn, mem))

    init_rsynaptic = by_reset_mem


def _recurrent_layer(kind: str, given: Mapping[str, Any]) -> nn.Module | None:
    """The recurrent layer that the constructor arguments request; None for one-to-one recurrence."""
    names = ("linear_features", "conv2d_channels", "kernel_size")
    linear, conv, kernel = (given[name] for name in names)
    if not given["all_to_all"]:
        if linear or conv or kernel:
            raise TypeError(
                f"{kind} got all_to_all=False and one of {', '.join(names)}; leave them out, or pass V alone"
            )
        return None
    if bool(linear) == bool(conv or kernel) or bool(conv) != bool(kernel):
        got = ", ".join(f"{name}={given[name]!r}" for name in names)
        raise TypeError(
            f"{kind} got {got}; with all_to_all=True pass linear_features, the number of neurons, or conv2d_channels "
            "and kernel_size; for one-to-one recurrence pass all_to_all=False"
        )
    if linear:
        return nn.Linear(linear, linear)
    sizes = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    return nn.Conv2d(conv, conv, sizes, padding=tuple(size // 2 for size in sizes))
