"""Spiking long short-term memory, over features and over images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, linear, max_pool2d

from .._torch import is_traced
from ..caller import warn_caller
from ..cells.firing import Model
from ..cells.lstm import CONV_LSTM, LSTM
from ..engine.feedback import ConvMap, LinearMap, MemFeedback
from ..engine.run import Trajectory
from ._methods import ClearedByEquation
from ._neuron import SpikeGrad, SpikingNeuron
from ._state import by_reset_mem, compute_dtype

Size = int | tuple[int, int]


class Gated(ClearedByEquation, SpikingNeuron):
    """Base of the spiking LSTM neurons.

    A subclass holds the layer with the weights and defines the contributions of the input and of the membrane to the
    gates. The input's contribution is computed for all steps at once, and only once for a static input.
    """

    model: Model
    map: LinearMap
    syn: Tensor
    mem: Tensor

    def _build(self, given: Mapping[str, Any]) -> None:
        super()._build({**given, "inhibition": False})
        kind, threshold = type(self).__name__, given["threshold"]
        if given["inhibition"]:
            warn_caller(f"{kind} ignores inhibition, as in snnTorch; every neuron may fire")
        if not given["learn_threshold"] and bool((torch.as_tensor(threshold) >= 1).all()):
            warn_caller(
                f"{kind} got threshold={threshold!r} and cannot fire: its membrane stays below 1; "
                "pass a threshold of 0.1 or less"
            )

    def _of_input(self, x: Tensor) -> Tensor:
        """The contribution of inputs x [R, ...] to the gates, including the bias, in the dtype of x."""
        raise NotImplementedError

    def _weight_of_mem(self) -> Tensor:
        """The weight with which `map` computes the contribution of the membrane to the gates."""
        raise NotImplementedError

    def _mem_feedback(self, dtype: torch.dtype) -> MemFeedback:
        return MemFeedback(self.map, self._weight_of_mem().to(dtype))

    def _drive(self, x: Tensor, steps: int | None) -> Tensor:
        x = x.to(compute_dtype(x))
        return self._of_input(x) if steps is None else self._of_input(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _like_a_state(self, x: Tensor) -> Tensor:
        return x.chunk(self.model.inputs, self.map.axis)[0]


class SLSTM(Gated):
    """Spiking LSTM: the output of an LSTM cell is the membrane, which fires.

    With the gates i, f, g, o = W_ih x + b_ih + W_hh mem + b_hh, in the order of torch.nn.LSTMCell, and
    R = H(mem - threshold), computed from the membrane of the previous step:

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g)
    h    = sigmoid(o) * tanh(syn')

    | reset_mechanism | membrane                 |
    | --------------- | ------------------------ |
    | "none"          | mem' = h                 |
    | "subtract"      | mem' = h - R * threshold |
    | "zero"          | mem' = (1 - R) * h       |

    and spk = H(mem' - threshold). syn is never reset. Since |h| < 1, a neuron with a threshold of 1 or more never
    fires, and the layer warns; start with a threshold of 0.1 instead.

    Args:
        input_size: number of features of the input.
        hidden_size: number of neurons.
        bias: if False, the layer has no b_ih and b_hh.
        inhibition: ignored with a warning, as in snnTorch.
        memoryless: if True, and input_size is not hidden_size, every step starts from zeros, and passed states are
            ignored, as in snnTorch 1.0.0. Use it only to reproduce results of snnTorch.
        The other arguments are those of `Leaky`.

    The weights are in `lstm_cell`, an nn.LSTMCell. The cell itself is not called, so its hooks do not run.

    Shapes:
        input_ [B, input_size] or [input_size]; spk, syn and mem [B, hidden_size] or [hidden_size]; returns
        (spk, syn, mem). Unrolled: [T, B, hidden_size].

    Raises:
        ValueError: if the input does not have input_size features. Also the errors of `Leaky`.

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Henkes, Eshraghian and Wessels, "Spiking neural
    networks for nonlinear regression", 2022, section 2.5.

        >>> import torch, spikeloom as snn
        >>> lif = snn.SLSTM(input_size=3, hidden_size=5, threshold=0.1)
        >>> syn, mem = lif.init_slstm()
        >>> for _ in range(2):
        ...     spk, syn, mem = lif(torch.ones(4, 3), syn, mem)
        >>> spk.shape, mem.shape
        (torch.Size([4, 5]), torch.Size([4, 5]))
    """

    model, map = LSTM, LinearMap()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "none",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        memoryless: bool = False,
    ):
        self._build(locals())
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.memoryless = memoryless and input_size != hidden_size
        self.lstm_cell = nn.LSTMCell(input_size, hidden_size, bias=bias)

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, input_size] and, unless init_hidden, syn and mem; returns spk, or
        (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    def _of_input(self, x: Tensor) -> Tensor:
        self._shape_of_states(x)
        cell = self.lstm_cell
        bias = (cell.bias_ih + cell.bias_hh).to(x.dtype) if self.bias else None
        return linear(x, cell.weight_ih.to(x.dtype), bias)

    def _weight_of_mem(self) -> Tensor:
        return self.lstm_cell.weight_hh

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...]:
        if not x.dim() or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape)}; pass [B, {self.input_size}], "
                f"with input_size={self.input_size} features last"
            )
        return (*x.shape[:-1], self.hidden_size)

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        if x.dim() != 2:
            return self._of_input(x) + self._mem_feedback(x.dtype)(states[-1])
        return torch.addmm(self._of_input(x), states[-1], self._weight_of_mem().to(x.dtype).t())

    def _states(self, x: Tensor, dtype: torch.dtype, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        return super()._states(x, dtype, (x.new_zeros(()),) * len(given) if self.memoryless else given)

    def _states_at_hand(self, x: Tensor, given: tuple[Tensor | None, ...]) -> list[Tensor] | None:
        return None if self.memoryless else super()._states_at_hand(x, given)

    def _scan(
        self, x: Tensor, steps: int | None, given: tuple[Tensor | None, ...], traced: bool | None = None
    ) -> tuple[Trajectory, str, list[str]]:
        if not self.memoryless or steps is None:
            return super()._scan(x, steps, given, traced)
        # independent steps are rows of one step
        rows = x.expand(steps, *x.shape[1:]).flatten(0, 1)
        run, backend, refusals = super()._scan(rows, None, given)
        spk, *traces = (out.unflatten(0, (steps, -1)) for out in (run.spk, *run.final_states))
        run = Trajectory(spk, tuple(traces), tuple(trace[-1].clone() for trace in traces))
        self._keep(run.final_states)
        self._note(run, tuple(torch.zeros_like(state) for state in run.final_states), 1)
        return run, backend, refusals

    init_slstm = by_reset_mem


class SConv2dLSTM(Gated):
    """Spiking convolutional LSTM: the output of a convolutional LSTM cell is the membrane, which fires.

    With the gates i, f, o, g = conv(input_ and mem, concatenated along the channels), in an order other than nn.LSTM's:

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g)
    h    = sigmoid(o) * tanh(syn')

    and the resets and the warning of `SLSTM`. Then spk = H(pool(mem') - threshold), where pool is max_pool, avg_pool or
    the identity; mem and syn are not pooled.

    The padding preserves the size of images. With a stride, syn and mem have the smaller size of the convolved input,
    and mem is convolved without stride. The dilation applies to both convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of syn, mem and spk.
        kernel_size: an odd number, or a pair of them for rows and columns.
        bias: if False, the convolution has no bias.
        max_pool: kernel size of max-pooling before the spikes; 0 for no pooling.
        avg_pool: kernel size of average-pooling; exclusive with max_pool.
        inhibition: ignored with a warning, as in snnTorch.
        stride: stride of the convolution of the input.
        dilation: dilation of the convolutions of the input and of mem.
        The other arguments are those of `Leaky`.

    The weights are in `conv`, an nn.Conv2d over the channels of the input followed by those of mem. The module itself
    is not called, so its hooks do not run.

    Shapes:
        input_ [B, in_channels, H, W] or [in_channels, H, W]; syn and mem [B, out_channels, ceil(H / stride),
        ceil(W / stride)]; spk has the shape of the pooled mem; returns (spk, syn, mem). Unrolled: [T, B, ...].

    Raises:
        ValueError: for an even kernel_size, a stride or dilation below 1, max_pool together with avg_pool, or an input
            that is not an image of in_channels channels. Also the errors of `Leaky`.

    Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", 2015,
    equation 3, without its peepholes.

        >>> import torch, spikeloom as snn
        >>> lif = snn.SConv2dLSTM(1, 2, kernel_size=3, max_pool=2, threshold=0.1, init_hidden=True, output=True)
        >>> spk, syn, mem = lif(torch.rand(4, 1, 8, 8))
        >>> spk.shape, mem.shape
        (torch.Size([4, 2, 4, 4]), torch.Size([4, 2, 8, 8]))
    """

    model = CONV_LSTM

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        bias: bool = True,
        max_pool: Size = 0,
        avg_pool: Size = 0,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "none",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        stride: Size = 1,
        dilation: Size = 1,
    ):
        kernel, step, spaced = _pair(kernel_size), _pair(stride), _pair(dilation)
        if not all(size % 2 for size in kernel):
            raise ValueError(f"kernel_size is {kernel_size!r}; pass odd sizes, which keep that of the image")
        if min(*step, *spaced) < 1:
            raise ValueError(f"stride is {stride!r} and dilation {dilation!r}; pass numbers from 1 on")
        if max_pool and avg_pool:
            raise ValueError(f"got max_pool={max_pool!r} and avg_pool={avg_pool!r}; pass one of them")
        self._build(locals())
        self.in_channels, self.out_channels, self.kernel_size, self.bias = in_channels, out_channels, kernel_size, bias
        self.max_pool, self.avg_pool, self.stride, self.dilation = max_pool, avg_pool, step, spaced
        self.padding = (kernel[0] // 2 * spaced[0], kernel[1] // 2 * spaced[1])
        self.map = ConvMap(padding=self.padding, dilation=spaced)
        self._reads_mems = bool(max_pool or avg_pool)
        self.conv = nn.Conv2d(
            in_channels + out_channels, 4 * out_channels, kernel, padding=self.padding, dilation=spaced, bias=bias
        )

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, in_channels, H, W] and, unless init_hidden, syn and mem; returns spk, or
        (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    def _of_input(self, x: Tensor) -> Tensor:
        self._shape_of_states(x)
        weight, bias = self.conv.weight[:, : self.in_channels].to(x.dtype), self.conv.bias
        bias = None if bias is None else bias.to(x.dtype)
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation)

    def _weight_of_mem(self) -> Tensor:
        return self.conv.weight[:, self.in_channels :].contiguous()

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() < 3 or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape)}; pass [B, {self.in_channels}, H, W], "
                f"images of in_channels={self.in_channels}"
            )
        size = tuple(-(-pixels // step) for pixels, step in zip(x.shape[-2:], self.stride, strict=True))
        pool = _pair(self.max_pool or self.avg_pool)
        if pool[0] > size[0] or pool[1] > size[1]:
            raise ValueError(
                f"{self._label()} pools {pool[0]} by {pool[1]} pixels and has a membrane of {size}; "
                "pass a larger image, or a smaller max_pool or avg_pool"
            )
        return (*x.shape[:-3], self.out_channels, *size)

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        if x.dim() != 4 or self.stride != (1, 1):
            return self._of_input(x) + self._mem_feedback(x.dtype)(states[-1])
        conv = self.conv  # over both at once
        bias = None if conv.bias is None else conv.bias.to(x.dtype)
        return conv2d(torch.cat((x, states[-1]), 1), conv.weight.to(x.dtype), bias, 1, self.padding, self.dilation)

    def _spikes(self, mem: Tensor) -> Tensor:
        """Spikes of the pooled membrane, [B, out_channels, H, W]."""
        pooling = max_pool2d if self.max_pool else avg_pool2d
        size = self.max_pool or self.avg_pool
        return self.fire(pooling(mem, size) if size else mem)

    # resets do not depend on pooled spikes, so these are computed after all membranes

    def _step(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        spk, syn, mem = super()._step(input_, given)
        if not self._reads_mems:
            return spk, syn, mem
        # a copy: pooling saves its input, and the caller may write into the returned membrane before backward
        saved = mem.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling() and not is_traced()
        return self._pooled(mem.clone() if saved else mem).to(spk.dtype), syn, mem

    def _scan(
        self, x: Tensor, steps: int | None, given: tuple[Tensor | None, ...], traced: bool | None = None
    ) -> tuple[Trajectory, str, list[str]]:
        run, backend, refusals = super()._scan(x, steps, given, traced)
        if steps is not None and self._reads_mems:
            run = replace(run, spk=self._pooled(run.traces[-1]))
        return run, backend, refusals

    def _pooled(self, mems: Tensor) -> Tensor:
        """Spikes of pooled membranes, [..., out_channels, H, W]."""
        spk = self._spikes(mems.reshape(-1, *mems.shape[-3:]))
        return spk.reshape(*mems.shape[:-3], *spk.shape[1:])

    init_sconv2dlstm = by_reset_mem


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
