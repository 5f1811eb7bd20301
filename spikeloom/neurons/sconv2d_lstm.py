"""The spiking long short-term memory layer over images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from .._torch import is_traced
from ..cells.lstm import CONV_LSTM
from ..engine.feedback import ConvMap
from ..engine.run import Trajectory
from ._gated import Gated
from ._keeping import by_reset_mem
from ._neuron import SpikeGrad
from ._recurrent import Size


class SConv2dLSTM(Gated):
    """Convolutional long short-term memory whose output is a membrane that fires.

    With the gates i, f, o, g (in this order; torch.nn.LSTM has another) = conv of input_ and mem over all channels:

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g)
    h    = sigmoid(o) * tanh(syn')

    and the resets and the warning of `SLSTM`. Then spk = H(pool(mem') - threshold), where pool is none, max_pool or
    avg_pool; mem and syn themselves are not pooled.

    The padding keeps the size of images. With a stride, the convolution of the input makes it smaller and syn and mem
    have the smaller size; they come back through a convolution without stride, or they would shrink at every step.
    The dilation is that of both.

    Args:
        in_channels: channels of the input.
        out_channels: channels of syn, mem and spk.
        kernel_size: an odd number, or two, for rows and columns.
        bias: if False, the convolution has none.
        max_pool: kernel of a max-pooling before the spikes; 0 is none.
        avg_pool: kernel of an average-pooling; only one of the two.
        inhibition: ignored with a warning, as in snnTorch.
        stride: of the convolution of the input.
        dilation: of the convolutions of the input and of mem.
        The others are those of `Leaky`.

    The weights stand in `conv`, an nn.Conv2d over the channels of the input and then those of mem; it is not called
    itself: its hooks do not run.

    Shapes:
        input_ [B, in_channels, H, W] or [in_channels, H, W]; syn and mem [B, out_channels, ceil(H / stride),
        ceil(W / stride)]; spk as mem, pooled; returns (spk, syn, mem). Unrolled: [T, B, ...].

    Raises:
        ValueError: for an even kernel_size, a stride or dilation below 1, max_pool together with avg_pool, an input
            that is no image of in_channels. Also what `Leaky` raises.

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
        self.map = ConvMap(self.padding, spaced)
        self._reads_mems = bool(max_pool or avg_pool)
        self.conv = nn.Conv2d(
            in_channels + out_channels, 4 * out_channels, kernel, padding=self.padding, dilation=spaced, bias=bias
        )

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, in_channels, H, W] and, unless the layer keeps them, syn and mem; returns spk, or
        (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    def _of_input(self, x: Tensor) -> Tensor:
        if x.dim() < 3 or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape)}; pass [B, {self.in_channels}, H, W], "
                f"images of in_channels={self.in_channels}"
            )
        bias = self.conv.bias
        gates = conv2d(
            x,
            self.conv.weight[:, : self.in_channels].to(x.dtype),
            None if bias is None else bias.to(x.dtype),
            self.stride,
            self.padding,
            self.dilation,
        )
        if not self._pools(gates):
            pool = _pair(self.max_pool or self.avg_pool)
            raise ValueError(
                f"{self._label()} pools {pool[0]} by {pool[1]} pixels and has a membrane of {tuple(gates.shape[-2:])}; "
                "pass a larger image, or a smaller max_pool or avg_pool"
            )
        return gates

    def _weight_of_mem(self) -> Tensor:
        return self.conv.weight[:, self.in_channels :].contiguous()

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...] | None:
        fits = x.dim() == 4 and x.shape[1] == self.in_channels and self.stride == (1, 1) and self._pools(x)
        return (x.shape[0], self.out_channels, *x.shape[2:]) if fits else None

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        if x.dim() != 4 or self.stride != (1, 1):
            return self._of_input(x) + self._mem_feedback(x.dtype)(states[-1])
        conv = self.conv  # over both at once
        bias = None if conv.bias is None else conv.bias.to(x.dtype)
        return conv2d(torch.cat((x, states[-1]), 1), conv.weight.to(x.dtype), bias, 1, self.padding, self.dilation)

    def _pools(self, images: Tensor) -> bool:
        """Whether images [..., H, W] are large enough to be pooled."""
        pool = _pair(self.max_pool or self.avg_pool)
        return all(kernel <= size for kernel, size in zip(pool, images.shape[-2:], strict=True))

    def _spikes(self, mem: Tensor) -> Tensor:
        """Spikes of the pooled membrane, [B, out_channels, H, W]."""
        pooling = max_pool2d if self.max_pool else avg_pool2d
        size = self.max_pool or self.avg_pool
        return self.fire(pooling(mem, size) if size else mem)

    # no reset depends on pooled spikes, so that they wait for all membranes

    def _step(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        spk, syn, mem = super()._step(input_, given)
        if not self._reads_mems:
            return spk, syn, mem
        # a copy: pooling saves its input, and whoever gets the membrane may write into it before the backward
        saved = mem.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling() and not is_traced()
        return self._pooled(mem.clone() if saved else mem).to(spk.dtype), syn, mem

    def _scan(
        self, x: Tensor, steps: int | None, one_step: Tensor, given: tuple[Tensor | None, ...]
    ) -> tuple[Trajectory, str, list[str]]:
        run, machine, refusals = super()._scan(x, steps, one_step, given)
        if steps is not None and self._reads_mems:
            run = replace(run, spk=self._pooled(run.traces[-1]))
        return run, machine, refusals

    def _pooled(self, mems: Tensor) -> Tensor:
        """Spikes of pooled membranes, [..., out_channels, H, W]."""
        spk = self._spikes(mems.reshape(-1, *mems.shape[-3:]))
        return spk.reshape(*mems.shape[:-3], *spk.shape[1:])

    init_sconv2dlstm = by_reset_mem


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
