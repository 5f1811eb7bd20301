"""More loops for the tests of `fuse`: those that change states, read values, or do what is hard to record."""

from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import spikeloom as snn

from .loops import OUT, B, Loop, N, Parts, T, states_by_hand


def refractory(p: Parts, x: Tensor) -> Any:
    mem, wait, out = p.lif1.init_leaky(), torch.zeros(B, N), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        wait = torch.clamp(wait - 1, min=0) + 2 * spk.detach()
        mem = mem * (wait <= 0)
        out.append(p.fc2(spk))
    return torch.stack(out)


def inhibition_by_hand(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        mem = mem - 0.1 * spk.sum(1, keepdim=True)
        out.append(p.same(spk))
    return torch.stack(out)


def feedback(p: Parts, x: Tensor) -> Any:
    mem1, mem2, spk2, out = p.lif1.init_leaky(), p.lif2.init_leaky(), torch.zeros(B, OUT), []
    for x_t in x:
        spk1, mem1 = p.lif1(p.fc1(x_t) + p.back(spk2), mem1)
        spk2, mem2 = p.lif2(p.fc2(spk1), mem2)
        out.append(p.back(spk2))
    return torch.stack(out)


def recurrence_by_hand(p: Parts, x: Tensor) -> Any:
    mem, spk, out = p.lif1.init_leaky(), torch.zeros(B, N), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t) + p.same(spk), mem)
        out.append(spk)
    return torch.stack(out)


def neuron_by_hand(p: Parts, x: Tensor) -> Any:
    fire, mem, out = snn.surrogate.fast_sigmoid(), torch.zeros(B, N), []
    for x_t in x:
        mem = 0.9 * mem + p.fc1(x_t)
        spk = fire(mem - 0.5)
        mem = mem - spk.detach() * 0.5
        out.append(p.fc2(spk))
    return torch.stack(out)


