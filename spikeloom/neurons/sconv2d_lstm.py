"""The spiking convolutional LSTM layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from ._gated import Gated, promoted
from ._neuron import SpikeGrad, SpikingNeuron

Size = int | tuple[int, int]


class SConv2dLSTM(Gated):
    """Spiking convolutional long short-term memory: the gates are convolutions of the input and the membrane.

    (i, f, o, g) = conv(cat([x, mem])), in this order along the channels, and then

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g);  h = sigmoid(o) * tanh(syn')

    with the resets of `SLSTM`, and spk = H(pool(mem') - threshold). The membrane stays between -1 and 1, so the default
    threshold of 1 is never crossed: pass 0.1 or less. A warning says so.

    Args:
        in_channels: channels of the input.
        out_channels: channels of spikes and states.
        kernel_size: of the convolution; odd, so that the padding of kernel_size // 2 keeps the size.
        bias: whether the convolution has a bias.
        max_pool: kernel of a max pooling of the membrane before the threshold, 0 for none.
        avg_pool: kernel of an average pooling of the membrane before the threshold, 0 for none.
        threshold: membrane above which a neuron fires; below 1.
        reset_mechanism: "none" is the default here.
        stride: of the input's part of the convolution. The states have the smaller size, and the membrane's part goes
            over them with stride 1.
        dilation: of the whole convolution, whose padding grows with it.
        The others are those of `Leaky`; inhibition means nothing here.

    Shapes:
        input_ [B, in_channels, H, W]; syn and mem [B, out_channels, H, W], H and W divided by the stride; returns (spk,
        syn, mem), the states unpooled. Unrolled: [T, B, ...].

    Raises:
        ValueError: for both kinds of pooling, or an even kernel_size. Also what `Leaky` raises.

    Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", 2015,
    equation 3, without its peepholes.

        >>> import torch, spikeloom as snn
        >>> lif = snn.SConv2dLSTM(1, 8, kernel_size=3, max_pool=2, threshold=0.1, init_hidden=True)
        >>> snn.unroll(lif, torch.rand(25, 2, 1, 28, 28)).shape
        torch.Size([25, 2, 8, 14, 14])
    """

    gate_order = "ifog"
    gate_dim = -3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        bias: bool = True,
        max_pool: int = 0,
        avg_pool: int = 0,
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
        kernel, spacing = _pair(kernel_size), _pair(dilation)
        if max_pool and avg_pool:
            raise ValueError(f"SConv2dLSTM got max_pool={max_pool} and avg_pool={avg_pool}; pass one of them")
        if not all(size % 2 for size in kernel):
            raise ValueError(f"SConv2dLSTM got kernel_size={kernel_size}; pass odd sizes, which keep that of the image")
        self._build(locals())
        self.in_channels, self.out_channels = in_channels, out_channels
        self.max_pool, self.avg_pool, self.stride = max_pool, avg_pool, _pair(stride)
        padding = (kernel[0] // 2 * spacing[0], kernel[1] // 2 * spacing[1])
        channels = in_channels + out_channels, 4 * out_channels
        self.conv = nn.Conv2d(*channels, kernel, padding=padding, dilation=spacing, bias=bias)

    def _of_input(self, x: Tensor) -> Tensor:
        conv = self.conv
        x, weight, bias = promoted(x, conv.weight[:, : self.in_channels], conv.bias)
        return conv2d(x, weight, bias, self.stride, _pair(conv.padding), conv.dilation)

    def _of_membrane(self, mem: Tensor) -> Tensor:
        conv = self.conv
        mem, weight, _ = promoted(mem, conv.weight[:, self.in_channels :], None)
        return conv2d(mem, weight, None, 1, _pair(conv.padding), conv.dilation)

    def _pooled(self, mem: Tensor) -> Tensor:
        if self.max_pool:
            return max_pool2d(mem, self.max_pool)
        return avg_pool2d(mem, self.avg_pool) if self.avg_pool else mem

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, C, H, W] and, unless the layer keeps them, its states; returns spk, or all."""
        return self._run(input_, (syn, mem))

    init_sconv2dlstm = SpikingNeuron.reset_mem


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
