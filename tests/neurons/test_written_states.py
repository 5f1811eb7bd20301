"""States and spikes that a step has returned may be written into before the backward: it has what the step has seen."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..each import for_each
from ..oracle import assert_close
from .zoo import COMPILED, ZOO, made, sequence

Write = Callable[[Tensor, Tensor], None]
"""What is done to a tensor, beside spikes of its shape."""


def _row(t: Tensor, spk: Tensor) -> None:
    t[:, 0] = 0.0


def _where_fired(t: Tensor, spk: Tensor) -> None:
    t[spk.bool()] = 0.0


def _inhibited(t: Tensor, spk: Tensor) -> None:
    t -= 0.3 * spk.detach()


def _floor(t: Tensor, spk: Tensor) -> None:
    t.clamp_(min=-0.1)


def _without_grad(t: Tensor, spk: Tensor) -> None:
    with torch.no_grad():
        t[:, 0] = 0.25
        t.mul_(0.5)


def _by_data(t: Tensor, spk: Tensor) -> None:
    t.data[spk.bool()] = 0.0
    t.data.mul_(0.75)


IN_PLACE: tuple[Write, ...] = (_row, _where_fired, _inhibited, _floor, _without_grad)


def _in_place(t: Tensor, spk: Tensor) -> None:
    for write in IN_PLACE:
        write(t, spk)


WRITES: Mapping[str, Write] = {"in place": _in_place, "by .data": _by_data}


def fired(spk: Tensor, like: Tensor) -> Tensor:
    """Spikes in the shape of a state, which of some neurons is another."""
    return spk.detach().clone() if spk.shape == like.shape else torch.zeros_like(like)


def passed(neuron: Any, xs: Tensor, write: Write) -> list[Tensor]:
    """A loop that carries the states by hand, and writes into each of them, and into the spikes, once they are read."""
    states, outs = list(tree_leaves(neuron.reset_mem())), []
    for x in xs:
        spk, *states = tree_leaves(neuron(x, *states))
        outs += [spk.clone(), *(state.clone() for state in states)]
        beside = spk
        for t in (*states, spk):
            write(t, fired(beside, t))
    return outs


def hidden(neuron: Any, xs: Tensor, write: Write) -> list[Tensor]:
    """A loop over a neuron that keeps its states, which are written into as its attributes."""
    outs = []
    for x in xs:
        spk, *_ = tree_leaves(neuron(x))
        states = [getattr(neuron, name) for name in neuron._state_names()]
        outs += [spk.clone(), *(state.clone() for state in states)]
        for t in states:
            write(t, fired(spk, t))
        if not any(t is spk for t in states):
            write(spk, fired(spk, spk))
    return outs


def gradients(neuron: nn.Module, run: Callable[..., list[Tensor]], xs: Tensor, write: Write) -> dict[str, Tensor]:
    """Of a sum of squares of all that the loop has seen, and the last values."""
    xs = xs.clone().requires_grad_()
    outs = run(neuron, 1.0 * xs, write)
    loss = sum(((1 + i % 5) * out.square()).mean() for i, out in enumerate(outs))
    learned = {"x": xs, **{name: p for name, p in neuron.named_parameters() if p.requires_grad}}
    grads = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    return {"last": outs[-1].detach(), **dict(zip(learned, grads, strict=True))}


ALWAYS_HIDDEN = {"DeltaLeaky"}

READ_BY_THE_LOOP = {"QIF", "Izhikevich", "ResonateFire", "CuBaLIF"}
"""Neurons whose loop saves states also where nothing is learned: a write by .data then changes its gradients."""


LEARNED = ((hidden, {"learn": True}), (passed, {"learn": True}))
FIXED = ((hidden, {}), (passed, {}))
"""A loop, and the neuron's options. What learns has the kernels of `test_every_neuron`. What does not saves less, by
kernels of its own: a neuron of each class stands for the others."""


def neuron_of(name: str, hides: bool, **options: Any) -> Any:
    return made(name, **options, **({} if name in ALWAYS_HIDDEN else {"init_hidden": hides}))


@for_each(
    ("name", "write", "run", "options"),
    [
        (name, write, *setting)
        for name, write in product(ZOO, WRITES)
        for setting in (*LEARNED, *(FIXED if name in COMPILED else ()))
        if not (setting[0] is passed and name in ALWAYS_HIDDEN)
    ],
)
def test_kernels_have_the_gradients_of_the_loop(name, write, run, options):
    """Where the loop's own backward needs a state, as of a product with a learned value, that raises as torch does; the
    kernels have copies."""
    found, xs = {}, sequence(name)
    for backend in ("loop", "numba"):
        torch.manual_seed(0)
        with snn.backend(backend) if name != "NoisyLeaky" else nullcontext():
            try:
                found[backend] = gradients(neuron_of(name, run is hidden, **options), run, xs, WRITES[write])
            except RuntimeError as error:
                if backend == "numba" or "inplace operation" not in str(error):
                    raise
    reads = "learn" in options or name in READ_BY_THE_LOOP
    if "loop" in found and not (reads and write == "by .data"):
        for key, wanted in found["loop"].items():
            assert_close(found["numba"][key], wanted, key)
