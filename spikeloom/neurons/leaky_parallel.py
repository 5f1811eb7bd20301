"""Spiking recurrent ReLU units over whole sequences: a linear layer and a leaky, rectified membrane."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..cells.firing import FRAME_PARAMS, Whole
from ..cells.leaky_parallel import JOINT_PARALLEL, LEAKY_PARALLEL
from ..engine.feedback import LinearMap, MemFeedback
from ..engine.run import choose
from ._neuron import SpikeGrad
from ._parameters import checked_value, taken
from ._sequence import Ran, WholeSequence


class LeakyParallel(WholeSequence):
    """Linear layer followed by a leaky integrator without reset; one call processes the whole sequence.

    | weight_hh_enable | membrane                                         |
    | ---------------- | ------------------------------------------------ |
    | False (default)  | mem' = relu(W_ih x + b_ih + b_hh + w * mem), w the diagonal of W_hh |
    | True             | mem' = relu(W_ih x + b_ih + b_hh + W_hh mem)     |

    and spk = graded_spikes_factor * H(mem' - threshold). Every call starts with a membrane of zero. The membrane is
    never negative and never reset. In the default form, the linear layer is one matrix product over all steps, followed
    by one scan. With the full W_hh, each step needs a matrix product; a kernel computes the rest.

    Args:
        input_size: size of the input.
        hidden_size: number of neurons.
        beta: value that fills W_hh, clamped to [0, 1]: one number, or one per neuron, which fills its row. If None,
            W_hh is initialized at random, as in nn.RNN.
        bias: if False, the layer has no b_ih and b_hh.
        threshold: membrane above which the neuron fires.
        dropout: has no effect, because there is only one layer.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        learn_beta: if True, W_hh is learned, otherwise frozen; without weight_hh_enable, only its diagonal is used.
        learn_threshold: if True, the threshold is an nn.Parameter.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, the amplitude is an nn.Parameter.
        weight_hh_enable: if True, use the full W_hh, which connects the membranes of all neurons.
        device: device of the weights.
        dtype: dtype of the weights.

    The weights are named as in nn.RNN: `rnn.weight_ih_l0`, `rnn.weight_hh_l0`, `rnn.bias_ih_l0` and
    `rnn.bias_hh_l0`.

    Shapes:
        input_ [T, B, input_size] or [T, input_size]; returns spk, [T, B, hidden_size] or [T, hidden_size].
        In an unrolled network (see `spikeloom.unroll`), use it like any other layer.

    Raises:
        ValueError: if the input is not a sequence, or beta is neither one number nor one per neuron.

        >>> import torch, spikeloom as snn
        >>> spk = snn.LeakyParallel(input_size=3, hidden_size=4, beta=0.9)(torch.rand(25, 2, 3))
        >>> spk.shape
        torch.Size([25, 2, 4])
    """

    framed = False
    unbatched = True
    beta: Tensor
    weight_hh_enable: bool = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: float | Tensor | None = None,
        bias: bool = True,
        threshold: float | Tensor = 1.0,
        dropout: float = 0.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        weight_hh_enable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        given = {name: value for name, value in locals().items() if name not in ("beta", "learn_beta")}
        if beta is not None:
            given["beta"] = _decay(beta, hidden_size)
        self.weight_hh_enable = weight_hh_enable
        self._build(given)
        self.input_size, self.hidden_size, self.surrogate_disable = input_size, hidden_size, surrogate_disable
        self.rnn = Weights(input_size, hidden_size, bias, device, dtype)
        weight = self.rnn.weight_hh_l0.requires_grad_(learn_beta)
        with torch.no_grad():
            if beta is not None:
                weight.copy_(self.beta.unsqueeze(-1).expand_as(weight))
            if not weight_hh_enable:
                weight.copy_(weight.diagonal().diag())

    @property
    def model(self) -> Whole:  # type: ignore[override]
        """The equation."""
        return JOINT_PARALLEL if self.weight_hh_enable else LEAKY_PARALLEL

    def _value_names(self) -> tuple[str, ...]:
        return "beta", *FRAME_PARAMS

    def forward(self, input_: Tensor) -> Tensor:
        """Process a sequence, [T, B, input_size] or [T, input_size]; returns the spikes of all neurons."""
        x, rnn = self._checked(input_), self.rnn
        current = linear(x, rnn.weight_ih_l0, rnn.bias_ih_l0 + rnn.bias_hh_l0 if rnn.bias else None)
        return self._over_time(self._whole, current)[0]

    def _whole(self, steps: int, current: Tensor) -> Ran:
        weight, by_method = self.rnn.weight_hh_l0, self._fires_by_method()
        values = {name: taken(getattr(self, name)) for name in FRAME_PARAMS}
        if not self.weight_hh_enable:
            values["weight"] = weight.diagonal()
        call = self._call(steps, current, values, traced=by_method)
        if self.weight_hh_enable:
            call.mem_feedback = MemFeedback(LinearMap(), weight.to(call.states[0].dtype))
        chosen, refusals = choose(call)
        run = chosen.run(call)
        spk = self.fire(run.traces[0]) if by_method else run.spk
        return Ran((self._shown(spk.to(current.dtype)),), chosen.name, refusals)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        weight = state_dict.get(f"{prefix}rnn.weight_hh_l0")
        if not self.weight_hh_enable and _is_full(weight):
            lists[-1].append(
                f"{prefix}rnn.weight_hh_l0 connects neurons with each other, but this layer only uses its diagonal; "
                "create it with weight_hh_enable=True"
            )
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)


LeakyKernel = LeakyParallel
"""The name of this layer in snnTorch's module `_neurons.leakykernel`."""


class Weights(nn.Module):
    """The weights of a one-layer nn.RNN, with the same names and initialization."""

    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(
        self, inputs: int, size: int, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ):
        super().__init__()
        self.bias = bias
        bound = size**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound))

        self.weight_ih_l0, self.weight_hh_l0 = drawn(size, inputs), drawn(size, size)
        if bias:
            self.bias_ih_l0, self.bias_hh_l0 = drawn(size), drawn(size)


def _decay(beta: Any, size: int) -> Tensor:
    """beta clamped to [0, 1], in the form that fills the rows of W_hh: [1] or [size]."""
    decay = checked_value(beta, LeakyParallel.__name__, "beta")
    if decay.shape not in ((), (1,), (size,)):
        raise ValueError(f"LeakyParallel got beta of shape {tuple(decay.shape)}; pass one number, or {size} of them")
    decay = decay if decay.is_floating_point() else decay.to(torch.get_default_dtype())
    return decay.detach().clamp(0, 1).reshape(-1)


def _is_full(weight: Any) -> bool:
    """Whether a square matrix has non-zeros off its diagonal."""
    if not isinstance(weight, Tensor) or weight.dim() != 2 or weight.is_meta:
        return False
    return bool((weight.triu(1) != 0).any() or (weight.tril(-1) != 0).any())
