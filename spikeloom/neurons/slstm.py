"""The spiking LSTM layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from ._gated import Gated, promoted
from ._neuron import SpikeGrad, SpikingNeuron


class SLSTM(Gated):
    """Spiking long short-term memory: an LSTM cell whose hidden state is a membrane that fires.

    (mem', syn') = LSTMCell(x, (mem, syn)), in the notation of torch.nn.LSTMCell (hidden state mem, cell state syn):

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g);  h = sigmoid(o) * tanh(syn')

    With R = H(mem - threshold) from the membrane of the step before:

    | reset_mechanism | membrane                  |
    | --------------- | ------------------------- |
    | "none"          | mem' = h                  |
    | "subtract"      | mem' = h - R * threshold  |
    | "zero"          | mem' = (1 - R) * h        |

    and spk = H(mem' - threshold). The membrane stays between -1 and 1, so the default threshold of 1 is never crossed:
    pass 0.1 or less. A warning says so.

    Args:
        input_size: number of inputs.
        hidden_size: number of neurons.
        bias: whether the gates have biases.
        threshold: membrane above which a neuron fires; below 1.
        reset_mechanism: "none" is the default here.
        memoryless: if True, the states are zeros at every step, which is what snnTorch 1.0.0 does where input_size and
            hidden_size differ. For results of its trained networks only.
        The others are those of `Leaky`; inhibition means nothing here.

    Shapes:
        input_ [B, input_size] or [input_size]; syn and mem [B, hidden_size]; returns (spk, syn, mem), each as the
        states. Unrolled: [T, B, ...].

    Raises:
        what `Leaky` raises.

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Henkes, Eshraghian and Wessels, "Spiking neural
    networks for nonlinear regression", 2022, section 2.5.

        >>> import torch, spikeloom as snn
        >>> lif = snn.SLSTM(input_size=10, hidden_size=4, threshold=0.1, init_hidden=True, output=True)
        >>> spk, syn, mem = snn.unroll(lif, torch.rand(25, 2, 10))
        >>> spk.shape, mem.shape
        (torch.Size([25, 2, 4]), torch.Size([25, 2, 4]))
    """

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
        self.lstm_cell = nn.LSTMCell(input_size, hidden_size, bias)
        self.memoryless = memoryless and input_size != hidden_size

    def _of_input(self, x: Tensor) -> Tensor:
        cell = self.lstm_cell
        return linear(*promoted(x, cell.weight_ih, cell.bias_ih if self.bias else None))

    def _of_membrane(self, mem: Tensor) -> Tensor:
        cell = self.lstm_cell
        return linear(*promoted(mem, cell.weight_hh, cell.bias_hh if self.bias else None))

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, input_size] and, unless the layer keeps them, syn and mem [B, hidden_size]; returns spk,
        or (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    init_slstm = SpikingNeuron.reset_mem
