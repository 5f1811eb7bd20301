"""The linear form of a neuron, which exchange formats can express: one or two leaky states, a threshold, a reset.

The form of a charge is derived from its equation: it is evaluated at a few points, which give the coefficients and
show whether it is linear at all. An equation that is not names the linear neuron that is nearest to it, as `Nearest`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..ops import Value

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Linear:
    """A charge that is linear, in steps: mem' = beta * mem + gain * x + offset.

    With `alpha`, x is the current syn' = alpha * syn + weight * x of the input. All values broadcast to a step.
    """

    beta: Tensor
    gain: Tensor
    offset: Tensor
    alpha: Tensor | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class Nearest:
    """The linear neuron that is nearest to an equation which is not linear.

    Args:
        told: the neuron and what it leaves out, for messages.
        form: from the parameters of the equation: beta, threshold, and where they are not 1, 0, 0 and none,
            gain, offset, v_reset and alpha. None if it is too far away to be written in its place.
    """

    told: str
    form: Callable[[Parameters], Parameters] | None = None


def linear_form(charge: Callable[..., tuple[Value, ...]], states: int, like: Tensor) -> Linear | None:
    """The linear form of a charge ``(x, *states) -> new states``, the membrane last; None if it has none.

    Args:
        charge: the charge, with its parameters.
        states: the number of its states.
        like: a tensor whose shape all parameters broadcast to, in the dtype to compute in.
    """
    if states not in (1, 2):
        return None

    def at(x: float, *values: float) -> list[Tensor]:
        return [torch.as_tensor(new) for new in charge(like + x, *(like + value for value in values))]

    rest = at(0.0, *[0.0] * states)
    units = [at(*(float(i == k) for i in range(states + 1))) for k in range(states + 1)]
    slopes = [[new - old for new, old in zip(unit, rest, strict=True)] for unit in units]  # [x and states][new states]
    point = (0.37, -1.3, 0.71)[: states + 1]
    for i, new in enumerate(at(*point)):
        predicted = rest[i] + sum(value * slope[i] for value, slope in zip(point, slopes, strict=True))
        if not torch.allclose(new, predicted, rtol=1e-9, atol=1e-12):
            return None
    if states == 1:
        return Linear(beta=slopes[1][0], gain=slopes[0][0], offset=rest[0])
    alpha, weight = slopes[1][0], slopes[0][0]
    if (slopes[2][0] != 0).any() or (rest[0] != 0).any():
        return None
    gain = torch.where(weight != 0, slopes[0][1] / weight, torch.where(alpha != 0, slopes[1][1] / alpha, 1.0))
    for slope, current in ((slopes[0], weight), (slopes[1], alpha)):
        if not torch.allclose(slope[1], gain * current, rtol=1e-9, atol=1e-12):  # the membrane reads another current
            return None
    return Linear(beta=slopes[2][1], gain=gain, offset=rest[1], alpha=alpha, weight=weight)


def is_readout(equation: Callable[..., tuple[Value, ...]], states: int, like: Tensor) -> bool:
    """Whether a complete equation returns its last state, the membrane, as its output, which then is no spike."""
    spk, *_, mem = equation(like + 0.37, *[like - 1.3] * states)
    return bool(torch.equal(torch.as_tensor(spk), torch.as_tensor(mem)))


def broadcast(form: Linear, like: Tensor) -> Linear:
    """The form with every value expanded to the shape of `like`."""
    wide = {name: value.expand_as(like) for name, value in vars(form).items() if value is not None}
    return replace(form, **wide)
