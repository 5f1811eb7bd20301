"""Layers with a memory, and functions of torch that compute what a layer does, as C."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn
from spikeloom import ops
from tests.export.c.program import Program, needs_compiler
from tests.export.c.test_export import UNIT, grid, spikes

pytestmark = needs_compiler


def normed(kind: type[nn.Module], steps: int) -> nn.Module:
    """Norms whose statistics differ from step to step."""
    norms = kind(3, time_steps=steps)
    for norm in norms:
        norm.running_mean, norm.running_var = torch.rand(3), torch.rand(3) + 0.5
    norms[0].bias = nn.Parameter(torch.tensor([0.25, 0.5, -0.25]))
    return norms


def delays(*shape: int) -> torch.Tensor:
    return torch.randint(0, 5, shape).float()


class Functional(nn.Module):
    """Calls functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.one, self.two = snn.Leaky(0.5, **UNIT), snn.Leaky(0.5, **UNIT)

    def forward(self, x):
        x = functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        x = self.one(functional.max_pool2d(torch.maximum(functional.relu(x), x.clamp(-0.25, 1)), 2))
        x = functional.avg_pool2d(x, 2, stride=1)
        x = functional.adaptive_avg_pool2d(x, 2).mean((2, 3))
        return self.two(functional.linear(input=x, weight=self.fc.weight, bias=self.fc.bias))


