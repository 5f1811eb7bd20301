"""The leaky neurons of other libraries, configured for the same dynamics as far as possible.

All of them subtract the threshold from the membrane in the step of the spike; snnTorch and spikeloom subtract it one
step later:

    mem' = beta mem + x,    spk = H(mem' - threshold),    mem = mem' - spk threshold.

`twin` is this equation as a cell of spikeloom, on the plain loop. The note of each library lists other differences.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import ops

from .device import fused
from .runner import Peer, Prepare, installed


class Neurons(nn.Module):
    """Leaky neurons of one kind: over a sequence from zero, or one step from the last state."""

    def forward(self, x: Tensor) -> Tensor:
        """The spikes [T, B, *N] for inputs [T, B, *N], from zero."""
        raise NotImplementedError

    def membranes(self, x: Tensor) -> Tensor:
        """The membranes [T, B, *N] of the same run."""
        raise NotImplementedError

    def step(self, x: Tensor) -> Tensor:
        """The spikes [B, *N] for inputs [B, *N], from the last state."""
        raise NotImplementedError

    def restart(self) -> None:
        """Set the state to zero."""
        raise NotImplementedError

    def by_steps(self, x: Tensor) -> Tensor:
        """Run the sequence step by step. Faster for a library that indexes its input, whose backward makes a gradient
        of the whole sequence at each of T steps.
        """
        self.restart()
        return torch.stack([self.step(x_t) for x_t in x.unbind(0)])


class ByStep(Neurons):
    """Neurons of a library that is called once per step, with readable membranes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.by_steps(x)

    def membranes(self, x: Tensor) -> Tensor:
        self.restart()
        found = []
        for x_t in x.unbind(0):
            self.step(x_t)
            found.append(self.mem)
        return torch.stack(found)

    @property
    def mem(self) -> Tensor:
        """The membranes [B, *N] after the last step."""
        raise NotImplementedError


@snn.cell
def TakenAtOnce(x: Any, mem: Any, *, beta: Any = 0.9, threshold: Any = 1.0, below: Any = 1.0) -> Any:
    """The neuron of SpikingJelly and Sinabs, as an equation; `below` is the number before the threshold."""
    mem = beta * mem + x
    spk = ops.spike(mem - below)
    return spk, mem - spk * threshold


@snn.cell
def Relaxing(x: Any, mem: Any, *, rate: Any = 0.1, threshold: Any = 0.1) -> Any:
    """The neuron of Norse, with its order of operations: the membrane relaxes toward its input."""
    mem = mem + rate * (x - mem)
    spk = ops.spike(mem - threshold)
    return spk, mem - spk * threshold


def before(threshold: float) -> float:
    """The largest float32 below a threshold: a membrane above it has reached the threshold.

    >>> before(1.0) < 1.0 == before(1.0) + 2**-24
    True
    """
    return float(torch.nextafter(torch.tensor(threshold), torch.tensor(0.0)))


