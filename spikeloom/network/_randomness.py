"""Random operations that draw nothing: each returns the same for every row, so that two runs can be compared."""

from typing import Any

import torch
from torch import Tensor

from .._torch import DispatchMode, argument_names

DROPOUT = ("dropout_p", "dropout")
"""The names of an argument that turns the randomness of an operation off."""


class NoChance(DispatchMode):
    """Within this context no random operation of torch gives random numbers, and no generator of the caller's moves on.

    Dropout drops nothing. What is drawn around a tensor (Bernoulli, Poisson, normal) is that tensor; any other random
    number is 0.5, any random integer 0.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        names = argument_names(func)
        name = func.overloadpacket.__name__
        off = "p" if name == "native_dropout" else next((n for n in DROPOUT if n in names), None)
        if off is not None:
            given = dict(zip(names, args, strict=False)) | kwargs | {off: 0.0}
            return func(**given)
        generator = kwargs.get("generator")
        before = None if generator is None else generator.get_state()
        out = func(*args, **kwargs)
        if before is not None:
            generator.set_state(before)
        source = None if name.endswith(("_like", "_")) else next((a for a in args if isinstance(a, Tensor)), None)
        for t in (out,) if isinstance(out, Tensor) else out:
            if isinstance(t, Tensor):
                _settle(t, source, name)
        return out


def _settle(t: Tensor, source: Tensor | None, name: str) -> None:
    if source is not None and source.shape == t.shape:
        t.copy_(source)
    elif name == "randperm":
        t.copy_(torch.arange(len(t), device=t.device))
    else:
        t.fill_(0.5 if t.is_floating_point() or t.is_complex() else 0)
