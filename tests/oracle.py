"""What it means that two ways of running a neuron agree: spikes equal, states and every gradient close."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

TOLERANCE: Mapping[torch.dtype, Mapping[str, float]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}
"""How close is close, the only such table: sums over time and batch in another order differ by about this."""


@dataclass(frozen=True)
class Outcome:
    """What one way of running gave, by name."""

    spikes: Mapping[str, Tensor]
    states: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)


def assert_same(got: Outcome, wanted: Outcome, exact_states: bool = False) -> None:
    """Spikes equal; states close, or equal; gradients close; the same names and dtypes; names what differs."""
    for kind in ("spikes", "states", "gradients"):
        ours, theirs = getattr(got, kind), getattr(wanted, kind)
        assert list(ours) == list(theirs), f"{kind}: got {list(ours)}, wanted {list(theirs)}"
        for name in theirs:
            exact = kind == "spikes" or (kind == "states" and exact_states)
            assert_close(ours[name], theirs[name], f"{kind}: {name}", exact)


def assert_close(got: Tensor | None, wanted: Tensor | None, name: str, exact: bool = False) -> None:
    """One tensor against another, at the tolerance of its dtype, or bit for bit; None only where None is wanted."""
    assert (got is None) == (wanted is None), f"{name}: got {got}, wanted {wanted}"
    if got is not None and wanted is not None:
        tolerance = {"rtol": 0.0, "atol": 0.0} if exact else TOLERANCE[wanted.dtype]
        message = f"{name} differs\n"
        torch.testing.assert_close(got, wanted, equal_nan=True, msg=lambda why: message + why, **tolerance)
