"""A network over all time at once."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..neurons._time import Time, time_is


def unroll(net: nn.Module, x: Tensor, *inputs: Any, steps: int | None = None, check: bool = False, **kwargs: Any) -> Any:
    """Run `net` over all time at once; x is [T, B, ...], or [B, ...], the same at each of `steps` steps."""
    total, batch = (len(x), x.shape[1]) if steps is None else (steps, len(x))
    names = {module: name for name, module in net.named_modules()}
    time = Time(total, batch, static=steps is not None, names=names)
    fold = (lambda t: t.flatten(0, 1)) if steps is None else (lambda t: t)
    with time_is(time):
        args, kwargs = tree_map_only(Tensor, fold, ((x, *inputs), kwargs))
        outputs = net(*args, **kwargs)
    return tree_map_only(Tensor, lambda t: t.view(total, batch, *t.shape[1:]), outputs)
