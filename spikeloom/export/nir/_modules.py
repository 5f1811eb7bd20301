"""Layers that a graph may need and torch does not have: a scale, a threshold, and neurons with any values."""

from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from torch import Tensor, nn

from ... import surrogate
from ...cells.firing import Model, States, Whole
from ...neurons._from_equation import EquationNeuron
from ...ops import Value


class Scale(nn.Module):
    """Multiply each element by a learned factor: y = scale * x.

    Args:
        scale: the factors, of the shape of a step.
    """

    def __init__(self, scale: Tensor):
        super().__init__()
        self.scale = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *N] -> [B, *N]."""
        return x * self.scale

    def extra_repr(self) -> str:
        return f"{tuple(self.scale.shape)}"


class Factor(nn.Module):
    """Multiply by a constant, or divide by it: y = x * factor, or y = x / factor.

    Args:
        factor: a number, or values that broadcast to a step.
        divides: whether to divide.
    """

    factor: Tensor

    def __init__(self, factor: Tensor, divides: bool = False):
        super().__init__()
        self.divides = divides
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *N] -> [B, *N]."""
        return x / self.factor if self.divides else x * self.factor

    def extra_repr(self) -> str:
        value = f"{self.factor.item():g}" if self.factor.dim() == 0 else f"{tuple(self.factor.shape)}"
        return f"1 / {value}" if self.divides else value


class Threshold(nn.Module):
    """Spike wherever the input is above a threshold, without a state: y = H(x - threshold).

    Args:
        threshold: of the shape of a step.
        spike_grad: spike function (see `spikeloom.surrogate`).
    """

    threshold: Tensor

    def __init__(self, threshold: Tensor, spike_grad: surrogate.Spike | None = None):
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.spike_grad = spike_grad or surrogate.atan()

    def forward(self, x: Tensor) -> Tensor:
        """[B, *N] -> [B, *N], of zeros and ones."""
        return self.spike_grad(x - self.threshold)

    def extra_repr(self) -> str:
        return f"{tuple(self.threshold.shape)}"


# -- neurons whose values no class of the library has; each is one Euler step of NIR's equation -----------------------


def euler_charge(x: Value, mem: Value, *, rate: Value, r: Value, v_leak: Value) -> States:
    """Leaky integrate-and-fire neuron with a resistance and a leak, as NIR writes it.

    mem' = mem + rate * ((v_leak - mem) + r * x);  spk = H(mem' - threshold)

    Args:
        rate: dt / tau.
        r: resistance.
        v_leak: membrane without input.

    Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, equation of LIF, by one Euler step.
    """
    return (mem + rate * ((v_leak - mem) + r * x),)


def euler_current_charge(
    x: Value, syn: Value, mem: Value, *, rate_syn: Value, w_in: Value, rate: Value, r: Value, v_leak: Value
) -> States:
    """Current-based leaky integrate-and-fire neuron with any resistance and leak, as NIR writes it.

    syn' = syn + rate_syn * (w_in * x - syn);  mem' = mem + rate * ((v_leak - mem) + r * syn')

    and spk = H(mem' - threshold).

    Args:
        rate_syn: dt / tau_syn.
        w_in: weight of the input.
        rate: dt / tau_mem.
        r: resistance.
        v_leak: membrane without input.

    Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, equation of CubaLIF, by one Euler step.
    """
    syn = syn + rate_syn * (w_in * x - syn)
    return syn, mem + rate * ((v_leak - mem) + r * syn)


def integrating_charge(x: Value, mem: Value, *, gain: Value) -> States:
    """Integrate-and-fire neuron with a gain, as NIR writes it: mem' = mem + gain * x.

    Args:
        gain: dt * r.

    Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, equation of IF, by one Euler step.
    """
    return (mem + gain * x,)


def readout(charge: Callable[..., States]) -> Callable[..., States]:
    """The equation of a neuron without spikes: the membrane of a charge is its output."""

    @wraps(charge)
    def equation(*values: Value, **parameters: Value) -> States:
        new = charge(*values, **parameters)
        return (new[-1], *new)

    return equation


class EulerLIF(EquationNeuron, model=Model(euler_charge)):
    """NIR's LIF with any values."""


class EulerCubaLIF(EquationNeuron, model=Model(euler_current_charge)):
    """NIR's CubaLIF with any values."""


class GainIF(EquationNeuron, model=Model(integrating_charge)):
    """NIR's IF with any values."""


class EulerLI(EquationNeuron, model=Whole(readout(euler_charge))):
    """NIR's LI with any values."""


class EulerCubaLI(EquationNeuron, model=Whole(readout(euler_current_charge))):
    """NIR's CubaLI with any values."""


class GainI(EquationNeuron, model=Whole(readout(integrating_charge))):
    """NIR's I with any values."""


def floats(array: object, name: str = "value") -> Tensor:
    """An array of a file as a tensor of its own, float64, all finite."""
    values = np.array(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"its {name} is not finite")
    return torch.from_numpy(values)
