"""What cannot be written as C is refused by name, and nothing is left behind."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn

LIF = {"init_hidden": True}
X = torch.rand(4, 2, 6)


class ByHand(nn.Module):
    """snnTorch's loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 3), snn.Leaky(0.9)

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for _ in range(3):
            spk, mem = self.lif(self.fc(x), mem)
            out.append(spk)
        return torch.stack(out)


class Looped(ByHand):
    """The same with a stored state."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = snn.Leaky(0.9, **LIF)

    def forward(self, x):
        return torch.stack([self.lif(self.fc(x)) for _ in range(3)])


class Branching(ByHand):
    """Depends on its data."""

    def forward(self, x):
        return self.lif(x)[0] if x.sum() > 0 else x


class TwoInputs(ByHand):
    """Takes two inputs."""

    def forward(self, x, y):
        return self.lif(x + y)[0]


class Calling(ByHand):
    """Calls a function on the output of a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.rows = function, nn.Parameter(torch.rand(2, 3))

    def forward(self, x):
        return self.function(self, self.fc(x))


class Doubling(snn.Leaky):
    """Overrides forward."""

    def forward(self, x, mem=None):
        return super().forward(2 * x, mem)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.9, **LIF))
    net[0].register_forward_hook(lambda module, args, out: 2 * out)
    return net


def stateless_norms() -> nn.Module:
    norms = snn.BatchNormTT1d(6, 4)
    for norm in norms:
        norm.running_mean = norm.running_var = None
    return norms


class Mean(ByHand):
    """Averages over channels."""

    def forward(self, x):
        return self.fc(x).unflatten(1, (1, 3)).mean(1)


