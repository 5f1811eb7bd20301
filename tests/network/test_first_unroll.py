"""The first unroll of a network checks itself: what would be wrong raises and is named, what is right passes."""

import copy
import gc
import random
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.network._known_layers import is_row_by_row

from .networks import leaky
from .right_and_wrong import (
    BATCH,
    RIGHT,
    STEPS,
    WIDTH,
    WRONG,
    Net,
    Residual,
    data,
    feedback_in_an_object,
    loop,
    unrolled,
    wide,
)


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("case", WRONG)
def test_a_network_that_would_be_wrong_raises_at_its_first_unroll(case, static):
    torch.manual_seed(0)
    make, sentence = WRONG[case]
    net, again = make(), make()
    again.load_state_dict(net.state_dict())
    if static:  # what works on a single static input, as a mean over its rows, is right
        try:
            wanted = loop(again, static)
            wanted = wanted[:, 0] if wanted.dim() == 4 else wanted
            snn.utils.reset(again)
            again = make()
            again.load_state_dict(net.state_dict())
            if torch.allclose(unrolled(again, static, check=False), wanted, atol=1e-4):
                return
        except (RuntimeError, ValueError):
            pass
    for _ in range(2):  # it goes on raising
        with pytest.raises((RuntimeError, ValueError), match=sentence):
            unrolled(net, static)


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("case", RIGHT)
def test_a_network_that_is_right_passes(case, static, check):
    torch.manual_seed(0)
    net = RIGHT[case]()
    x, steps = data(static), STEPS if static else None
    snn.unroll(net, x, steps=steps, check=check)
    snn.utils.reset(net)
    assert not snn.explain(net, x, steps=steps).unchecked


@pytest.mark.parametrize("check", [None, True])
def test_a_forward_may_write_to_its_input(check):
    net = Net(lambda s, x: s.head(s.spikes(x.mul_(2))))
    assert unrolled(net, check=check).shape == (STEPS, BATCH, WIDTH)


# -- what the comparison leaves ----------------------------------------------------------------------------------------


