"""What a forward saves for its backward: who sees it, and what is said where the backward does not find it."""

from typing import Any

import torch
from torch import Tensor

from .._torch import saved_hooks

STALE = (
    "{layer} got a gradient for a state whose graph is already freed: the state was carried over from before the last "
    "backward. Call spikeloom.utils.reset(net) between independent batches, or spikeloom.utils.detach(net) to keep the "
    "values without their history."
)
SPENT = (
    "{layer} got a gradient a second time: a backward that has failed has written over what the forward had saved. "
    "Run the forward again."
)
TWICE = (
    "the fused kernels have no second derivative; compute it with the plain loop: "
    "with spikeloom.backend('loop'): ... around the forward pass"
)


def saved_by(ctx: Any) -> tuple[Tensor, ...]:
    """The saved tensors of a scan whose context names its `layer`.

    Raises:
        RuntimeError: in a sentence, if an earlier backward has freed them, or a second derivative is asked for.
    """
    try:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "second time" in str(error):
            raise RuntimeError(STALE.format(layer=ctx.layer)) from error
        raise
    if torch.is_grad_enabled():
        raise RuntimeError(TWICE)
    return saved


class Quiet:
    """Base of what stands as a hook on what autograd saves and shows it to nobody."""


def unseen() -> bool:
    """Whether nobody but autograd sees what is saved now."""
    hooks = saved_hooks()
    return hooks is None or isinstance(hooks[0], Quiet)