class Ours(Neurons):
    """spikeloom's neurons with one of these equations, on a backend."""

    def __init__(self, cell: Any, backend: str | None = None, **options: Any) -> None:
        super().__init__()
        self.lif = cell(init_hidden=True, output=True, **options)
        self.backend = backend or fused()

    def forward(self, x: Tensor) -> Tensor:
        return self.traced(x)[0]

    def membranes(self, x: Tensor) -> Tensor:
        return self.traced(x)[1]

    def traced(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes."""
        self.restart()
        with snn.backend(self.backend):
            spk, mem = snn.unroll(self.lif, x)
        return spk, mem

    def step(self, x: Tensor) -> Tensor:
        with snn.backend(self.backend):
            spk: Tensor = self.lif(x)[0]
        return spk

    def restart(self) -> None:
        self.lif.reset_mem()


class SpikingJelly(Neurons):
    """LIFNode with `decay_input=False` and reset by subtraction."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        package = "spikingjelly.activation_based"
        lif = installed(f"{package}.neuron").LIFNode
        atan = installed(f"{package}.surrogate").ATan(2.0)
        options = {"tau": 1 / (1 - beta), "decay_input": False, "v_reset": None, "surrogate_function": atan}
        self.sequence, self.single = lif(step_mode="m", **options), lif(step_mode="s", **options)
        self.traced = lif(step_mode="m", store_v_seq=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        self.sequence.reset()
        spk: Tensor = self.sequence(x)
        return spk

    def membranes(self, x: Tensor) -> Tensor:
        self.traced.reset()
        self.traced(x)
        mem: Tensor = self.traced.v_seq
        return mem

    def step(self, x: Tensor) -> Tensor:
        spk: Tensor = self.single(x)
        return spk

    def restart(self) -> None:
        self.single.reset()


class Norse(ByStep):
    """LIFBoxCell with decay beta, called once per step."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        norse = installed("norse.torch")
        reset = installed("norse.torch.functional.reset").reset_subtract
        rest = torch.tensor(1 - beta)
        parameters = norse.LIFBoxParameters(tau_mem_inv=rest, v_th=rest, reset_method=reset)
        self.cell = norse.LIFBoxCell(parameters, dt=1.0)
        self.state: Any = None

    def step(self, x: Tensor) -> Tensor:
        spk: Tensor
        spk, self.state = self.cell(x, self.state)
        return spk

    def restart(self) -> None:
        self.state = None

    @property
    def mem(self) -> Tensor:
        mem: Tensor = self.state.v
        return mem


class Sinabs(ByStep):
    """LIF with at most one spike per step and `norm_input=False`, called once per step, on [B, 1, *N].

    Its time constant is a parameter by default; its gradient is not needed here.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        activation = installed("sinabs.activation")
        self.lif = installed("sinabs.layers").LIF(
            tau_mem=-1 / math.log(beta),
            norm_input=False,
            spike_fn=activation.SingleSpike,
            reset_fn=activation.MembraneSubtract(),
            surrogate_grad_fn=arc_tangent,
        )
        self.lif.requires_grad_(False)

    def step(self, x: Tensor) -> Tensor:
        spk: Tensor = self.lif(x.unsqueeze(1)).squeeze(1)
        return spk

    def restart(self) -> None:
        self.lif.reset_states()

    @property
    def mem(self) -> Tensor:
        mem: Tensor = self.lif.v_mem
        return mem


def arc_tangent(v_mem: Tensor, spike_threshold: float) -> Tensor:
    """The surrogate derivative: the default of snnTorch and of spikeloom."""
    slope: Tensor = 1 / (1 + (math.pi * (v_mem - spike_threshold)).square())
    return slope


@dataclass(frozen=True)
class Library:
    """How the neurons of a library are created.

    Args:
        neurons: creates them for a decay.
        twin: creates spikeloom's neurons with the same dynamics, on the plain loop.
        note: how they differ from snnTorch's.
    """

    neurons: Callable[[float], Neurons]
    twin: Callable[[float], Neurons]
    note: str


AT_ONCE = "resets in the step of the spike"
REACHED = f"{AT_ONCE}; also fires at mem = threshold"


def ours(beta: float, backend: str = "numba") -> Neurons:
    """spikeloom with the equation of SpikingJelly and Sinabs."""
    return Ours(TakenAtOnce, backend, beta=beta, below=before(1.0))


def twin(beta: float) -> Neurons:
    """The plain loop over it."""
    return ours(beta, "loop")


def damped(beta: float) -> Neurons:
    """The loop over Norse's equation: scaled by 1 - beta, H(0) = 0, and the surrogate 1 / (1 + |u|)^2."""
    rate = 1 - beta
    return Ours(Relaxing, "loop", rate=rate, threshold=rate, spike_grad=snn.surrogate.fast_sigmoid(1))


LIBRARIES: Mapping[str, Library] = {
    "SpikingJelly": Library(SpikingJelly, twin, REACHED),
    "Norse": Library(Norse, damped, f"{AT_ONCE}; membrane and threshold scaled by 1 - beta; surrogate 1 / (1 + |u|)^2"),
    "Sinabs": Library(Sinabs, twin, REACHED),
}
"""Who is measured with ``--peers``."""


def by_library(prepared: Callable[[Callable[[float], Neurons]], Prepare]) -> dict[str, Peer]:
    """The contestants of all libraries, each with the plain loop over its own dynamics.

    Args:
        prepared: creates a contestant from a factory of neurons.
    """
    return {name: Peer(prepared(each.neurons), prepared(each.twin), each.note) for name, each in LIBRARIES.items()}


OURS = Library(ours, twin, REACHED)
