"""What a backward finds of what its forward saved, and what it says where it cannot go on."""

from typing import Any

import torch
from torch import Tensor

STALE = (
    "{layer} got a gradient for a state whose graph is already freed: the state was carried over from before the last "
    "backward. Call spikeloom.utils.reset(net) between independent batches, or spikeloom.utils.detach(net) to keep the "
    "values without their history."
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
