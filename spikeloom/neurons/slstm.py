"""The spiking long short-term memory layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..cells.lstm import LSTM
from ..engine.feedback import LinearMap
from ..engine.run import Trajectory
from ._gated import Gated
from ._keeping import by_reset_mem
from ._neuron import SpikeGrad


class SLSTM(Gated):
    """Long short-term memory whose output is a membrane that fires.

    With the gates i, f, g, o = W_ih x + b_ih + W_hh mem + b_hh, in the order of torch.nn.LSTMCell, and
    R = H(mem - threshold) from the membrane of the step before:

    syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g)
    h    = sigmoid(o) * tanh(syn')

    | reset_mechanism | membrane                 |
    | --------------- | ------------------------ |
    | "none"          | mem' = h                 |
    | "subtract"      | mem' = h - R * threshold |
    | "zero"          | mem' = (1 - R) * h       |

    and spk = H(mem' - threshold). No reset changes syn. Since |h| < 1, a threshold of 1 or more never fires: the layer
    warns, and 0.1 is a better start.

    Args:
        input_size: number of features of the input.
        hidden_size: number of neurons.
        bias: if False, the gates have no b_ih and b_hh.
        inhibition: ignored with a warning, as in snnTorch.
        memoryless: if True, and input_size is not hidden_size, every step starts from zeros, and states passed by hand
            are not read: what snnTorch 1.0.0 does. Only for results that were made with it.
        The others are those of `Leaky`.

    The weights stand in `lstm_cell`, an nn.LSTMCell, which is not called itself: its hooks do not run.

    Shapes:
        input_ [B, input_size] or [input_size]; spk, syn and mem [B, hidden_size] or [hidden_size]; returns
        (spk, syn, mem). Unrolled: [T, B, hidden_size].

    Raises:
        ValueError: if the input has not input_size features. Also what `Leaky` raises.

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
        """One step: input_ [B, input_size] and, unless the layer keeps them, syn and mem; returns spk, or
        (spk, syn, mem)."""
        return self._run(input_, (syn, mem))

    def _of_input(self, x: Tensor) -> Tensor:
        cell = self.lstm_cell
        if not x.dim() or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape)}; pass [B, {self.input_size}], "
                f"with input_size={self.input_size} features last"
            )
        bias = (cell.bias_ih + cell.bias_hh).to(x.dtype) if self.bias else None
        return linear(x, cell.weight_ih.to(x.dtype), bias)

    def _weight_of_mem(self) -> Tensor:
        return self.lstm_cell.weight_hh

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...] | None:
        fits = x.dim() == 2 and x.shape[1] == self.input_size and not self.memoryless
        return (x.shape[0], self.hidden_size) if fits else None

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        if x.dim() != 2:
            return self._of_input(x) + self._mem_feedback(x.dtype)(states[-1])
        return torch.addmm(self._of_input(x), states[-1], self._weight_of_mem().to(x.dtype).t())

    def _states(self, x: Tensor, dtype: torch.dtype, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        return super()._states(x, dtype, (x.new_zeros(()),) * len(given) if self.memoryless else given)

    def _scan(
        self, x: Tensor, steps: int | None, one_step: Tensor, given: tuple[Tensor | None, ...]
    ) -> tuple[Trajectory, str, list[str]]:
        if not self.memoryless:
            return super()._scan(x, steps, one_step, given)
        if steps is None:
            return super()._scan(x, None, one_step, given)
        # steps that know nothing of each other are rows of one
        rows = x.expand(steps, *x.shape[1:]).flatten(0, 1)
        run, machine, refusals = super()._scan(rows, None, rows, given)
        spk, *traces = (out.unflatten(0, (steps, -1)) for out in (run.spk, *run.finals))
        run = Trajectory(spk, tuple(traces), tuple(trace[-1].clone() for trace in traces))
        self._keep(run.finals)
        self._note(run, machine, tuple(torch.zeros_like(state) for state in run.finals), 1)
        return run, machine, refusals

    init_slstm = by_reset_mem
