"""BatchNormTT1d, BatchNormTT2d and GradedSpikes beside those of snnTorch: arguments, checkpoints, numbers, training."""

import inspect
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..oracle import Outcome, assert_same
from .running import cotangent, snntorch

LIBRARIES = {"ours": snn, "theirs": snntorch}
OTHER = {"ours": "theirs", "theirs": "ours"}

NORMS: dict[str, tuple[str, tuple[Any, ...], tuple[int, ...]]] = {
    "1d": ("BatchNormTT1d", (3, 4), (6, 3)),
    "1d of sequences": ("BatchNormTT1d", (3, 4), (6, 3, 5)),
    "1d, every option": ("BatchNormTT1d", (3, 4, 1e-2, 0.5, False), (6, 3)),
    "1d, averaged": ("BatchNormTT1d", (3, 4, 1e-5, None), (6, 3)),
    "2d": ("BatchNormTT2d", (3, 4), (6, 3, 5, 5)),
    "2d, every option": ("BatchNormTT2d", (3, 4, 1e-2, 0.5, False), (6, 3, 5, 5)),
}
GRADED: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "a number": ((3, 2.0), (3, 5)),
    "an integer": ((3, 2), (3, 5)),
    "drawn": ((3, None), (3, 3)),
    "a single neuron": ((1, 0.5), (1, 5)),
}
MADE = {name: (kind, args) for name, (kind, args, _) in NORMS.items()} | {
    f"graded, {name}": ("GradedSpikes", args) for name, (args, _) in GRADED.items()
}


def made(library: ModuleType, name: str) -> Any:
    kind, args = MADE[name]
    torch.manual_seed(1)
    return getattr(library, kind)(*args)


def inputs(steps: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(2)).requires_grad_()


@pytest.mark.parametrize("name", ["BatchNormTT1d", "BatchNormTT2d", "GradedSpikes"])
def test_the_arguments_have_the_same_names_order_and_defaults(name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in LIBRARIES.values())
    taken = [(p.name, p.default, p.kind) for p in ours.values()]
    assert taken[: len(theirs)] == [(p.name, p.default, p.kind) for p in theirs.values()]
    assert [(name, kind) for name, _, kind in taken[len(theirs) :]] == (
        [("dim", inspect.Parameter.KEYWORD_ONLY)] if name == "GradedSpikes" else []
    )


@pytest.mark.parametrize("name", MADE)
def test_state_dict_and_parameters_have_the_same_keys_order_shapes_and_values(name):
    ours, theirs = (made(library, name) for library in LIBRARIES.values())
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        got = ours.state_dict()[key]
        assert got.dtype == value.dtype
        assert torch.equal(got, value)


@pytest.mark.parametrize("source", LIBRARIES)
@pytest.mark.parametrize("name", MADE)
def test_checkpoints_load_strictly_in_both_directions(name, source, tmp_path):
    saved, loaded = made(LIBRARIES[source], name), made(LIBRARIES[OTHER[source]], name)
    for value in saved.state_dict().values():
        value.copy_(torch.randint(1, 9, value.shape))
    torch.save(saved.state_dict(), tmp_path / "layer.pt")
    loaded.load_state_dict(torch.load(tmp_path / "layer.pt"), strict=True)
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in loaded.state_dict().items())


def normalized(norms: Any, x: torch.Tensor, call: Any) -> Outcome:
    out = torch.stack([call(norms, t, x_t) for t, x_t in enumerate(x.unbind(0))])
    learned = {"x": x, **dict(norms.named_parameters())}
    grads = torch.autograd.grad((out * cotangent(out, 1)).sum(), list(learned.values()))
    averages = {key: value for key, value in norms.named_buffers() if value.is_floating_point()}
    return Outcome({}, {"out": out.detach(), **averages}, dict(zip(learned, grads, strict=True)))


def by_index(norms: Any, t: int, x: torch.Tensor) -> torch.Tensor:
    return norms[t](x)


def by_count(norms: Any, t: int, x: torch.Tensor) -> torch.Tensor:
    return norms(x)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("call", [by_index, by_count], ids=lambda call: call.__name__)
@pytest.mark.parametrize("name", NORMS)
def test_norms_give_the_same_numbers_statistics_and_gradients(name, call, training):
    x = inputs(4, NORMS[name][2])
    ours, theirs = (made(library, name).train(training) for library in LIBRARIES.values())
    assert_same(normalized(ours, x, call), normalized(theirs, x, by_index), exact_states=True)


@pytest.mark.parametrize("name", GRADED)
def test_graded_spikes_give_the_same_numbers_and_gradients(name):
    x = inputs(1, GRADED[name][1])[0].detach().requires_grad_()
    outcomes = []
    for library in LIBRARIES.values():
        layer = made(library, f"graded, {name}")
        out = layer(x)
        grads = torch.autograd.grad((out * cotangent(out, 1)).sum(), (x, layer.weights))
        outcomes.append(Outcome({}, {"out": out.detach()}, dict(zip(("x", "weights"), grads, strict=True))))
    assert_same(*outcomes, exact_states=True)


def trained(library: ModuleType) -> list[float]:
    """Losses of a script that normalizes each step by its own norm, as snnTorch's users write it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.bntt = nn.Linear(10, 20), library.BatchNormTT1d(20, 8)
            self.lif1 = library.Leaky(beta=0.9)
            self.fc2, self.lif2 = nn.Linear(20, 4), library.Leaky(beta=0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            membranes = []
            for step in range(8):
                spk, mem1 = self.lif1(self.bntt[step](self.fc1(x)), mem1)
                _, mem2 = self.lif2(self.fc2(spk), mem2)
                membranes.append(mem2)
            return torch.stack(membranes)

    torch.manual_seed(5)
    net, losses = Net(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(5):
        x, y = torch.rand(16, 10), torch.randint(0, 4, (16,))
        loss = nn.functional.cross_entropy(net(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_training_script_gives_the_same_losses_after_a_change_of_its_import():
    ours, theirs = trained(snn), trained(snntorch)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(set(ours)) == len(ours)
