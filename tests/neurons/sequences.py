"""Layers that take whole sequences, ready to be made, for the tests that run over all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..oracle import Outcome

T, B, N = 15, 3, 4


def touchy(memory: snn.AssociativeLeaky) -> snn.AssociativeLeaky:
    """With a threshold that its random first weights reach."""
    memory.threshold.fill_(0.1)
    return memory


def quantised(mem: Tensor) -> Tensor:
    """To eighths, with the gradient of the identity."""
    return mem + ((mem * 8).round() / 8 - mem).detach()


LAYERS: Mapping[str, Callable[..., Any]] = {
    "StateLeaky": lambda: snn.StateLeaky(0.8, N),
    "StateLeaky, exact": lambda: snn.StateLeaky(0.8, N, exact=True),
    "StateLeaky, membranes": lambda: snn.StateLeaky(0.8, N, output=False),
    "StateLeaky, truncated": lambda: snn.StateLeaky(0.8, N, kernel_truncation_steps=4),
    "StateLeaky, learned": lambda: snn.StateLeaky(
        torch.linspace(0.2, 0.9, N), N, learn_beta=True, learn_threshold=True, graded_spikes_factor=1.5
    ),
    "StateLeaky, quantised": lambda: snn.StateLeaky(0.8, N, state_quant=quantised),
    "LinearLeaky": lambda: snn.LinearLeaky(0.8, N, 5),
    "LeakyParallel": lambda: snn.LeakyParallel(N, 5, 0.8, threshold=0.5),
    "LeakyParallel, full": lambda: snn.LeakyParallel(
        N, 5, threshold=0.5, learn_beta=True, learn_threshold=True, weight_hh_enable=True
    ),
    "AssociativeLeaky": lambda: touchy(snn.AssociativeLeaky(N, 3, 2, 6)),
    "AssociativeLeaky, spikes": lambda: touchy(snn.AssociativeLeaky(N, 3, 2, 6, use_q_projection=False)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def drawn(*shape: int, seed: int = 5) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.4


def outcome(net: Any, run: Callable[[Any, Tensor], Any], x: Tensor) -> Outcome:
    """What a network returns, and the gradients of a weighted sum of it."""
    x = x.clone().requires_grad_()
    outs = {f"output {i}": out for i, out in enumerate(tree_leaves(run(net, x)))}
    total = sum((out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum() for out in outs.values())
    learned = {"x": x, **{name: p for name, p in net.named_parameters() if p.requires_grad}}
    grads = torch.autograd.grad(total, list(learned.values()))
    return Outcome({}, {k: out.detach() for k, out in outs.items()}, dict(zip(learned, grads, strict=True)))
