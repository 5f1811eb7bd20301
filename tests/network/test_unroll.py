"""What unroll promises besides equality: what comes back, what is static, what is refused, what stays as it was."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from .networks import NETWORKS, Branches, Residual, leaky, quarters, stepped, twins


class Lambda(nn.Module):
    """A forward given as a function of the module and its input; holds a Linear and a neuron."""

    def __init__(self, forward, **options):
        super().__init__()
        self.fc, self.lif, self.does = nn.Linear(6, 6), leaky(**options), forward

    def forward(self, *args, **kwargs):
        return self.does(self, *args, **kwargs)


# -- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("learning", [True, False])
def test_detach_works_on_whatever_unroll_returns(learning, static):
    net = Branches()
    x = torch.rand(3, 6) if static else torch.rand(5, 3, 6)
    with torch.set_grad_enabled(learning):
        outs = snn.unroll(net, x.requires_grad_(), steps=5 if static else None)
    for out in (outs["logits"], outs["spikes"][0], outs["input"]):
        assert out.shape[:2] == (5, 3)
        assert out.requires_grad == learning
        out.detach_()
        assert not out.requires_grad
    assert outs["spikes"][1] is None


def test_results_are_not_copied():
    seen = []
    net = nn.Sequential(leaky())
    net[0].register_forward_hook(lambda module, args, out: seen.append(out.data_ptr()))
    assert snn.unroll(net, torch.rand(5, 3, 6)).data_ptr() == seen[0]


def test_a_write_into_a_result_that_backward_needs_is_noticed():
    net = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
    out = snn.unroll(net, torch.rand(5, 3, 6))
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize(("options", "count"), [({}, 1), ({"output": True}, 2), ({"init_hidden": False}, 2)], ids=str)
def test_a_neuron_returns_what_its_step_returns(options, count):
    outs = snn.unroll(leaky(**options), torch.rand(5, 3, 6))
    assert (1 if isinstance(outs, torch.Tensor) else len(outs)) == count


def test_further_inputs_are_sequences_too():
    net = Lambda(lambda self, x, other, scale, add=None: self.lif(self.fc(x) * scale + other["y"] + add))
    x, y, add = torch.rand(3, 5, 2, 6).unbind(0)
    got = snn.unroll(net, x, {"y": y}, 2, add=add)
    snn.utils.reset(net)
    assert torch.allclose(got, torch.stack([net(x[t], {"y": y[t]}, 2, add=add[t]) for t in range(5)]))


def test_static_further_inputs_and_numbers():
    net = Lambda(lambda self, x, y, scale: self.lif(self.fc(x) * scale + y))
    x, y = torch.rand(2, 4, 6).unbind(0)
    got = snn.unroll(net, x, y, torch.tensor(2.0), steps=5)
    snn.utils.reset(net)
    assert torch.allclose(got, torch.stack([net(x, y, torch.tensor(2.0)) for _ in range(5)]))


# -- static inputs ----------------------------------------------------------------------------------------------------


def rows_seen(net, x, steps):
    """The rows that the first Linear sees."""
    seen = []
    linear = next(m for m in net.modules() if isinstance(m, nn.Linear))
    handle = linear.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    out = snn.unroll(net, x, steps=steps)
    handle.remove()
    return seen[-1], out


class Plain(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


STATIC = {
    "a sequence": (lambda: nn.Sequential(nn.Linear(6, 6), leaky()), True),
    "a module of its own": (lambda: Plain(nn.Linear(6, 6), leaky()), True),
    "branches": (Branches, True),
    "no neurons": (lambda: Plain(nn.Linear(6, 6)), True),
    "dropout after the first neuron": (lambda: Plain(nn.Linear(6, 6), leaky(), nn.Dropout(), nn.Linear(6, 2)), True),
    "dropout before it": (lambda: Plain(nn.Linear(6, 6), nn.Dropout(), leaky()), False),
    "dropout in a sequence": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(), leaky()), False),
    "noise of the forward's own": (lambda: Lambda(lambda s, x: s.lif(s.fc(x) + torch.randn(len(x), 6))), False),
    "noise of a generator": (
        lambda: Lambda(lambda s, x: s.lif(s.fc(x) + torch.randn(len(x), 6, generator=torch.Generator()))),
        False,
    ),
    "noise of numpy": (
        lambda: Lambda(lambda s, x: s.lif(s.fc(x) + torch.from_numpy(np.random.rand(len(x), 6)).float())),
        False,
    ),
    "a residual around the first neuron": (Residual, False),
    "a swallowed refusal": (lambda: Lambda(swallowing), False),
    "rows lost to a batch size of the input": (
        lambda: Lambda(lambda s, x: s.lif(s.fc(x)).view(len(x), 6, -1)[..., 0]),
        False,
    ),
}


def swallowing(self, x):
    current = self.fc(x)
    try:
        return self.lif(current) + current
    except Exception:
        return current


@pytest.mark.parametrize("case", STATIC)
def test_the_static_prefix_runs_once_where_it_may(case):
    make, once = STATIC[case]
    for _ in range(2):  # the second time it may be known
        net = make()
        rows, out = rows_seen(net, torch.rand(4, 6), 5)
        rows, out = rows_seen(net, torch.rand(4, 6), 5)
        assert rows == (4 if once else 20)
        assert out["logits"].shape[:2] == (5, 4) if isinstance(out, dict) else True


def test_a_layer_that_draws_before_the_first_neuron_draws_at_every_step():
    out = snn.unroll(nn.Sequential(nn.Dropout(), leaky(beta=0.0)), torch.full((2, 50), 3.0), steps=8)
    assert not torch.equal(out[0], out[1])


def test_a_second_attempt_starts_from_where_the_first_did():
    """Random numbers, statistics, states and attributes are those of a single run."""

    class Counting(Residual):
        def __init__(self):
            super().__init__()
            self.norm, self.calls = nn.BatchNorm1d(6), 0

        def forward(self, x):
            self.calls += 1
            return super().forward(self.norm(x) + torch.rand(()))

    net, twin = twins(Counting)
    x = quarters(4, 6)
    torch.manual_seed(1)
    ours = snn.unroll(net, x, steps=5)
    torch.manual_seed(1)
    theirs = snn.unroll(twin, x.expand(5, 4, 6))
    assert torch.equal(ours[1], theirs[1])
    assert net.calls == twin.calls == 1
    assert torch.equal(net.norm.running_mean, twin.norm.running_mean)
    assert net.norm.num_batches_tracked == 1


@pytest.mark.parametrize("wrap", [nn.Sequential, Plain])
def test_a_static_input_is_never_repeated_in_memory(wrap):
    """One step is 40 kB, the sequence would be 40 MB: the scan gets a single step, and so does the gradient."""
    lif = leaky()
    seen = []
    original = snn.neurons._forward.choose

    def choose(call):
        seen.append(call.x)
        return original(call)

    snn.neurons._forward.choose = choose
    try:
        out = snn.unroll(wrap(nn.Linear(6, 100), lif), torch.rand(100, 6), steps=1000)
    finally:
        snn.neurons._forward.choose = original
    assert seen[0].shape == (1, 100, 100)
    grad = torch.autograd.grad(out.sum(), seen[0])[0]
    assert grad.shape == (1, 100, 100)


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "states by hand": (lambda s, x: s.lif(s.fc(x), torch.zeros(4, 6)), {"init_hidden": False}, "'lif' .* as arguments"),
    "twice": (lambda s, x: s.lif(s.lif(s.fc(x))), {}, "'lif' .* called twice"),
    "a batch size": (lambda s, x: s.lif(s.fc(x).reshape(4, -1)), {}, "'lif' .*dimension 0 must be 5 \\* 4 = 20"),
    "a loss": (lambda s, x: (s.lif(s.fc(x)), x.mean()), {}, "output\\[1\\] .* shape \\(\\)"),
    "an unroll inside": (lambda s, x: snn.unroll(s.lif, x.unsqueeze(0)), {}, "outermost"),
}


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_unrolled_is_refused_and_changes_nothing(case, static):
    forward, options, sentence = REFUSED[case]
    net = nn.Sequential(nn.BatchNorm1d(6), leaky(output=False), Lambda(forward, **options))
    net[1].mem = torch.ones(4, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}, net[1].mem
    sentence = sentence.replace("'lif'", "'2.lif'")
    with pytest.raises((TypeError, ValueError, RuntimeError), match=sentence):
        snn.unroll(net, torch.rand(4, 6), steps=5) if static else snn.unroll(net, torch.rand(5, 4, 6))
    assert net[1].mem is before[1]
    assert net[0].num_batches_tracked == 0
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before[0].items())
    assert snn.neurons._unrolled_run.current_run() is None


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        ((torch.rand(5),), {}, ValueError, "T, B"),
        ((torch.rand(()),), {"steps": 3}, ValueError, "steps=T"),
        ((torch.rand(5, 4, 6),), {"steps": -1}, ValueError, "zero or more"),
        ((torch.rand(5, 4, 6),), {"steps": 2.0}, TypeError, "whole number"),
        ((torch.rand(5, 4, 6),), {"steps": True}, TypeError, "whole number"),
        (("x",), {}, TypeError, "no tensor"),
        ((torch.rand(5, 4, 6), torch.rand(5, 3, 6)), {}, ValueError, "input 1 .* starts with \\(5, 4\\)"),
        ((torch.rand(5, 4, 6),), {"mask": torch.rand(6, 6)}, ValueError, "mask .* buffer"),
    ],
    ids=lambda value: str(value) if isinstance(value, (str, type)) else "",
)
def test_bad_arguments_are_refused_in_sentences(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        snn.unroll(nn.Sequential(nn.Linear(6, 2)), *arguments, **options)


@pytest.mark.parametrize("wrap", [nn.Sequential, Plain])
def test_rows_that_fit_by_chance_are_refused(wrap):
    """With as many steps as columns, a flattened static input has T*B rows."""
    with pytest.raises(ValueError, match="dimension 0 must be"):
        snn.unroll(wrap(nn.Flatten(0), leaky()), torch.rand(4, 6), steps=6)


def test_only_a_network_can_be_unrolled():
    with pytest.raises(TypeError, match=r"nn\.Module"):
        snn.unroll(torch.relu, torch.rand(5, 4, 6))


def test_an_error_of_the_forward_says_that_the_network_was_unrolled():
    with pytest.raises(RuntimeError) as caught:
        snn.unroll(nn.Linear(7, 2), torch.rand(5, 4, 6))
    assert "5 steps of 4 rows" in caught.value.__notes__[0]


# -- layers with rules of their own -----------------------------------------------------------------------------------


def test_batchnorm_in_training_sees_all_steps_and_updates_once():
    net = nn.Sequential(nn.BatchNorm1d(6, momentum=1.0), leaky())
    x = torch.rand(5, 4, 6)
    snn.unroll(net, x)
    assert net[0].num_batches_tracked == 1
    assert torch.allclose(net[0].running_mean, x.mean((0, 1)))


def test_batchnorm_in_evaluation_is_that_of_the_loop():
    net, twin = twins(lambda: nn.Sequential(nn.BatchNorm1d(6, eps=3.0), leaky(output=True)))  # halves, without rounding
    x = quarters(5, 4, 6)
    assert torch.equal(snn.unroll(net.eval(), x)[1], stepped(twin.eval(), x)[1])


def test_hooks_fire_once_on_sequences():
    net, shapes = NETWORKS["a sequence of layers"](), []
    for layer in net:
        layer.register_forward_hook(lambda module, args, out: shapes.append(tuple(args[0].shape)))
    snn.unroll(net, torch.rand(5, 4, 6))
    assert shapes == [(20, 6), (20, 5), (20, 5), (20, 4)]


class OwnForward(snn.Leaky):
    def forward(self, input_, mem=None):
        spk, mem = super().forward(input_ * 2, mem)
        return spk, mem


class OwnFire(snn.Leaky):
    def fire(self, mem):
        return self.spike_grad(mem - self.threshold * 2)


@pytest.mark.parametrize("kind", [OwnForward, OwnFire])
@pytest.mark.parametrize("steps", [None, 5])
def test_a_users_own_neuron_runs_by_its_own_methods(kind, steps):
    net, twin = twins(lambda: nn.Sequential(nn.Linear(6, 6), kind(beta=0.5, init_hidden=True, output=True)))
    x = quarters(4, 6) if steps else quarters(5, 4, 6)
    assert torch.equal(snn.unroll(net, x, steps=steps)[0], stepped(twin, x, steps)[0])
    assert snn.explain(net, x, steps=steps).rows[1].backend == "loop"


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_follow_the_input_and_states_are_wide_enough(dtype, static):
    net = nn.Sequential(leaky(output=True))
    x = torch.rand(4, 6).to(dtype) if static else torch.rand(5, 4, 6).to(dtype)
    spk, mem = snn.unroll(net, x, steps=5 if static else None)
    assert spk.dtype == dtype
    assert mem.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("make", [lambda: NETWORKS["a sequence of layers"](), Residual])
def test_autocast_and_inference_mode(make):
    net = make()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        spk, mem = snn.unroll(net, torch.rand(4, 6), steps=5)
    assert (spk.dtype, mem.dtype) == (torch.bfloat16, torch.float32)
    snn.unroll(net, torch.rand(4, 6), steps=5)[1].sum().backward()


def test_two_threads_unroll_two_networks():
    x = quarters(30, 4, 6)
    nets = [twins(Residual) for _ in range(2)]
    wrong = []

    def work(net, twin, length):
        for _ in range(20):
            snn.utils.reset(net), snn.utils.reset(twin)
            if not torch.equal(snn.unroll(net, x[:length])[1], stepped(twin, x[:length])[1]):
                wrong.append(length)

    threads = [threading.Thread(target=work, args=(*pair, n)) for pair, n in zip(nets, (3, 7), strict=True)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert not wrong


def test_reset_and_detach_reach_every_neuron_and_a_bare_one():
    net = nn.Sequential(Residual(), leaky())
    lif = leaky()
    for module, shape in ((nn.Sequential(net[0]), (5, 4, 6)), (lif, (5, 4, 6))):
        snn.unroll(module, torch.rand(*shape).requires_grad_())
        neurons = [m for m in module.modules() if isinstance(m, snn.Leaky)]
        snn.utils.detach(module)
        assert all(not n.mem.requires_grad and n.mem.shape == (4, 6) for n in neurons)
        snn.utils.reset(module)
        assert all(not n.mem.any() for n in neurons)
    with pytest.raises(TypeError, match=r"nn\.Module"):
        snn.utils.reset(torch.relu)
