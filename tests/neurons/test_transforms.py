"""Second derivatives, batches of gradients, torch.func and forward-mode differentiation: as the plain loop, or a
sentence."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.functional import hvp, jacobian
from torch.func import grad, jacfwd, jacrev, jvp, vmap
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..each import for_each
from ..oracle import assert_close
from .running import WAYS
from .zoo import ZOO, made, sequence

# forward-mode differentiation loads torch's scripted decompositions
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")

STEPS = 3
REFUSED = ("RLeaky through Linear", "RSynaptic through Linear", "RALIF through Linear", "SLSTM", "SConv2dLSTM")
"""What is refused at once, where the scan over all steps has no backward but the kernel."""

SENTENCE = r"spikeloom\.backend\('loop'\)"
DRAWS = ("NoisyLeaky",)
each = for_each(("run", "name"), product(WAYS.values(), [name for name in ZOO if name not in DRAWS]))
"""Every neuron in both ways, with the options of `test_every_neuron`, so that the kernels are the same."""


def outputs_of(neuron: Any, run: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """From a sequence to a few sums of all that the neuron returns, each step with a weight of its own."""

    def outputs(xs: Tensor) -> Tensor:
        snn.utils.reset(neuron)
        leaves = [out.flatten(1) for out in tree_leaves(run(neuron, xs))]
        weight = torch.arange(1, STEPS + 1, dtype=xs.dtype).unsqueeze(1)
        return torch.stack([(weight * out + out * out).sum(0)[::3].sum() for out in leaves])

    return outputs


def given(name: str) -> tuple[Any, Tensor]:
    options = {} if name == "DeltaLeaky" else {"init_hidden": True}
    return made(name, learn=True, output=True, **options), sequence(name, steps=STEPS)


def wanted_of(neuron: Any, xs: Tensor) -> Tensor:
    with snn.backend("loop"):
        wanted: Tensor = jacobian(outputs_of(neuron, WAYS["by steps"]), xs)
    return wanted


def tangent(f: Callable[[Tensor], Tensor], xs: Tensor, v: Tensor) -> Tensor:
    with forward_ad.dual_level():
        found: Tensor = forward_ad.unpack_dual(f(forward_ad.make_dual(xs, v))).tangent
    return found


def pulled_at_once(f: Callable[[Tensor], Tensor], xs: Tensor) -> Tensor:
    xs = xs.clone().requires_grad_()
    out = f(xs)
    return torch.autograd.grad(out, xs, torch.eye(len(out), dtype=out.dtype), is_grads_batched=True)[0]


@each
def test_torch_func_and_tangents_see_through_every_neuron(name, run):
    neuron, xs = given(name)
    f, wanted = outputs_of(neuron, run), wanted_of(neuron, xs)
    v = torch.rand(xs.shape, generator=torch.Generator().manual_seed(2), dtype=xs.dtype)
    along = (wanted * v).flatten(1).sum(1)
    assert_close(jacrev(f)(xs), wanted, "jacrev")
    assert_close(jacfwd(f)(xs), wanted, "jacfwd")
    assert_close(jvp(f, (xs,), (v,))[1], along, "jvp")
    assert_close(tangent(f, xs, v), along, "a tangent")
    pair = torch.stack([xs, xs]).requires_grad_()
    assert_close(torch.autograd.grad(vmap(f)(pair)[1].sum(), pair)[0][1], wanted.sum(0), "vmap over the input")
    assert_close(vmap(grad(lambda xs: f(xs).sum()))(pair)[1], wanted.sum(0), "vmap of grad")


@each
def test_a_batch_of_gradients_goes_back_at_once(name, run):
    neuron, xs = given(name)
    f, wanted = outputs_of(neuron, run), wanted_of(neuron, xs)
    if run is WAYS["at once"] and name in REFUSED:
        with pytest.raises(RuntimeError, match=SENTENCE):
            jacobian(f, xs, vectorize=True)
        return
    assert_close(jacobian(f, xs, vectorize=True), wanted, "jacobian")
    assert_close(pulled_at_once(f, xs), wanted, "is_grads_batched")


@each
def test_second_derivatives_are_those_of_the_loop(name, run):
    neuron, xs = given(name)
    v = torch.rand(xs.shape, generator=torch.Generator().manual_seed(2), dtype=xs.dtype)

    def penalty() -> tuple[Tensor, ...]:
        x = xs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
        learned = [p for p in neuron.parameters() if p.requires_grad]
        return torch.autograd.grad(slope.square().sum(), [x, *learned], allow_unused=True)

    f = outputs_of(neuron, run)
    with snn.backend("loop"):
        wanted = (*penalty(), hvp(lambda x: f(x).sum(), xs, v)[1])
    if run is WAYS["at once"] and name in REFUSED:
        with pytest.raises(RuntimeError, match=SENTENCE):
            penalty()
        return
    for i, (got, theirs) in enumerate(zip((*penalty(), hvp(lambda x: f(x).sum(), xs, v)[1]), wanted, strict=True)):
        scale = 1.0 if theirs is None else theirs.abs().max().clamp(min=1.0)
        assert_close(
            None if got is None else got / scale, None if theirs is None else theirs / scale, f"derivative {i}"
        )


AFTER_VMAP = {
    "a step": lambda neuron, xs: neuron(xs[0]),
    "a run": lambda neuron, xs: snn.unroll(neuron, xs),
    "grad": lambda neuron, xs: grad(lambda x: tree_leaves(neuron(x))[0].sum())(xs[0]),
    "jvp": lambda neuron, xs: jvp(lambda x: tree_leaves(neuron(x))[0], (xs[0],), (xs[0],)),
    "a vmap over less": lambda neuron, xs: vmap(neuron)(xs[:1]),
    "a vmap within grad": lambda neuron, xs: grad(lambda x: tree_leaves(vmap(neuron)(x))[0].sum())(xs),
}


@pytest.mark.parametrize("then", AFTER_VMAP)
@pytest.mark.parametrize("name", ["Leaky", "Synaptic", "RLeaky through Linear", "SLSTM", "Izhikevich"])
def test_states_of_a_vmap_that_is_over_are_refused_until_a_reset(name, then):
    neuron, xs = given(name)
    vmap(neuron)(xs)
    with pytest.raises(RuntimeError, match=r"holds a state of a torch\.func\.vmap that has ended; call"):
        AFTER_VMAP[then](neuron, xs)
    snn.utils.reset(neuron)
    got = tree_leaves(AFTER_VMAP[then](neuron, xs))[0]
    wanted = tree_leaves(AFTER_VMAP[then](given(name)[0].train(), xs))[0]
    assert got.shape == wanted.shape


def test_the_first_backward_may_follow_the_second():
    """The graph of a differentiated backward goes on reading what the forward has saved."""
    xs = torch.rand(40, 16, 512, requires_grad=True)
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    spk = snn.unroll(lif, xs)
    (slope,) = torch.autograd.grad(spk.square().sum(), xs, create_graph=True)
    wanted = torch.autograd.grad(slope.square().sum(), xs, retain_graph=True)[0]
    spk.square().sum().backward(retain_graph=True)
    assert torch.equal(torch.autograd.grad(slope.square().sum(), xs)[0], wanted)


@pytest.mark.parametrize("which", ["sequence", "last state"])
def test_writes_into_what_unroll_returns_raise_where_its_backward_needs_it(which):
    xs = torch.rand(5, 3, 4, requires_grad=True)
    lif = snn.Leaky(beta=0.9, init_hidden=True, output=True)
    spk, mem = snn.unroll(lif, xs)
    loss = spk.sum() + mem.sum()
    if which == "sequence":
        mem[:, 0] = 0.0
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    else:
        with torch.no_grad():
            lif.mem[:, 0] = 0.0
        loss.backward()