class Sequence(nn.Module):
    """The same over sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 2, 3))
        self.one = snn.Leaky(0.5, **UNIT)

    def forward(self, x):
        x = torch.conv1d(x, self.weight, None, 1, "same")
        x = functional.max_pool1d(functional.avg_pool1d(x, 2, 1), 2, padding=1)
        return self.one(functional.adaptive_avg_pool1d(x, 1) + x.mean(-1, keepdim=True)).flatten(1)


def test_layers_with_a_memory_and_functions_have_the_spikes_of_the_library(tmp_path):
    """In floating point; and the bits of the simulation in integers, where there are integers."""
    torch.manual_seed(3)
    lif, late = (lambda: snn.Leaky(0.5, **UNIT)), {"max_delay": 4}
    for k, (name, net, shape) in enumerate((
        ("delay", nn.Sequential(snn.SynapticDelay(6, delay=delays(6), **late), lif()), (6,)),
        ("one delay", nn.Sequential(nn.Linear(6, 3), lif(), snn.SynapticDelay(3, delay=2.0, **late)), (6,)),
        ("channels", nn.Sequential(snn.SynapticDelay((2, 1, 1), delay=delays(2, 1, 1), **late), lif()), (2, 3, 3)),
        ("synapses", nn.Sequential(snn.DelayedLinear(6, 3, delay=delays(3, 6), **late), lif()), (6,)),
        ("no delay", nn.Sequential(snn.DelayedLinear(6, 3, 0, bias=False), lif(), snn.SynapticDelay(3, 0)), (6,)),
        ("functions", Functional(), (1, 6, 6)),
        ("sequences", Sequence(), (2, 8)),
        ("norms", nn.Sequential(nn.Linear(6, 3), normed(snn.BatchNormTT1d, 12), lif()), (6,)),
        ("norms of images", nn.Sequential(nn.Conv2d(1, 3, 2), normed(snn.BatchNormTT2d, 12), lif()), (1, 3, 3)),
        ("one norm", nn.Sequential(nn.Linear(6, 3), normed(snn.BatchNormTT1d, 1), lif()), (6,)),
    )):  # fmt: skip
        x = (torch.rand(1 if name == "one norm" else 12, 2, *shape) < 0.4).float()
        for module in net.modules():
            if isinstance(module, snn.DelayedLinear):
                module.weight.data = (module.weight.data * 128).round() / 64
                if module.bias is not None:
                    module.bias.data = (module.bias.data * 64).round() / 64
        net = grid(net).eval()
        wanted = spikes(net, x).flatten(2)
        assert 0.02 < float(wanted.mean()) < 0.98 or name == "one norm", f"{name} is silent"
        program = Program(snn.export_c(net, x, tmp_path / f"n{k}.c"), wanted.shape[2])
        whole = Program(snn.export_c(net, x, tmp_path / f"i{k}.c", "int8"), wanted.shape[2], torch.int8)
        simulated = snn.export.simulate_int8(net, x).flatten(2)
        for row in (0, 1, 0):  # the last one after a reset
            assert torch.equal(program.run(x[:, row]), wanted[:, row]), name
            assert torch.equal(whole.run(x[:, row]).float(), simulated[:, row]), name
            events = [x_t.flatten().nonzero().flatten().tolist() for x_t in x[:, row]]
            program.reset()
            assert torch.equal(torch.stack([program.step_events(active) for active in events]), wanted[:, row]), name
        assert float((simulated != wanted).float().mean()) < 0.1, name


@pytest.mark.parametrize(("shape", "dim"), [((2, 4, 4), -1), ((2, 4, 4), 2), ((4,), -1)], ids=str)
def test_other_means_are_refused_by_name(shape, dim, tmp_path):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(dim, keepdim=True)

    with pytest.raises(NotImplementedError, match=f"its forward calls mean over {dim}; only the places"):
        snn.export_c(nn.Sequential(Mean(), snn.Leaky(0.5, **UNIT)), torch.rand(3, 1, *shape), tmp_path / "net.c")


def test_after_its_last_norm_a_norm_per_step_keeps_it(tmp_path):
    net = nn.Sequential(normed(snn.BatchNormTT1d, 3), snn.LI(**UNIT)).eval()
    x = torch.rand(5, 1, 3)
    program = Program(snn.export_c(net, x[:3], tmp_path / "net.c"), 3)
    net[0].extend([net[0][2], net[0][2]])
    torch.testing.assert_close(program.run(x), spikes(net, x)[:, 0])


@pytest.mark.parametrize("options", [{}, {"max_pool": 2, "stride": 2}, {"avg_pool": (2, 1), "dilation": 2}], ids=str)
def test_a_convolutional_lstm_has_the_spikes_of_the_library(options, tmp_path):
    torch.manual_seed(0)
    net = snn.SConv2dLSTM(2, 3, (3, 5), threshold=0.02, reset_mechanism="subtract", **UNIT, **options)
    x = torch.rand(20, 1, 2, 9, 8) * 2
    wanted = spikes(net, x)
    assert 0.02 < float(wanted.mean()) < 0.98
    found = Program(snn.export_c(net, x, tmp_path / "net.c"), wanted[0].numel()).run(x)
    assert torch.equal(found, wanted.flatten(1))


def test_two_sources_can_be_included_in_one_file_and_names_are_prefixed(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 3), snn.EIF(**UNIT), snn.SynapticDelay(3, 2), snn.Leaky(0.5, **UNIT))
    plain = nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.5, **UNIT), snn.SynapticDelay(3, 2), snn.Leaky(0.5, **UNIT))
    x, files = torch.rand(9, 1, 6), []
    for prefix, own, number in (("one", net, "float"), ("two", plain, "float"), ("three", plain, "int8")):
        files.append(snn.export_c(own, x, tmp_path / f"{prefix}.c", number, prefix=prefix))
    (tmp_path / "double.c").write_text(snn.export_c(plain.double(), x.double(), tmp_path / "d.c").path.read_text())
    both = tmp_path / "both.c"
    both.write_text("".join(f'#include "{name}.c"\n' for name in ("one", "two", "three", "double")))
    for made in files[:2]:
        both_made = type(made)(both, made.number, made.prefix, made.constants, made.state, made.lost)
        assert torch.equal(Program(both_made, 3).run(x[:, 0]), Program(made, 3).run(x[:, 0])), made.prefix
    reader = both.read_text()
    assert "spike(" not in reader


def test_the_mean_of_counts_beyond_the_example_is_the_same_in_c_and_in_the_simulation(tmp_path):
    @snn.cell
    def twice(x, mem, *, leak=0.5):
        mem = leak * mem + x
        return ops.spike(mem - 1.0) + ops.spike(mem - 0.5), mem

    def pooled(*first: nn.Module, window: int) -> nn.Module:
        net = nn.Sequential(
            *first, nn.AvgPool2d(window), nn.Flatten(), nn.Linear(1, 1, bias=False), snn.Leaky(0.0, **UNIT)
        )
        nn.init.ones_(net[-2].weight)
        return net

    net, example, x = pooled(window=4), torch.full((1, 1, 1, 4, 4), 2.0), torch.full((1, 1, 1, 4, 4), 9.0)
    program = Program(snn.export_c(net, example, tmp_path / "net.c", "int8"), 1, torch.int8, torch.int8)
    simulated = snn.export.simulate_int8(net, x, calibration=example)
    assert program.run(x.flatten(1)).float().flatten().tolist() == simulated.flatten().tolist() == [1.0]
    net, x = pooled(twice(**UNIT), window=8), torch.full((5, 1, 1, 8, 8), 3.0)  # 64 values of 2
    assert torch.equal(snn.export.simulate_int8(net, x), spikes(net, x))