class Everything(nn.Module):
    """Draws, counts, appends, prints into a list, normalizes, writes to tensors in place and keeps states."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.lif = nn.BatchNorm1d(WIDTH), nn.Dropout(), wide()
        self.log, self.store, self.trace = [], SimpleNamespace(seen={}), torch.zeros(WIDTH)
        self.generator, self.numbers, self.python = torch.Generator(), np.random.default_rng(0), random.Random(0)

    def forward(self, x):
        self.log.append(len(x))
        self.store.seen[len(self.log)] = tuple(x.shape)
        self.trace.add_(1)
        noise = torch.rand(x.shape, generator=self.generator)
        return self.lif(self.drop(self.norm(x + noise)))


def everything(net):
    generators = net.generator.get_state().tolist(), str(net.numbers.bit_generator.state), net.python.getstate()
    kept = net.log, net.store.seen, net.trace.tolist(), net.norm.running_mean.tolist(), net.lif.mem.tolist()
    drawn = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    return copy.deepcopy((generators, kept, drawn, net.norm.num_batches_tracked.item()))


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_the_comparison_leaves_what_the_run_alone_would_leave(checkpoint, static, check):
    ends = []
    for how in (False, check):
        torch.manual_seed(0)
        net = Everything()
        out = unrolled(net, static, check=how, checkpoint=checkpoint)
        ends.append((out.tolist(), everything(net)))
    assert ends[0] == ends[1]
    assert all(m.training for m in net.modules())


def test_a_difference_leaves_the_network_as_it_was():
    net = Net(feedback_in_an_object, store=SimpleNamespace(last=0.0))
    net.list, mem = [1], net.lif.mem
    with pytest.raises(RuntimeError):
        unrolled(net)
    assert net.store.last == 0.0
    assert net.lif.mem is mem


def clipped(self, x):
    self.fc.weight.data.clamp_(-0.2, 0.2)
    return self.head(self.spikes(x))


def normed(self, x):
    with torch.no_grad():
        self.fc.weight.div_(self.fc.weight.norm(dim=1, keepdim=True))
    return self.head(self.spikes(x))


def counted(self, x):
    self.runs.data.add_(1)
    return self.head(self.spikes(x))


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("forward", [clipped, normed, counted])
def test_parameters_that_a_forward_writes_to_are_those_of_the_run_alone(forward, static, check):
    ends = []
    for how in (False, check):
        torch.manual_seed(0)
        net = Net(forward, runs=nn.Parameter(torch.zeros(()), requires_grad=False))
        weight = net.fc.weight
        out = unrolled(net, static, check=how)
        out.sum().backward()
        assert net.fc.weight is weight
        ends.append([out, *net.parameters(), net.fc.weight.grad, net.head.weight.grad])
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize("check", [None, True])
def test_a_difference_leaves_the_parameters_as_they_were(check):
    net = WRONG["weights written in the forward"][0]()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError):
        unrolled(net, check=check)
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


def test_hooks_taps_and_monitors_record_the_run_alone():
    net = RIGHT["residual"]()
    recorded = []
    net.body[0].register_forward_hook(lambda module, args, out: recorded.append(len(out)))
    net.body[0].register_forward_pre_hook(lambda module, args: recorded.append(len(args[0])))
    with snn.tap(net) as tap:
        unrolled(net)
    assert recorded == [STEPS * BATCH] * 2
    assert tap["body.1"].spk.shape == (STEPS, BATCH, WIDTH)


@pytest.mark.usefixtures("fresh_heap")
def test_nothing_of_the_comparison_stays_in_memory():
    net = RIGHT["residual"]()
    made = weakref.WeakSet()
    hook = net.body[1].register_forward_hook(lambda module, args, out: made.add(out))
    with torch.no_grad():
        unrolled(net)
    hook.remove()
    gc.collect()
    assert not list(made)
    network = weakref.ref(net)
    del net
    gc.collect()
    assert network() is None


def test_later_calls_are_not_compared_and_calls_of_another_kind_are():
    net = RIGHT["residual"]()
    calls = []
    net.forward = lambda x: (calls.append(len(x)), Residual.forward(net, x))[1]
    unrolled(net)
    assert calls == [35, 5, 5, 5, 15]
    for change, compared in (
        (lambda: None, False), (net.eval, True), (net.train, False), (net.double, True), (net.float, False)
    ):  # fmt: skip
        change()
        snn.utils.reset(net)
        calls.clear()
        snn.unroll(net, data().to(net.body[0].weight.dtype))
        assert (len(calls) > 1) == compared
    calls.clear()
    snn.utils.reset(net)
    snn.unroll(net, data()[:, :3])  # another batch size
    snn.utils.reset(net)
    snn.unroll(net, data()[:4])  # and another number of steps
    assert len(calls) == 2
    net.body.append(nn.Identity())
    snn.utils.reset(net)
    unrolled(net)
    assert len(calls) > 3


def test_check_true_compares_all_steps_and_check_false_none():
    def late(self, x):
        self.count += 1
        return self.spikes(x) * (1 if self.count < 5 else 2)

    net = Net(late)
    assert unrolled(net).shape == (STEPS, BATCH, WIDTH)
    with pytest.raises(RuntimeError, match="first at step"):
        unrolled(Net(late), check=True)
    wrong = WRONG["counter"][0]()
    assert unrolled(wrong, check=False).shape == (STEPS, BATCH, WIDTH)


def test_plain_sequentials_of_known_layers_are_not_compared():
    calls = []

    class Counting(nn.Sequential):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    layers = [nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.MaxPool1d(2), nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)]
    plain = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Sequential(*layers), leaky(output=True))
    assert is_row_by_row(plain)
    assert is_row_by_row(nn.Sequential(nn.Mish(), snn.SLSTM(6, 6, threshold=0.01, init_hidden=True)))
    assert not is_row_by_row(Residual(lambda: plain))  # whose own forward may do anything
    for layer in (Counting(nn.Linear(6, 6)), nn.Flatten(0), nn.Softmax(-1), nn.LSTM(6, 6), nn.MultiheadAttention(6, 2)):
        assert not is_row_by_row(nn.Sequential(layer, leaky()))
    unrolled(Counting(nn.Linear(6, 6), leaky()))
    assert len(calls) > 1


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: next(snn.stream(net, x.split(4))),
        lambda net, x: snn.unroll(net, x, checkpoint=3),
        lambda net, x: snn.explain(net, x),
        lambda net, x: snn.utils.summary(net, x),
        lambda net, x: snn.diagnose(net, x),
    ],
    ids=["stream", "checkpoint", "explain", "summary", "diagnose"],
)
def test_whatever_unrolls_compares(run):
    with pytest.raises(RuntimeError, match=r"'head' .* another input"):
        run(WRONG["mean over rows"][0](), data())


def test_backprop_runs_by_steps_what_cannot_be_unrolled():
    seen = []
    net = Net(lambda s, x: (seen.append(len(x)), s.head(s.spikes(x) - x.mean(0)))[1])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    snn.backprop.BPTT(net, [(data(), torch.zeros(BATCH))], optimizer, lambda spk, target: spk.square().mean())
    assert seen[-STEPS:] == [BATCH] * STEPS


def test_explain_says_why_there_was_no_comparison():
    class Drawing(Net):
        def forward(self, x):
            return self.spikes(x + float(np.random.rand()))

    net = Drawing(None)
    assert "random numbers outside of torch" in str(snn.explain(net, data()))
    assert not snn.explain(RIGHT["residual"](), data()).unchecked


def test_a_difference_by_rounding_is_none():
    """A step function of the user's own right behind a product: some rows flip, step by step or unrolled."""

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.calls = nn.Linear(WIDTH, WIDTH), wide(), 0

        def forward(self, x):
            current = self.fc(x)
            current = current + 1e-7 * (-1) ** (len(x) % 2) * current  # as another order of a sum would
            return self.lif((1e4 * current).frac().round())

    unrolled(Rounded())


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.lif = nn.LazyLinear(5), nn.LazyBatchNorm1d(), wide()

    def forward(self, x):
        return self.lif(self.norm(self.fc(x)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_lazy_modules_get_the_parameters_and_statistics_of_the_run_alone(static, training):
    ends = []
    for check in (False, None):
        torch.manual_seed(0)
        net = Lazy().train(training)
        out = unrolled(net, static, check=check)
        again = snn.unroll(net, data(static), steps=STEPS if static else None, check=False)
        ends.append([out, again, *net.state_dict().values()])
    assert all(map(torch.equal, *ends))
    assert ends[0][2:][1].abs().max() < 1  # the bias was drawn


class Scripted(nn.Module):
    """A part whose buffers torch.jit holds, where they cannot be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = torch.jit.script(nn.Linear(3, 4)), snn.Leaky(beta=0.5, init_hidden=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(self.fc(x) + 0.0)


class Large(nn.Module):
    """With more objects than a comparison saves."""

    def __init__(self) -> None:
        super().__init__()
        self.data = [(number,) for number in range(20_001)]
        self.fc, self.lif = nn.Linear(3, 4), snn.Leaky(beta=0.5, init_hidden=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(self.fc(x) + 0.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"checkpoint": 2, "check": False}], ids=str)
@pytest.mark.parametrize("network", [Scripted, Large])
def test_a_network_that_cannot_be_saved_whole_is_compared_all_the_same(network, options):
    net, x = network(), torch.rand(5, 2, 3)
    ours = snn.unroll(net, x, **options)
    snn.utils.reset(net)
    assert torch.equal(ours, torch.stack([net(x_t) for x_t in x]))
