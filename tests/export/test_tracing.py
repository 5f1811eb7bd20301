"""What a forward does between its layers: sums, reshapes and factors become nodes, the rest is refused by name."""

import itertools

import nir
import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn

from .graphs import NIR_RESET, leaky, outputs, through_file


class Forward(nn.Module):
    """Two Linears and a neuron, in any order."""

    def __init__(self, run):
        super().__init__()
        self.run, self.a, self.b, self.lif = run, nn.Linear(4, 4), nn.Linear(4, 4), leaky(0.5, 0.3)

    def forward(self, x):
        return self.run(self, x)


def in_place(net, x):
    h = net.a(x)
    h += net.b(x)
    return net.lif(h)


def scaled_in_place(net, x):
    h = net.a(x)
    h.mul_(2)
    return net.lif(h)


def written(change):
    """A forward that changes the output of a layer in place."""

    def run(net, x):
        h = net.a(x)
        change(h)
        return net.lif(h)

    return run


def zero_some(h):
    h[:, :3] = 0


def set_data(h):
    h.data = h.data.relu()


def logged(net, x):
    assert net.b(x).mean().item() < 1e3
    return net.lif(net.a(x))


SAME = {
    "a sum": lambda n, x: n.lif(n.a(x) + n.b(x)),
    "a sum in place": in_place,
    "a factor in place": scaled_in_place,
    "a change of the sample": lambda n, x: n.lif(n.a(x.mul_(2))),
    "a sum of three": lambda n, x: n.lif(sum([n.a(x), n.b(x), x])),
    "a difference": lambda n, x: n.lif(n.a(x) - n.b(x)),
    "the same layer twice": lambda n, x: n.lif(n.a(n.a(x))),
    "the same value twice": lambda n, x: (lambda h: n.lif(h + h))(n.a(x)),
    "factors": lambda n, x: n.lif(2 * n.a(x) - n.b(x) / 4 * torch.tensor([1.0, 2.0, 0.5, 1.0])),
    "a negation": lambda n, x: n.lif(-n.a(x)),
    "a residual": lambda n, x: (lambda s: n.b(s) + s)(n.lif(n.a(x))),
    "copies": lambda n, x: n.lif(n.a(x.clone()).contiguous().view(x.size(0), -1)[:, :]),
    "dropout that is off": lambda n, x: n.lif(functional.dropout(n.a(x), 0.5, n.training)),
    "flattened and back": lambda n, x: n.lif(n.a(x.flatten(1))),
    "what is only looked at": logged,
    "a result that is not used": lambda n, x: (n.b(n.lif(x)), n.a(x))[1],
    "zeros": lambda n, x: n.lif(n.a(x) + torch.zeros_like(x)),
    "the input": lambda n, x: x,
}

REFUSED = {
    "setitem": written(zero_some),
    "mul of .2, 3": written(lambda h: h[:, :3].mul_(2)),
    "zero": written(lambda h: h.T.zero_()),
    "relu of": written(torch.relu_),
    "add of .2, 4., which": written(lambda h: h.data.add_(1)),
    "data": written(set_data),
    "clamp": written(lambda h: torch.clamp(h, 0, 1, out=h)),
    "relu": lambda n, x: n.lif(torch.relu(n.a(x))),
    "cat": lambda n, x: n.lif(torch.cat([n.a(x), n.b(x)], 1)[:, :4]),
    "add": lambda n, x: n.lif(n.a(x) + 1),
    "mul": lambda n, x: n.lif(n.a(x) * n.b(x)),
    "one factor per batch entry": lambda n, x: n.lif(n.a(x) * torch.rand(len(x), 1)),
    "getitem": lambda n, x: n.lif(n.a(x)[:, [1, 0, 2, 3]]),
    "of T ": lambda n, x: n.lif(n.a(x).T.T),
    "linear": lambda n, x: n.lif(functional.linear(x, n.a.weight)),
    "dropout": lambda n, x: n.lif(functional.dropout(n.a(x), 0.5)),
    "'lif'.*does not come from the input": lambda n, x: n.lif(torch.ones(2, 4)),
    "output of the network does not come from its input": lambda n, x: torch.ones(2, 4),
    "an output of the network.*mean": lambda n, x: n.lif(x).mean(1),
    "without a tensor": lambda n, x: None,
    "'lif'.*2 times": lambda n, x: n.lif(n.lif(x)),
    "round": lambda n, x: n.lif(n.a(x).round()),
    "another factor at a second step, of zeros": lambda n, x: n.lif(n.a(x) * float(x.max())),
    "to of": lambda n, x: n.lif(n.a(x).to(torch.int32).to(torch.float32)),
}