class Hidden(ByHand):
    """Counts its calls, which shows in a state and in no output."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.calls = snn.Leaky(0.9, threshold=99.0, **LIF), 0

    def forward(self, x):
        self.calls += 1
        self.lif(x + self.calls)
        return self.fc(x)


class Computed(ByHand):
    """Computes its weights."""

    def forward(self, x):
        return functional.linear(x, x)


REFUSED = {
    "by hand": (ByHand(), "'lif' (Leaky)", "states by hand"),
    "loop": (Looped(), "'lif' (Leaky)", "twice in one forward"),
    "branch": (Branching(), "Branching", "depends on data"),
    "two inputs": (TwoInputs(), "TwoInputs", "x, y"),
    "rows": (Calling(lambda net, x: x + net.rows), "add", "differs from sample to sample"),
    "softmax": (Calling(lambda net, x: x.softmax(1)), "Calling", "calls softmax, which has no form"),
    "rounding": (Calling(lambda net, x: x.round()), "Calling", "calls round, which has no form"),
    "quotients": (Calling(lambda net, x: torch.div(x, 2.0, rounding_mode="floor")), "div", "rounding_mode=floor"),
    "powers": (Calling(lambda net, x: x**1.5), "pow", "** 1.5"),
    "maximum": (Calling(lambda net, x: x.max(1)), "Calling", "which returns several values"),
    "sorted": (Calling(lambda net, x: x.sort(1)[0]), "Calling", "sort"),
    "masked": (Calling(lambda net, x: x[x > 0]), "getitem", "computed"),
    "gathered": (Calling(lambda net, x: x.gather(1, (x > 0).long())), "Calling", "calls long"),
    "flipped": (Calling(lambda net, x: x.flip(0)), "flip", "batch"),
    "stacked": (Calling(lambda net, x: torch.cat((x, x))), "Calling", "samples of the batch"),
    "padded": (Calling(lambda net, x: functional.pad(x, (1, 1), value=1.0)), "pad", "value=1.0"),
    "interpolated": (
        Calling(lambda net, x: functional.interpolate(x[:, None], scale_factor=2, mode="linear")),
        "interpolate",
        "mode='linear'",
    ),
    "noise": (nn.Sequential(snn.NoisyLeaky(0.9, **LIF)), "'0' (NoisyLeaky)", "random"),
    "quantizer": (snn.Leaky(0.9, state_quant=torch.round), "(Leaky)", "state_quant"),
    "override": (Doubling(0.9, **LIF), "(Doubling)", "overrides forward"),
    "spike function": (snn.Leaky(0.9, spike_grad=torch.sigmoid), "(Leaky)", "step function"),
    "truncated": (
        nn.Sequential(snn.StateLeaky(0.9, 6, kernel_truncation_steps=2)),
        "(StateLeaky)",
        "kernel_truncation",
    ),
    "statistics": (
        nn.Sequential(stateless_norms(), snn.Leaky(0.9, **LIF)),
        "'0' (BatchNormTT1d)",
        "running statistics",
    ),
    "delayed rows": (nn.Sequential(nn.Unflatten(1, (2, 3)), snn.DelayedLinear(3, 2, 1)), "(DelayedLinear)", "features"),
    "hidden": (Hidden(), "Hidden", "100% of the values of an output or a state differ"),
    "mean": (Mean(), "Mean", "over 1"),
    "weights": (Computed(), "Computed", "no parameters of the network"),
    "group norm": (nn.Sequential(nn.GroupNorm(2, 6)), "'0' (GroupNorm)", "no form"),
    "gru": (nn.Sequential(nn.GRU(6, 3)), "'0' (GRU)", "several values"),
    "hook": (hooked(), "'0' (Linear)", "hook"),
    "nothing": (nn.Sequential(nn.Identity()), "Sequential", "no layer"),
}


def test_refusals_name_the_layer_and_write_nothing(tmp_path):
    for name, (net, *message) in REFUSED.items():
        with pytest.raises(NotImplementedError) as caught:
            snn.export_c(net, X, tmp_path / "net.c")
        assert all(part in str(caught.value) for part in message), (name, str(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_arguments_by_name_count_and_changes_in_place_are_refused_where_they_show(tmp_path):
    class Net(nn.Module):
        def __init__(self, join) -> None:
            super().__init__()
            self.f, self.g, self.lif, self.join = nn.Linear(6, 3), nn.Linear(6, 3), snn.Leaky(0.9, **LIF), join

        def forward(self, x):
            return self.lif(self.join(self.f(x), self.g(x)))

    def aliased(f, g):
        skip = f
        f += g
        return f + skip

    def added(f, g):
        f += g
        return f

    def by_method(f, g):
        return f.view(-1, 3).mul_(g) + f

    for join, part in (
        (lambda f, g: torch.add(f, g, out=g), "out="),
        (lambda f, g: functional.dropout(f + g, 0.5), "training=True"),
        (lambda f, g: functional.relu(f, inplace=True) + f, "in place"),
        (aliased, "in place"),
        (by_method, "in place"),
    ):
        with pytest.raises(NotImplementedError, match=part):
            snn.export_c(Net(join), 1e-3 * X, tmp_path / "net.c")
    for join in (
        lambda f, g: torch.add(input=f, other=g),
        lambda f, g: torch.sub(f, g.add(f, alpha=2), alpha=3.0),
        lambda f, g: f.mul(other=2.0) + functional.relu(g, inplace=True),
        lambda f, g: functional.dropout(f - g, 0.5, training=False),
        lambda f, g: torch.flatten(torch.cat(tensors=(f, g), dim=1), start_dim=1),
        added,
    ):
        snn.export_c(Net(join), X, tmp_path / "net.c")


def test_integers_refuse_values_without_a_range(tmp_path):
    with pytest.raises(NotImplementedError, match="fractional bits"):
        snn.export_c(snn.Leaky(1.0, reset_mechanism="none"), 1e9 * X, tmp_path / "net.c", "int8")
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_checked(tmp_path):
    net, path = nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.9, **LIF)), tmp_path / "net.c"
    for error, message, call in (
        (TypeError, "nn.Module", lambda: snn.export_c(torch.relu, X, path)),
        (TypeError, "float32 or float64", lambda: snn.export_c(net, X.half(), path)),
        (TypeError, "float32 or float64", lambda: snn.export_c(net, [1.0], path)),
        (ValueError, "shape", lambda: snn.export_c(net, X[0], path)),
        (ValueError, "shape", lambda: snn.export_c(net, X[:0], path)),
        (ValueError, "steps=0", lambda: snn.export_c(net, X[0], path, steps=0)),
        (ValueError, "number='int4'", lambda: snn.export_c(net, X, path, "int4")),
        (ValueError, "prefix='1 net'", lambda: snn.export_c(net, X, path, prefix="1 net")),
        (ValueError, "prefix='int'", lambda: snn.export_c(net, X, path, prefix="int")),
        (ValueError, "NaN or infinite", lambda: snn.export_c(net, X / 0, path, "int8")),
        (ValueError, "net.float()", lambda: snn.export_c(nn.Linear(6, 3).half(), X, path)),
        (ValueError, "has no values", lambda: snn.export_c(nn.Linear(6, 3, device="meta"), X, path)),
        (TypeError, "the path is 3", lambda: snn.export_c(net, X, 3)),
        (OSError, "no folder", lambda: snn.export_c(net, X, tmp_path / "nowhere" / "net.c")),
        (OSError, "is a folder", lambda: snn.export_c(net, X, tmp_path)),
        (ValueError, "calibration", lambda: snn.export.simulate_int8(net, X, calibration=torch.rand(4, 2, 5))),
    ):
        with pytest.raises((error, RuntimeError) if message == "calibration" else error, match=None) as caught:
            call()
        assert message in str(caught.value) or message == "calibration", str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_file_stays_and_links_are_followed(tmp_path):
    net = nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.9, **LIF))
    pipe, real, link = tmp_path / "pipe", tmp_path / "real.c", tmp_path / "link.c"
    os.mkfifo(pipe)
    real.write_text("old")
    link.symlink_to(real)
    snn.export_c(net, X, link)
    assert link.is_symlink()
    assert "net_step" in real.read_text()
    for error, message, path in (
        (FileExistsError, "is a device or a pipe", pipe),
        (OSError, "cannot be used: File name too long", tmp_path / f"{'a' * 300}.c"),
        (ValueError, "cannot be used: ", f"{tmp_path}/a\0b.c"),
        (TypeError, "the path is b'net.c'", b"net.c"),
    ):
        with pytest.raises(error, match=message):
            snn.export_c(net, X, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.c", "pipe", "real.c"]
    assert pipe.is_fifo()


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    net, path = nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.9, **LIF)), tmp_path / "net.c"
    path.write_text("old")
    write = Path.write_text

    def full(self, text, **options):
        write(self, text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="cannot be written: No space left on device"):
        snn.export_c(net, X, path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["net.c"]
    assert path.read_text() == "old"


def test_the_network_stays_as_it_is(tmp_path):
    net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), snn.Leaky(0.9, learn_beta=True, **LIF)).train()
    snn.unroll(net, X)
    before, mem = {k: v.clone() for k, v in net.state_dict().items()}, net[2].mem.clone()
    made = snn.export_c(net, X, tmp_path / "net.c")
    snn.export_c(net, X, tmp_path / "net.c", "int8")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(net[2].mem, mem)
    assert net.training
    assert any("surrogate" in line for line in made.lost)
    assert any("beta was learned" in line for line in made.lost)
    assert "BatchNorm1d" in str(made)


def test_examples_that_do_not_fit_are_named_and_numbers_of_numpy_are_steps(tmp_path):
    net, path = nn.Sequential(nn.Linear(6, 3), snn.Leaky(torch.full((1, 3), 0.9), **LIF)), tmp_path / "net.c"
    for x in (torch.rand(4, 2, 9), X.double()):
        with pytest.raises(ValueError, match=r"does not run on x of shape .* and torch.float"):
            snn.export_c(net, x, path)
    assert not path.exists()
    snn.export_c(net, X[0], path, steps=np.int64(5))
    assert "NET_STEPS 5" in path.read_text()
