"""Parametrizations of decays: the stored parameter is the decay, or an unbounded number from which it is computed.

A decay is the factor by which a state shrinks per step. A learned decay must stay in [0, 1]: a clamped one has no
gradient outside of the interval, and the other parametrizations cannot leave it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..ops import Value


@dataclass(frozen=True)
class Parametrization:
    """How a decay is stored.

    Args:
        suffix: appended to the name of the parameter.
        bounded: computes the decay from the parameter, with the operations of `spikeloom.ops`.
        from_decay: computes the parameter from a decay.
    """

    suffix: str
    bounded: Callable[[Value], Value]
    from_decay: Callable[[Tensor], Tensor]


def _of_tau(tau: Value) -> Value:
    return ops.exp(-1.0 / ops.clamp(tau, 1e-3, float("inf")))  # bounded away from zero; the decay is 0 there already


DECAYS: Mapping[str, Parametrization] = {
    "clamp": Parametrization("", lambda beta: ops.clamp(beta, 0, 1), lambda beta: beta),
    "sigmoid": Parametrization("_logit", ops.sigmoid, torch.logit),
    "tau": Parametrization("_tau", _of_tau, lambda beta: 1 / torch.log(beta).abs()),  # infinite for a decay of 1
}
"""clamp: beta = min(max(p, 0), 1); sigmoid: beta = 1 / (1 + exp(-p)); tau: beta = exp(-1 / p), p in steps."""