def test_what_a_forward_does_between_layers():
    x = torch.rand(20, 2, 4) * 3 - 1
    for name, run in SAME.items():
        net = Forward(run).eval()
        sample = x[0].clone()
        again = snn.import_from_nir(snn.export_to_nir(net, sample))
        assert torch.equal(sample, x[0]), name
        assert torch.equal(outputs(again, x.clone()), outputs(net, x.clone())), name


def test_what_nir_cannot_say_is_refused_by_name():
    for match, run in REFUSED.items():
        with pytest.raises(ValueError, match=match):
            snn.export_to_nir(Forward(run), torch.rand(2, 4))


def test_hooks_are_part_of_the_forward():
    x = torch.rand(20, 2, 4) * 3 - 1
    net = nn.Sequential(nn.Linear(4, 4), leaky(0.5, 0.3), nn.Linear(4, 3), leaky(0.5, 0.3))
    seen = []
    net[0].register_forward_hook(lambda layer, args, out: 3 * out)
    net[1].register_forward_hook(lambda layer, args, out: 0.5 * out)
    net[2].register_forward_hook(lambda layer, args, out: seen.append(out.mean().item()))
    net[2].register_forward_pre_hook(lambda layer, args: (-args[0],))
    again = snn.import_from_nir(snn.export_to_nir(net, x[0]))
    assert torch.equal(outputs(again, x), outputs(net, x))
    assert seen
    net[0].register_forward_hook(lambda layer, args, out: out.relu())
    with pytest.raises(ValueError, match=r"'1' .*relu"):
        snn.export_to_nir(net, x[0])


class States(nn.Module):
    """A forward that carries its states by hand, as in snnTorch's tutorials."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 3), snn.Leaky(0.5, reset_mechanism="zero", reset_delay=False)
        self.readout = nn.Linear(3, 2)

    def forward(self, x, mem=None):
        return self.lif(self.fc(x), self.lif.init_leaky() if mem is None else mem)


class Loop(States):
    def forward(self, x):
        mem, spikes = self.lif.init_leaky(), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            spikes.append(spk)
        return torch.stack(spikes)


class ReadsMembrane(States):
    def forward(self, x, mem=None):
        _, mem = super().forward(x, mem)
        return self.readout(mem)


def test_states_that_are_passed_by_hand():
    x = torch.rand(30, 2, 4) * 4
    net = States()
    again = snn.import_from_nir(snn.export_to_nir(net, x[0]))
    mem, steps = None, []
    for x_t in x:
        spk, mem = net(x_t, mem)
        steps.append(spk)
    assert torch.equal(outputs(again, x), torch.stack(steps))
    graph = snn.export_to_nir(net, x[0], model_fwd=[torch.zeros(2, 3)])  # a further argument of the forward
    assert list(graph.nodes) == ["input", "fc", "lif", "output"]
    with pytest.raises(ValueError, match=r"'lif' .*starts from a state that is not zero"):
        snn.export_to_nir(net, x[0], model_fwd=[torch.ones(2, 3)])
    with pytest.raises(ValueError, match=r"'readout' .*reads a state of 'lif'"):
        snn.export_to_nir(ReadsMembrane(), x[0])


def test_a_forward_with_a_loop_over_time_gets_the_advice_what_to_pass():
    net, x = Loop(), torch.rand(30, 2, 4) * 4
    with pytest.raises(ValueError, match="model_fwd"):
        snn.export_to_nir(net, x)
    graph = snn.export_to_nir(net, x[0], model_fwd=lambda net, x: net.lif(net.fc(x))[0])
    assert torch.equal(outputs(snn.import_from_nir(graph), x), net(x).detach())


class OwnFeedback(States):
    """Recurrence by hand, which the first step does not show."""

    def __init__(self, start):
        super().__init__()
        self.start = self.last = start

    def forward(self, x):
        self.last, _ = self.lif(self.fc(x) + self.last)
        return self.last


def test_what_a_forward_stores_between_steps_is_refused():
    for start in (0, torch.zeros(2, 3)):
        with pytest.raises(ValueError, match=r"'lif' .*stores from the step before.*RLeaky"):
            snn.export_to_nir(OwnFeedback(start), torch.rand(2, 4))


def test_a_factor_that_a_forward_changes_from_step_to_step_is_refused():
    steps = itertools.count(1)
    with pytest.raises(ValueError, match=r"a scale in the forward has another factor .*constant factors; states live"):
        snn.export_to_nir(Forward(lambda n, x: n.lif(x * next(steps))), torch.rand(2, 4))


def test_an_input_that_no_output_depends_on_is_refused():
    class Unread(States):
        def forward(self, x, y):
            return self.lif(self.fc(x))[0]

    x, y = torch.rand(2, 4), torch.rand(2, 5)
    with pytest.raises(ValueError, match=r"no output depends on 'input_1'.*model_fwd"):
        snn.export_to_nir(Unread(), (x, y))
    graph = snn.export_to_nir(Unread(), x, model_fwd=lambda net, x: net(x, y))
    assert [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)] == ["input"]


class Pooled(nn.Module):
    """Pools by a function, as in snnTorch's own tests of NIR."""

    def __init__(self):
        super().__init__()
        self.conv, self.lif, self.fc = nn.Conv2d(1, 2, 3), leaky(0.5, 0.2), nn.Linear(2 * 3 * 3, 4)

    def forward(self, x):
        x = functional.avg_pool2d(self.conv(x), kernel_size=2, stride=2)
        return self.fc(functional.avg_pool2d(input=self.lif(x), kernel_size=1).view(-1, 18))


