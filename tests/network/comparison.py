"""Unrolled against the loop over steps: outputs, states and every gradient."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..oracle import Outcome, assert_same


def outcome(net: nn.Module, outputs: Any, x: Tensor) -> Outcome:
    """Outputs and states under "spikes", which must be equal; gradients of a weighted sum of all outputs."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    for parameter in (x, *net.parameters()):
        parameter.grad = None
    total = sum((t * torch.linspace(-1, 2, t.numel(), dtype=t.dtype).view(t.shape)).sum() for t in tensors)
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()
    values = {f"output {i}": t.detach() for i, t in enumerate(tensors)}
    neurons = {f"state of {n!r}": m.mem.detach() for n, m in net.named_modules() if isinstance(m, snn.Leaky)}
    named = {"x": x, **dict(net.named_parameters())}
    return Outcome(values, neurons, {n: None if p.grad is None else p.grad.clone() for n, p in named.items()})


def assert_equal(net: nn.Module, ours: Any, twin: nn.Module, theirs: Any, x: Tensor, exact: bool = True) -> None:
    """The unrolled network against its twin, bit for bit; gradients to rounding."""
    wanted = outcome(twin, theirs, x)
    got = outcome(net, ours, x)
    if not exact:
        got, wanted = (Outcome({}, dict(o.spikes) | dict(o.states), o.gradients) for o in (got, wanted))
    assert_same(got, wanted, exact_states=exact)
