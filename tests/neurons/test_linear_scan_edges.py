"""The neurons that take whole sequences: dtypes, copies, methods of the user's, and what they refuse."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from .sequences import LAYERS, B, N, T, drawn, every_layer

# -- dtypes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@every_layer
def test_spikes_have_the_dtype_of_the_input_and_half_precision_is_summed_up_in_float32(name, dtype):
    net, x = LAYERS[name](), drawn(T, B, N).to(dtype)
    weights = [child.to(dtype) for child in net.children()]
    assert weights or "State" in name
    outs = tree_leaves(net(x))
    wanted = torch.float32 if x.element_size() == 2 else dtype
    mem = outs.pop() if name.startswith(("State", "Linear")) else None
    assert mem is None or mem.dtype == wanted
    assert [out.dtype for out in outs] == [dtype] * len(outs)


def test_integers_become_the_default_dtype():
    spk, mem = snn.StateLeaky(0.9, N)(torch.ones(T, B, N, dtype=torch.int64))
    assert spk.dtype == mem.dtype == torch.float32


# -- methods, copies ---------------------------------------------------------------------------------------------------


class Louder(snn.StateLeaky):
    def fire(self, mem: Tensor) -> Tensor:
        return 7 * (mem > self.threshold).to(mem.dtype)


class Twice(snn.StateLeaky):
    def forward(self, input_: Tensor) -> Any:
        return super().forward(2 * input_)


def test_methods_of_a_subclass_are_honoured():
    x = drawn(T, B, N)
    assert set(Louder(0.9, N, exact=True)(x)[0].unique().tolist()) == {0.0, 7.0}
    wanted = snn.StateLeaky(0.9, N)(2 * x)
    for outs in (Twice(0.9, N)(x), snn.unroll(Twice(0.9, N), x)):
        assert all(map(torch.equal, outs, wanted))


@every_layer
def test_it_is_copied_saved_and_moved(name):
    net, x = LAYERS[name](), drawn(T, B, N)
    outs = tree_leaves(net(x))  # a copy is made with the graph of what was returned still there
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert any(twin is other for other in snn.SpikingNeuron.instances)
        assert all(map(torch.equal, tree_leaves(twin(x)), outs))
    assert all(out.dtype == torch.float64 for out in tree_leaves(net.double()(x.double())))
    snn.utils.reset(net)
    snn.utils.detach(net)


def test_linear_leaky_is_reset_to_zeros_and_detached():
    net = snn.LinearLeaky(0.9, N, 5)
    net(drawn(T, B, N))
    snn.utils.detach(net)
    assert not net.mem.requires_grad
    assert net.mem.any()
    snn.utils.reset(net)
    assert not net.mem.any()
    assert net.mem.shape == net.spk.shape == (T, B, 5)


# -- what is refused ---------------------------------------------------------------------------------------------------

BAD: Mapping[str, tuple[Callable[[], Any], str]] = {
    "a step": (lambda: snn.StateLeaky(0.9, N)(drawn(B, N)), r"shape \(3, 4\); pass a whole sequence, \[T, B, N\]"),
    "images": (lambda: snn.StateLeaky(0.9, N)(drawn(T, B, 2, N)), "pass a whole sequence"),
    "a step of LinearLeaky": (lambda: snn.LinearLeaky(0.9, N, 2)(drawn(B, N)), "pass a whole sequence"),
    "a step of AssociativeLeaky": (lambda: snn.AssociativeLeaky(N, 2, 2, 4)(drawn(B, N)), "pass a whole sequence"),
    "a vector": (lambda: snn.LeakyParallel(N, 2)(drawn(N)), "pass a whole sequence"),
    "images, unrolled": (lambda: snn.unroll(snn.StateLeaky(0.9, N), drawn(T, B, 2, N)), "pass a whole sequence"),
    "beta of another length": (
        lambda: snn.StateLeaky(torch.rand(3), N),
        r"beta of shape \(3,\); pass one number, or 4",
    ),
    "channels that beta has not": (lambda: snn.StateLeaky(torch.rand(N), N)(drawn(T, B, 3)), "must broadcast"),
    "a window of nothing": (lambda: snn.StateLeaky(0.9, N, kernel_truncation_steps=0), "=0; pass a number of steps"),
    "half a step": (lambda: snn.StateLeaky(0.9, N, kernel_truncation_steps=2.5), "=2.5; pass a number of steps"),
    "a beta of LeakyParallel": (lambda: snn.LeakyParallel(N, 5, torch.rand(4)), "pass one number, or 5 of them"),
    "another number of neurons": (lambda: snn.AssociativeLeaky(N, 2, 3, 7), "pass their product, 6"),
    "no square": (lambda: snn.AssociativeLeaky.from_num_spiking_neurons(N, 15), "pass a square number, such as 16"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_in_a_sentence(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@every_layer
def test_a_check_against_single_steps_is_refused_as_there_are_none(name):
    net = nn.Sequential(nn.Linear(N, N), LAYERS[name]())
    with pytest.raises(TypeError, match=r"compares with single steps, which '1' \(\w+\) does not support"):
        snn.unroll(net, drawn(T, B, N), check=True)


def test_the_form_of_a_layer_is_chosen_when_it_is_made():
    with pytest.raises(AttributeError):
        snn.StateLeaky(0.9, N).exact = True


def test_a_second_call_in_one_forward_is_refused():
    class Twofold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.StateLeaky(0.9, N, output=False)

        def forward(self, x: Tensor) -> Any:
            return self.lif(self.lif(x))

    with pytest.raises(RuntimeError, match=r"'lif' \(StateLeaky\) is called twice"):
        snn.unroll(Twofold(), drawn(T, B, N))