def test_pooling_by_a_function(tmp_path):
    net, x = Pooled(), torch.rand(20, 2, 1, 8, 8) * 4
    graph = snn.export_to_nir(net, x[0])
    assert ("conv", "avgpool2d") in graph.edges
    assert graph.nodes["avgpool2d"].kernel_size.tolist() == [2, 2]
    again = snn.import_from_nir(through_file(graph, tmp_path))
    assert torch.equal(outputs(again, x), outputs(net, x))


def test_the_batch_of_the_sample():
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), leaky())
    for net, sample, options, shape in (
        (nn.Sequential(nn.Linear(4, 3), leaky()), torch.rand(4), {}, [4]),
        (nn.Sequential(nn.Linear(4, 3), leaky()), torch.rand(5, 4), {}, [4]),
        (nn.Sequential(nn.Linear(4, 3), leaky()), torch.rand(5, 4), {"ignore_dims": [0]}, [4]),
        (conv, torch.rand(2, 6, 6), {}, [2, 6, 6]),
        (conv, torch.rand(5, 2, 6, 6), {}, [2, 6, 6]),
        (leaky(), torch.rand(5, 2, 3), {}, [2, 3]),
    ):
        graph = snn.export_to_nir(net, sample, **options)
        assert graph.nodes["input"].input_type["input"].tolist() == shape


def test_names_are_those_of_the_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(leaky(), snn.RLeaky(0.5, linear_features=4, **NIR_RESET)))
    graph = snn.export_to_nir(net, torch.rand(2, 4))
    assert list(graph.nodes) == ["input", "0", "1.0", "1.1.lif", "1.1.w_rec", "output"]
    assert ("1.1.w_rec", "1.1.lif") in graph.edges


def test_names_of_layers_that_files_would_split(tmp_path):
    net = nn.ModuleDict({"a/b": nn.Linear(4, 4), "é.c"[0]: leaky(0.5)})
    x = torch.rand(20, 2, 4) * 3

    def run(net, x):
        return net["é"](net["a/b"](x))

    graph = through_file(snn.export_to_nir(net, x[0], model_fwd=run), tmp_path)
    assert {"a_b", "é"} < set(graph.nodes)
    assert outputs(snn.import_from_nir(graph), x).any()


def test_accelerated_and_compiled_networks():
    net, x = nn.Sequential(nn.Linear(4, 4), leaky(0.5)), torch.rand(20, 2, 4) * 3
    wanted = outputs(net, x)
    for other in (snn.accelerate(nn.Sequential(*net)), torch.compile(net, backend="eager")):
        again = snn.import_from_nir(snn.export_to_nir(other, x[0]))
        assert torch.equal(outputs(again, x), wanted)
