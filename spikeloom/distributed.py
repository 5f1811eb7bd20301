"""Helpers for FSDP2 (`torch.distributed.fsdp.fully_shard`). DDP does not need them.

States are neither parameters nor buffers, so they are not exchanged between processes.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["average_gradients", "scalars"]


def scalars(net: nn.Module) -> list[nn.Parameter]:
    """Return the zero-dimensional parameters, such as a learned decay or threshold, which fully_shard cannot shard.

    Each process holds a full copy. Pass them to every call of fully_shard as ``ignored_params=set(...)``, and call
    `average_gradients` after each backward.

    Args:
        net: the network.

    Returns:
        the parameters without dimensions, each once, in the order of ``net.parameters()``.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, learn_beta=True))
        >>> snn.distributed.scalars(net)
        [Parameter containing:
        tensor(0.9000, requires_grad=True)]
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"scalars expects a network, an nn.Module; got {type(net).__name__}")
    return [p for p in net.parameters() if not p.dim()]


def average_gradients(params: Iterable[nn.Parameter], group: Any = None) -> None:
    """Replace each gradient by its mean over all processes, in a single all-reduce.

    Every process of the group must call it, with the same parameters in the same order. A missing gradient counts as
    zero; if no process has one, it stays None.

    Args:
        params: unsharded parameters, such as `scalars`.
        group: the process group. Default: None, all processes.

    Raises:
        TypeError: if a parameter is sharded by fully_shard, which averages its gradient itself.
        RuntimeError: without a process group.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Leaky(beta=0.9, learn_beta=True)
        >>> snn.distributed.average_gradients(snn.distributed.scalars(lif))
        Traceback (most recent call last):
        ...
        RuntimeError: average_gradients needs a process group; call torch.distributed.init_process_group first
    """
    learned = [p for p in params if p.requires_grad]
    for p in learned:
        if hasattr(p, "full_tensor"):
            raise TypeError(f"a parameter of shape {tuple(p.shape)} is sharded by FSDP, which averages its gradient")
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError("average_gradients needs a process group; call torch.distributed.init_process_group first")

    if not learned:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in learned]
    dtype = torch.float64 if any(g.dtype is torch.float64 for g in grads) else torch.float32
    present = torch.tensor([p.grad is not None for p in learned], dtype=dtype, device=grads[0].device)
    message = torch.cat([*(g.flatten().to(dtype) for g in grads), present])
    dist.all_reduce(message, group=group)
    *totals, having = message.split([*(g.numel() for g in grads), len(learned)])
    for p, grad, total, any_has in zip(learned, grads, totals, having.tolist(), strict=True):
        if any_has:
            mean = total.view(grad.shape).to(grad.dtype) / dist.get_world_size(group)
            p.grad = mean if p.grad is None else p.grad.copy_(mean)