def norm_per_step(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for step in range(T):
        spk, mem = p.lif1(p.norms[step](p.fc1(x[step])), mem)
        out.append(spk)
    return torch.stack(out)


def norm_and_dropout(p: Parts, x: Tensor) -> Any:
    mem1, mem2, out = p.lif1.init_leaky(), p.lif2.init_leaky(), []
    for x_t in x:
        spk, mem1 = p.lif1(p.norm(p.fc1(x_t)), mem1)
        _, mem2 = p.lif2(p.fc2(p.drop(spk)), mem2)
        out.append(mem2)
    return torch.stack(out)


def many_layers(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(torch.tanh(p.layer_norm(p.fc1(x_t))), mem)
        out.append(functional.log_softmax(p.fc2(spk), dim=-1))
    return torch.stack(out).mean(0)


def over_the_batch(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        cur = p.fc1(x_t)
        spk, mem = p.lif1(cur - cur.mean(0, keepdim=True) + functional.softmax(cur, 0), mem)
        out.append(spk.flip(0) + spk.cumsum(0) + spk[torch.arange(B).flip(0)])
    return torch.stack(out)


def convolutions(p: Parts, x: Tensor) -> Any:
    mem, images, out = p.lif1.init_leaky(), [], []
    mem2 = p.lif2.init_leaky()
    for x_t in x.view(T, B, 1, 2, 3).repeat_interleave(2, 3).repeat_interleave(2, 4):
        spk, mem = p.lif1(p.pool(p.conv(x_t)), mem)
        images.append(spk)
        spk, mem2 = p.lif2(p.head(spk), mem2)
        out.append(spk)
    return torch.stack(images), torch.stack(out)


def loss_in_the_loop(p: Parts, x: Tensor) -> Any:
    mem1, mem2, loss = p.lif1.init_leaky(), p.lif2.init_leaky(), torch.zeros(1)
    for x_t in x:
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        spk, mem2 = p.lif2(p.fc2(spk), mem2)
        loss += functional.cross_entropy(mem2, torch.tensor([0, 1, 2])) / T
    return loss


def values_in_the_loop(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        rate = spk.mean().item()
        if rate > 0.2 and bool(mem.max() > 0):
            spk = spk * rate
        out.append(spk)
    return torch.stack(out)


def ends_early(p: Parts, x: Tensor) -> Any:
    mem, total = p.lif1.init_leaky(), torch.zeros(B, N)
    for step in count():
        spk, mem = p.lif1(p.fc1(x[step % T]), mem)
        total = total + spk
        if total.sum() > 20 or step > 30:
            break
    return total, step


def masks(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        chosen = spk[:, mem[0] > 0].sum()
        out.append(torch.where(mem > 0, spk, -spk) * chosen)
    return torch.stack(out)


def own_function(p: Parts, x: Tensor) -> Any:
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (x * 8).round() / 8

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 1

    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(Round.apply(p.fc1(x_t)), mem)
        out.append(spk)
    return torch.stack(out)


def without_gradients(p: Parts, x: Tensor) -> Any:
    mem, warm, out = p.lif1.init_leaky(), 3, []
    with torch.no_grad():
        for x_t in x[:warm]:
            _, mem = p.lif1(p.fc1(x_t), mem)
    for x_t in x[warm:]:
        with torch.no_grad():
            cur = p.fc1(x_t)
        spk, mem = p.lif1(cur + p.same(cur), mem)
        out.append(spk)
    return torch.stack(out)


def lower_precision(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cur = p.fc1(x_t)
        spk, mem = p.lif1(cur.float(), mem)
        out.append(spk)
    return torch.stack(out)


def stored_elsewhere(p: Parts, x: Tensor) -> Any:
    p.stored = []
    mem = p.lif1.init_leaky()
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        p.stored.append(mem.detach())
    return spk


def several_inputs(p: Parts, x: Tensor) -> Any:
    first, second = list(x), {"second": [x_t * 2 for x_t in x]}
    mem, out = p.lif1.init_leaky(), []
    for x_t, y_t in zip(first, second["second"], strict=True):
        spk, mem = p.lif1(p.fc1(x_t) + p.fc1(y_t), mem)
        out.append(spk)
    return tuple(out)


def hooked(p: Parts, x: Tensor) -> Any:
    seen: list[Tensor] = []
    handle = p.lif1.register_forward_hook(lambda module, args, out: seen.append(out[0].sum()))
    other = p.fc1.register_forward_hook(lambda module, args, out: out * 1.5)
    try:
        return states_by_hand(p, x)[0], torch.stack(seen)
    finally:
        handle.remove()
        other.remove()


def tensor_hooks(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        cur = p.fc1(x_t)
        if cur.requires_grad:
            cur.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
        spk, mem = p.lif1(cur, mem)
        out.append(spk)
    return torch.stack(out)


def in_place(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        cur = p.fc1(x_t)
        cur *= 1.5
        cur.add_(0.1).clamp_(-2, 2)
        spk, mem = p.lif1(cur, mem)
        view = mem.view(-1)
        total = mem + 1
        view.add_(0.05)  # and with it the membrane
        out.append(spk + total)
    return torch.stack(out)


def other_views(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t).unsqueeze(1).squeeze(1).view(B, 2, -1).flatten(1), mem)
        left, right = spk.chunk(2, 1)
        out.append(torch.cat((right, left), 1).t().reshape(N, B).permute(1, 0)[:, None, ::2])
    return torch.stack(out)


def changed_parameters(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    with torch.no_grad():
        for step, x_t in enumerate(x):
            spk, mem = p.lif1(p.fc1(x_t), mem)
            p.fc1.weight.mul_(0.99)
            if step == 3:
                p.lif1.beta = torch.tensor(0.5)
            out.append(spk)
    p.lif1.beta = torch.tensor(0.9)
    return torch.stack(out)


def delays(p: Parts, x: Tensor) -> Any:
    mem, queue, out = p.lif1.init_leaky(), [torch.zeros(B, N)] * 2, []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        queue.append(spk)
        out.append(p.fc2(queue.pop(0)))
    return torch.stack(out)


def only_every_other(p: Parts, x: Tensor) -> Any:
    mem1, mem2, out = p.lif1.init_leaky(), p.lif2.init_leaky(), []
    for step, x_t in enumerate(x):
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        if step % 2 == 0:
            spk2, mem2 = p.lif2(p.fc2(spk), mem2)
        out.append(spk2)
    return torch.stack(out)


def no_steps(p: Parts, x: Tensor) -> Any:
    total = torch.zeros(B, N)
    for x_t in x[:0]:
        total = total + p.fc1(x_t)
    return total + p.gain


ODD_LOOPS: list[Loop] = [
    *(refractory, inhibition_by_hand, feedback, recurrence_by_hand, neuron_by_hand, norm_per_step),
    *(norm_and_dropout, many_layers, over_the_batch, convolutions, loss_in_the_loop, values_in_the_loop),
    *(ends_early, masks, own_function, without_gradients, lower_precision, stored_elsewhere),
    *(several_inputs, hooked, tensor_hooks, in_place, other_views, changed_parameters, delays),
    *(only_every_other, no_steps),
]
"""The table."""
