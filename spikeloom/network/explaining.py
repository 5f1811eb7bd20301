"""Which backend runs each layer, and why not a faster one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons._time import Time, time_is


@dataclass(frozen=True)
class Row:
    """What one neuron did."""

    path: str
    kind: str
    backend: str
    refusals: tuple[str, ...]
    density: float
    static: bool


@dataclass(frozen=True)
class Explanation:
    """The rows of all neurons."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return "\n".join(f"{r.path:20} {r.kind:10} {r.backend:8} {r.density:7.1%}  {'; '.join(r.refusals)}" for r in self.rows)


def explain(net: nn.Module, x: Tensor, steps: int | None = None) -> Explanation:
    """How each neuron of `net` would be run."""
    total, batch = (len(x), x.shape[1]) if steps is None else (steps, len(x))
    names = {module: name for name, module in net.named_modules()}
    saved = {module: dict(vars(module)) for module in names}
    time = Time(total, batch, static=steps is not None, names=names)
    with time_is(time), torch.no_grad():
        net(x.flatten(0, 1) if steps is None else x)
    for module, attributes in saved.items():
        vars(module).update(attributes)
    return Explanation(tuple(
        Row(names[n], type(n).__name__, v.backend, tuple(v.refusals), float((v.spk != 0).float().mean()), v.static)
        for n, v in time.visits.items()
    ))
