"""The tensors that a forward saves for its backward, and the errors raised if the backward cannot use them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .._torch import is_batch_of_gradients, transforms_active

STALE = (
    "{layer} got a gradient for a state whose graph is already freed: the state was carried over from before the last "
    "backward. Call spikeloom.utils.reset(net) between independent batches, or spikeloom.utils.detach(net) to keep the "
    "values without their history."
)
TWICE = (
    "the fused kernels have no second derivative; compute it with the plain loop: "
    "with spikeloom.backend('loop'): ... around the forward pass"
)
BATCHED = (
    "the fused kernels have no backward over a batch of gradients (torch.func.vmap, jacobian(vectorize=True), "
    "is_grads_batched=True); compute it with the plain loop: with spikeloom.backend('loop'): ... around the forward "
    "pass; or one gradient after the other"
)


def saved_tensors_of(ctx: Any) -> tuple[Tensor, ...]:
    """The saved tensors of a node whose context names its `layer`.

    Raises:
        RuntimeError: if an earlier backward has freed them.
    """
    try:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "second time" in str(error):
            raise RuntimeError(STALE.format(layer=ctx.layer)) from error
        raise
    return saved


def batched(grads: Iterable[Tensor | None]) -> bool:
    """Whether gradients are batched, by torch.func.vmap or `is_grads_batched`."""
    return transforms_active() or any(g is not None and is_batch_of_gradients(g) for g in grads)


def saved_by(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, ...]:
    """The saved tensors, see `saved_tensors_of`, for a backward on some gradients that has no form but the kernel.

    Raises:
        RuntimeError: in a sentence, also for what no kernel can do.
    """
    saved = saved_tensors_of(ctx)
    if torch.is_grad_enabled():
        raise RuntimeError(TWICE)
    if batched(grads):
        raise RuntimeError(BATCHED)
    return saved
