"""The tables that drive the tests of the engine: cells, shapes, spike functions."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from spikeloom import ops, surrogate
from spikeloom.cells import LEAKY, MODELS
from spikeloom.cells.cell import Cell, cell_from
from spikeloom.cells.firing import RESETS, AnyModel, Frame, Model

SHAPES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "one step": (1, (3, 5)),
    "vectors": (7, (2, 130)),
    "images": (12, (2, 3, 4, 5)),
    "one neuron": (9, (1, 1)),
    "bare": (6, (17,)),
}
"""T, and the shape of one step."""

SPIKES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "atan": surrogate.atan(),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=5),
    "sigmoid": surrogate.sigmoid(slope=4),
    "straight_through": surrogate.straight_through_estimator(),
    "boxcar": surrogate.boxcar(),
    "none": surrogate.no_gradient(),
}

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class CellCase:
    """A cell with parameters to run it.

    Args:
        cell: the cell.
        params: each parameter: a number, or the numbers between which one per neuron is drawn.
        exact: whether it uses nothing whose rounding differs between torch and the compiler.
    """

    cell: Cell
    params: Mapping[str, float | tuple[float, float]]
    exact: bool = True


# -- three cells that are no Leaky, and one that uses every operation --------------------------------------------------


def two_states(x, syn, mem, *, alpha, beta, threshold):
    """A current that decays feeds a membrane that decays."""
    fired = ops.detach(ops.spike(mem - threshold))
    syn = alpha * syn + x
    mem = beta * mem + syn - fired * threshold
    return ops.spike(mem - threshold), syn, mem


def to_rest(x, mem, *, decay, rest):
    """Fires above one, goes to a resting potential, with gradient; spikes are graded by the membrane."""
    mem = decay * mem + (1 - decay) * x
    fired = ops.spike(mem - 1.0)
    spk = fired * ops.minimum(mem, ops.full_like(mem, 3.0))
    return spk, ops.where(fired > 0.5, rest, mem)


def exponential(x, mem, adapt, *, tau, slope):
    """An exponential integrate-and-fire neuron with an adapting threshold and a time constant of its own per neuron."""
    decay = ops.exp(-1.0 / tau)
    mem = decay * mem + (1 - decay) * (x + slope * ops.exp((ops.clamp(mem, -5.0, 2.0) - 1.0) / slope))
    spk = ops.spike(mem - 1.0 - adapt)
    return spk, mem - ops.detach(spk) * mem, 0.9 * adapt + 0.1 * spk


def polyglot(x, a, b, c, *, gain, bias):
    """Every operation."""
    a = ops.tanh(gain * x + bias) + ops.sigmoid(a) / 2
    b = ops.sqrt(ops.abs(b) + 1.0) - ops.log(ops.maximum(a, b) + 3.0) + x**2 / 8 - b**3 / 64
    c = ops.where(a >= b, ops.sin(c), ops.cos(c)) - ops.minimum(a, -b) * (2.0 / (abs(c) + 2.0))
    spk = ops.spike(ops.clamp(a + b + c, -1.0, 1.0) - 0.5)
    return spk, a, b - ops.detach(spk), c


CELLS: dict[str, CellCase] = {
    "two states": CellCase(cell_from(two_states), {"alpha": (0.5, 0.9), "beta": 0.8, "threshold": 0.7}),
    "to rest": CellCase(cell_from(to_rest), {"decay": (0.2, 0.6), "rest": -0.25}),
    "exponential": CellCase(cell_from(exponential), {"tau": (2.0, 9.0), "slope": 0.4}, exact=False),
    "polyglot": CellCase(cell_from(polyglot), {"gain": 0.6, "bias": (-0.2, 0.2)}, exact=False),
}

DEFAULTS: Mapping[str, float | tuple[float, float]] = {
    "alpha": 0.95,
    "beta": (-0.1, 1.1),
    "threshold": 0.7,
    "graded_spikes_factor": 1.5,
    "V": (-0.5, 0.5),
    "R": (4.0, 9.0),
    "C": 0.8,
    "time_step": 1.0,
    "delta_threshold": 0.4,
}
"""How the parameters of the library's own models are chosen; beta beyond 0 to 1 is clamped."""

OWN: Mapping[str, Mapping[str, float | tuple[float, float]]] = {
    "alpha": {"alpha": 0.9, "beta": (0.2, 0.8)},
    "izhikevich": {"threshold": 30.0, "a": (0.02, 0.1)},
    "quadratic": {"tau": (1.5, 4.0)},
    "exponential_if": {"tau": (1.5, 4.0)},
    "resonate_and_fire": {"omega": (0.3, 1.2)},
    "state_leaky": {"tau": (1.5, 9.0)},
    "leaky_parallel": {"weight": (-0.4, 1.1)},
    "associative": {"gate": (0.0, 1.0)},
}
"""Where a model asks for others; what stands nowhere is the equation's own default."""

INEXACT = {"exponential_if"}
"""Models that use on their states what rounds differently in torch and in a kernel."""

STORED_AS: Mapping[str, tuple[float, float]] = {"sigmoid": (-1.0, 4.0), "tau": (0.5, 9.0)}
"""What a decay is kept as, where it is not clamped."""


def params_of(name: str, model: AnyModel) -> dict[str, float | tuple[float, float]]:
    equation = model.charge if isinstance(model, Model) else model.equation
    own = {p.name: p.default for p in inspect.signature(equation).parameters.values() if p.kind is p.KEYWORD_ONLY}
    chosen = {**own, **DEFAULTS, **OWN.get(name, {})}
    return {param: chosen[param] for param in model.params}


for _name, _model in MODELS.items():
    _frames = product(RESETS, (True, False)) if isinstance(_model, Model) else [("none", True)]
    for _reset, _delayed in _frames:
        _kind = f"{_name} {_reset} {'delayed' if _delayed else 'immediate'}" if isinstance(_model, Model) else _name
        CELLS[_kind] = CellCase(
            _model.cell(Frame(_reset, _delayed)), params_of(_name, _model), exact=_name not in INEXACT
        )

for _decay, _stored in STORED_AS.items():
    CELLS[f"leaky by {_decay}"] = CellCase(
        LEAKY.cell(Frame(decay=_decay)), params_of("leaky", LEAKY) | {"beta": _stored}
    )
