"""What is built for PyTorch takes these networks as they are: optimizers, metrics, Lightning, accelerate; examples."""

import copy
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import spikeloom as snn

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 16),
        snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True, learn_beta=True),
        nn.Linear(16, 3),
        snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True, output=True, learn_threshold=True),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes that differ in the two inputs that are high."""
    labels = torch.arange(30) % 3
    x = 0.2 * torch.rand(30, 6, generator=torch.Generator().manual_seed(1))
    x[torch.arange(30), 2 * labels] += 1
    x[torch.arange(30), 2 * labels + 1] += 1
    return x, labels


def counts(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=8)[0].sum(0)


def loss_of(net: nn.Module) -> torch.Tensor:
    x, labels = data()
    return nn.functional.cross_entropy(counts(net, x), labels)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.02, fused=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.02),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.05, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    """With a closure, which all of them take, and LBFGS calls several times."""
    torch.manual_seed(1)
    net = network()
    before = {key: p.clone() for key, p in net.named_parameters()}
    optimizer = OPTIMIZERS[name](net.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.7)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        return loss

    first = loss_of(net).item()
    for _ in range(25):
        optimizer.step(closure)
        scheduler.step()
    assert loss_of(net).item() < 0.6 * first
    assert not [key for key, p in net.named_parameters() if torch.equal(p, before[key])], "some parameters did not move"


def test_an_optimizer_goes_on_from_a_checkpoint(tmp_path):
    def trained(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(net).backward()
            optimizer.step()

    straight, stopped = network(), network()
    stopped.load_state_dict(straight.state_dict())
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.02) for net in (straight, stopped)]
    trained(straight, optimizers[0], 6)
    trained(stopped, optimizers[1], 3)
    torch.save({"net": stopped.state_dict(), "optimizer": optimizers[1].state_dict()}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt")
    again = network()
    optimizer = torch.optim.Adam(again.parameters(), lr=0.02)
    again.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    trained(again, optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_weights_are_averaged_while_a_state_has_a_graph():
    net = network()
    loss_of(net)
    average = AveragedModel(net)
    average.update_parameters(net)
    with torch.no_grad():
        assert torch.equal(counts(average, data()[0]), counts(net, data()[0]))


def test_gradients_may_be_accumulated_over_batches():
    net, twin = (copy.deepcopy(net) for net in [network()] * 2)
    x, labels = data()
    nn.functional.cross_entropy(counts(net, x), labels).backward()
    for part in torch.arange(30).split(10):
        (nn.functional.cross_entropy(counts(twin, x[part]), labels[part]) / 3).backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_torchmetrics_counts_what_is_counted_by_hand():
    classification = pytest.importorskip("torchmetrics.classification")
    net, (x, labels) = network(), data()
    accuracy = classification.MulticlassAccuracy(num_classes=3, average="micro")
    confusion = classification.MulticlassConfusionMatrix(num_classes=3)
    for part in torch.arange(30).split(7):
        spikes = counts(net, x[part])
        accuracy.update(spikes, labels[part])
        confusion.update(spikes, labels[part])
    right = (counts(net, x).argmax(1) == labels).float().mean()
    assert accuracy.compute() == right
    assert confusion.compute().diagonal().sum() == 30 * right


def test_accelerate_prepares_a_network_as_it_is():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    net = network()
    net, optimizer = accelerator.prepare(net, torch.optim.Adam(net.parameters(), lr=0.02))
    first = loss_of(net).item()
    for _ in range(20):
        optimizer.zero_grad()
        accelerator.backward(loss_of(net))
        optimizer.step()
    assert loss_of(net).item() < 0.6 * first


# -- the examples ------------------------------------------------------------------------------------------------------


def run(example: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_plain_loop_runs_from_the_command_line_and_learns():
    pytest.importorskip("sklearn")
    printed = run("plain_loop.py", "--epochs", "2", "--seed", "0")
    assert printed.startswith("seed 0: 1438 digits to train, 359 to validate\n")
    accuracies = [float(line.split()[-1].rstrip("%")) for line in printed.splitlines() if line.startswith("epoch")]
    assert len(accuracies) == 2
    assert accuracies[-1] > 93
    assert "firing rate" in printed


@pytest.fixture
def lightning_example(monkeypatch) -> dict:
    for package in ("sklearn", "torchmetrics"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(EXAMPLES)
    return runpy.run_path(str(EXAMPLES / "lightning_digits.py"))


def test_the_lightning_example_trains_or_says_that_lightning_is_absent(lightning_example, monkeypatch, capsys):
    if lightning_example["HAS_LIGHTNING"]:
        printed = run("lightning_digits.py", "--epochs", "3").split()
        assert printed[-3:-1] == ["validation", "accuracy"]
        assert float(printed[-1].rstrip("%")) > 90
    else:
        monkeypatch.setattr(sys, "argv", ["lightning_digits.py"])
        lightning_example["main"]()
        message = "this example requires Lightning; install it with: pip install lightning\n"
        assert capsys.readouterr().out == message


def test_the_steps_of_the_lightning_example_are_those_of_a_plain_loop(lightning_example):
    """Lightning calls these methods; here a loop does, and a list takes the place of its log."""
    snn.utils.seed(0)
    batches, held_out = lightning_example["data"](0)
    module = lightning_example["Digits"]()
    logged: dict[str, object] = {}
    module.log = lambda name, value, **options: logged.update({name: value})
    optimizer = module.configure_optimizers()
    for _ in range(2):
        for number, batch in enumerate(batches):
            loss = module.training_step(batch, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for number, batch in enumerate(held_out):
            module.validation_step(batch, number)
    assert logged["loss"] is loss
    assert logged["validation accuracy"].compute() > 0.9
    assert sum(p.numel() for p in module.parameters()) == 9610, "a metric or a state became a parameter"
