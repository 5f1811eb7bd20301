"""Every neuron of the library, ready to be made: the table that the tests of layers run over."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn


def spread(low: float, high: float, count: int = 4) -> Tensor:
    """A value per neuron."""
    return torch.linspace(low, high, count)


@dataclass(frozen=True)
class Kind:
    """A neuron and how it is made.

    Args:
        make: its class.
        numbers: arguments with one number per value.
        vectors: arguments with a value per neuron, where it takes them.
        learn: arguments that make it learn all it can.
        resets: whether it has the common resets; `delays`, whether they may also act at once.
        shape: of one step.
        scale, shift: inputs are drawn from shift to shift + scale.
        exact: whether it uses nothing whose rounding differs between torch and the compiler, or with the batch size.
        fixed: whether its size is built into it.
    """

    make: Callable[..., Any]
    numbers: Mapping[str, Any]
    vectors: Mapping[str, Any] = field(default_factory=dict)
    learn: Mapping[str, Any] = field(default_factory=dict)
    resets: bool = True
    delays: bool = True
    shape: tuple[int, ...] = (3, 4)
    scale: float = 2.0
    shift: float = -0.7
    exact: bool = True
    fixed: bool = False


BETA, ALPHA, HIGH = {"beta": 0.8}, {"alpha": 0.7}, {"threshold": 0.9}
PER_NEURON = {"beta": spread(0.3, 1.0), "threshold": spread(0.4, 1.2)}
LEARN = {"learn_beta": True, "learn_threshold": True}

ZOO: dict[str, Kind] = {
    "Leaky": Kind(snn.Leaky, BETA, PER_NEURON, LEARN | {"learn_graded_spikes_factor": True}),
    "Leaky by sigmoid": Kind(snn.Leaky, BETA | {"decay": "sigmoid"}, {"beta": spread(0.3, 0.9)}, LEARN),
    "Leaky by tau": Kind(snn.Leaky, BETA | {"decay": "tau"}, {"beta": spread(0.3, 0.9)}, LEARN),
    "Synaptic": Kind(
        snn.Synaptic, ALPHA | BETA, PER_NEURON | {"alpha": spread(0.2, 0.9)}, LEARN | {"learn_alpha": True}
    ),
    "RLeaky": Kind(snn.RLeaky, BETA | {"V": -0.4, "all_to_all": False}, PER_NEURON | {"V": spread(-0.6, 0.5)}, LEARN),
    "RLeaky through Linear": Kind(
        snn.RLeaky, BETA | {"linear_features": 4}, PER_NEURON, LEARN, exact=False, fixed=True
    ),
    "RLeaky through Conv2d": Kind(
        snn.RLeaky,
        BETA | {"conv2d_channels": 2, "kernel_size": 3},
        {},
        LEARN,
        shape=(2, 2, 3, 4),
        exact=False,
        fixed=True,
    ),
    "RSynaptic": Kind(
        snn.RSynaptic,
        ALPHA | BETA | {"V": -0.4, "all_to_all": False},
        PER_NEURON | {"alpha": spread(0.2, 0.9), "V": spread(-0.6, 0.5)},
        LEARN | {"learn_alpha": True},
    ),
    "RSynaptic through Linear": Kind(
        snn.RSynaptic,
        ALPHA | BETA | {"linear_features": 4},
        PER_NEURON,
        LEARN | {"learn_alpha": True},
        exact=False,
        fixed=True,
    ),
    "SLSTM": Kind(
        snn.SLSTM,
        {"input_size": 4, "hidden_size": 5, "threshold": 0.05},
        {"threshold": spread(0.02, 0.1, 5)},
        {"learn_threshold": True},
        delays=False,
        exact=False,
        fixed=True,
    ),
    "SConv2dLSTM": Kind(
        snn.SConv2dLSTM,
        {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "threshold": 0.05, "max_pool": 2},
        {"stride": 2, "dilation": (1, 2), "max_pool": 0, "avg_pool": 2},
        {"learn_threshold": True},
        delays=False,
        shape=(2, 2, 6, 8),
        exact=False,
        fixed=True,
    ),
    "Lapicque": Kind(snn.Lapicque, {"R": 5.0, "C": 1.0}, {"R": spread(3.0, 9.0), "C": 1.0}, LEARN, delays=False),
    "Lapicque of beta": Kind(snn.Lapicque, BETA, {"beta": spread(0.4, 0.8)}, LEARN, delays=False, scale=9.0),
    "Alpha": Kind(
        snn.Alpha,
        {"alpha": 0.9, "beta": 0.6, "threshold": 0.4},
        {"alpha": spread(0.8, 0.95), "beta": spread(0.3, 0.7)},
        LEARN | {"learn_alpha": True},
        delays=False,
    ),
    "NoisyLeaky": Kind(snn.NoisyLeaky, BETA | {"sigma": 0.2}, PER_NEURON, LEARN | {"learn_sigma": True}),
    "DeltaLeaky": Kind(
        snn.DeltaLeaky,
        BETA | {"delta_threshold": 0.3, "init_hidden": True},
        {"beta": spread(0.3, 1.0)},
        {"learn_beta": True},
        resets=False,
    ),
    "IF": Kind(snn.IF, {}, {"threshold": spread(0.4, 1.2)}, {"learn": "threshold"}),
    "LI": Kind(snn.LI, BETA, {"beta": spread(0.3, 1.0)}, {"learn": "beta"}, resets=False),
    "ParametricLIF": Kind(snn.ParametricLIF, {"threshold": 0.4}, {"beta": spread(0.3, 0.9)}, {}),
    "ALIF": Kind(snn.ALIF, BETA, PER_NEURON, {"learn": ("beta", "rho", "kappa", "threshold")}, resets=False),
    "RALIF through Linear": Kind(
        snn.RALIF,
        BETA | {"kappa": 0.3, "linear_features": 4},
        PER_NEURON | {"kappa": spread(0.0, 0.3)},
        {"learn": ("beta", "rho", "kappa", "threshold")},
        resets=False,
        exact=False,
        fixed=True,
    ),
    "AdLIF": Kind(
        snn.AdLIF,
        {"beta": 0.5, "threshold": 0.4},
        {"a": spread(0.1, 0.6)},
        {"learn": ("beta", "rho", "a", "b", "threshold")},
        resets=False,
    ),
    "QIF": Kind(snn.QIF, {}, {"tau": spread(1.5, 4.0)}, {"learn": ("tau", "gain", "v_critical")}, resets=False),
    "EIF": Kind(snn.EIF, {}, {"tau": spread(1.5, 4.0)}, {"learn": ("tau", "sharpness")}, resets=False, exact=False),
    "Izhikevich": Kind(snn.Izhikevich, {}, {"d": spread(2.0, 8.0)}, {"learn": ("a", "b")}, resets=False, scale=40.0),
    "ResonateFire": Kind(
        snn.ResonateFire, {}, {"omega": spread(0.3, 1.2)}, {"learn": ("beta", "omega", "threshold")}, resets=False
    ),
    "CuBaLIF": Kind(
        snn.CuBaLIF, {"period": 2.0}, {"beta": spread(0.3, 0.9)}, {"learn": ("alpha", "beta")}, resets=False
    ),
}


def made(name: str, vectors: bool = False, learn: bool = False, **options: Any) -> Any:
    """A neuron of the table; the same weights at every call."""
    kind = ZOO[name]
    given = {**kind.numbers, **(kind.vectors if vectors else {}), **(kind.learn if learn else {}), **options}
    torch.manual_seed(3)
    return kind.make(**{key: v.clone() if isinstance(v, Tensor) else v for key, v in given.items()})


def sequence(name: str, steps: int = 9, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = ()) -> Tensor:
    """Inputs [T, *S] that make some neurons fire and not all."""
    kind = ZOO[name]
    drawn = torch.rand(steps, *(shape or kind.shape), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return (kind.scale * drawn + kind.shift).to(dtype)


COMPILED = ("Leaky", "Synaptic", "RLeaky", "RLeaky through Linear", "SLSTM", "SConv2dLSTM", "DeltaLeaky", "ALIF")
"""Neurons that torch.compile sees differently: one of each class that the others are made of."""


def slow_unless_compiled_differently(names: Iterable[str]) -> list[Any]:
    """Names as parameters of a test that compiles: those of other equations of the same classes are slow ones."""
    return [pytest.param(name, marks=() if name in COMPILED or name not in ZOO else pytest.mark.slow) for name in names]
