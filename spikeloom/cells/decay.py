"""What the parameter of a decay holds: the decay itself, or a number from which it follows and which may be any real.

A decay is the share of a state that is left after one step. A learned one must stay between 0 and 1, and how that is
ensured is a choice: a clamped decay has no gradient once it has left the interval, the other two cannot leave it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..ops import Value


@dataclass(frozen=True)
class Parametrisation:
    """How a decay is kept.

    Args:
        suffix: what the name of the parameter ends in.
        bounded: the decay, from what is kept; in the vocabulary of cells.
        kept: what is kept, from a decay.
    """

    suffix: str
    bounded: Callable[[Value], Value]
    kept: Callable[[Tensor], Tensor]


def _of_tau(tau: Value) -> Value:
    return ops.exp(-1.0 / ops.clamp(tau, 1e-3, float("inf")))  # held above zero, where the decay has long vanished


DECAYS: Mapping[str, Parametrisation] = {
    "clamp": Parametrisation("", lambda beta: ops.clamp(beta, 0, 1), lambda beta: beta),
    "sigmoid": Parametrisation("_logit", ops.sigmoid, torch.logit),
    "tau": Parametrisation("_tau", _of_tau, lambda beta: -1 / torch.log(beta)),
}
"""clamp: beta = min(max(p, 0), 1); sigmoid: beta = 1 / (1 + exp(-p)); tau: beta = exp(-1 / p), p in steps."""
