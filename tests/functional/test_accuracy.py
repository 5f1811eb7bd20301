"""Accuracies on their own and beside torchmetrics; penalties against their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import functional

from ..oracle import assert_close

T, B, C = 10, 40, 6


def spikes(seed: int = 1, share: float = 0.2) -> torch.Tensor:
    return (torch.rand(T, B, C, generator=torch.Generator().manual_seed(seed)) < share).float()


LABELS = torch.randint(0, C, (B,), generator=torch.Generator().manual_seed(2))


def test_rate_counts_the_spikes():
    right = spikes().sum(0).numpy().argmax(1) == LABELS.numpy()
    assert 0 < functional.accuracy_rate(spikes(), LABELS) == right.mean() < 1


def test_temporal_takes_the_first_to_fire_and_of_equal_ones_the_first_neuron():
    times = np.where(spikes().any(0), spikes().numpy().argmax(0), T - 1)
    right = times.argmin(1) == LABELS.numpy()
    assert 0 < functional.accuracy_temporal(spikes(), LABELS) == right.mean() < 1


def test_a_population_votes_together():
    pooled = spikes().view(T, B, 3, 2).sum(3)
    assert functional.accuracy_rate(spikes(), LABELS % 3, True, 3) == functional.accuracy_rate(pooled, LABELS % 3)


@pytest.mark.parametrize("accuracy", [functional.accuracy_rate, functional.accuracy_temporal])
def test_a_numpy_float64_comes_out_and_no_gradient_is_needed(accuracy):
    for spk in (spikes(), spikes().half(), spikes().bool(), spikes().double().requires_grad_()):
        found = accuracy(spk, LABELS.int())
        assert type(found) is np.float64
        assert found == accuracy(spikes(), LABELS)


REFUSED = {
    "classes": ((spikes(), LABELS, True), "got population_code=True and num_classes=False; set num_classes"),
    "neurons": ((spikes(), LABELS, True, 4), "got 6 output neurons for 4 classes; pass a multiple of 4"),
    "labels": ((spikes(), LABELS[:4]), r"got targets of the shape \[4\]; pass class labels, \[40\]"),
    "shape": ((spikes()[0], LABELS), r"got spk_out of the shape \[40, 6\]; pass \[T, B, C\], time first"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_refused_by_a_sentence(which):
    arguments, message = REFUSED[which]
    with pytest.raises(ValueError, match=f"accuracy_rate {message}"):
        functional.accuracy_rate(*arguments)


def test_torchmetrics_works_on_what_a_network_returns():
    """Two batches: the metric over both is the mean of the accuracies."""
    classification = pytest.importorskip("torchmetrics.classification")
    metric = classification.MulticlassAccuracy(num_classes=C, average="micro")
    confusion = classification.MulticlassConfusionMatrix(num_classes=C)
    net = nn.Sequential(nn.Linear(8, C), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    accuracies = []
    for seed in (1, 2):
        x = torch.rand(B, 8, generator=torch.Generator().manual_seed(seed)) * 4
        snn.utils.reset(net)
        spk, mem = snn.unroll(net, x, steps=T)
        loss = functional.ce_max_membrane_loss()(mem, LABELS)
        loss.backward()
        metric.update(spk.sum(0), LABELS)
        confusion.update(spk.sum(0), LABELS)
        accuracies.append(functional.accuracy_rate(spk, LABELS))
    assert metric.compute().item() == pytest.approx(np.mean(accuracies))
    assert confusion.compute().diagonal().sum() == round(np.mean(accuracies) * 2 * B)


def test_torchmetrics_averages_losses():
    aggregation = pytest.importorskip("torchmetrics.aggregation")
    mean, losses = aggregation.MeanMetric(), []
    for seed in (1, 2, 3):
        losses.append(functional.ce_rate_loss()(spikes(seed), LABELS))
        mean.update(losses[-1])
    assert_close(mean.compute(), torch.stack(losses).mean(), "mean")


# -- penalties ---------------------------------------------------------------------------------------------------------

RATES = torch.tensor([[0.0, 0.1, 0.5], [1.0, 0.2, 0.3]])
FIRED = (torch.arange(T).view(T, 1, 1) < RATES * T - 1e-3).double()
FORMULAS = {
    "rate_lower_bound(bound=0.2)": (0.2**2 + 0.1**2) / 6,
    "rate_lower_bound(bound=0.2, Lambda=3.0)": 3 * (0.2**2 + 0.1**2) / 6,
    "rate_lower_bound()": 0.01**2 / 6,
    "rate_upper_bound(bound=0.4)": (0.5 - 0.4) ** 2 / 2,
    "rate_upper_bound(bound=0.1, Lambda=2.0)": 2 * (0.1**2 + 0.4**2) / 2,
    "rate_upper_bound(bound=0.4, per_neuron=True)": (0.1**2 + 0.6**2) / 6,
    "l1_rate_sparsity(Lambda=0.5)": 0.5 * 21,
    "l1_rate_sparsity()": 1e-5 * 21,
}


@pytest.mark.parametrize("text", FORMULAS)
def test_penalties_are_their_formulas(text):
    penalty = eval(text, vars(functional))
    assert repr(penalty) == text
    assert_close(penalty(FIRED), torch.tensor(FORMULAS[text], dtype=torch.float64), text)
    assert torch.autograd.gradcheck(penalty, FIRED.clone().requires_grad_())


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool], ids=str)
def test_penalties_keep_double_precision_and_widen_half(text, dtype):
    penalty = eval(text, vars(functional))(FIRED.to(dtype))
    assert penalty.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert penalty == pytest.approx(FORMULAS[text], rel=1e-5)


def test_a_hundred_thousand_spikes_in_half_precision_are_not_infinity():
    assert functional.l1_rate_sparsity(1e-5)(torch.ones(100, 10, 100).half()) == pytest.approx(1.0)


@pytest.mark.parametrize("bound", ["upper", "lower"])
def test_a_bound_moves_the_rate_to_its_side(bound):
    """Plain training on a bound alone: a busy layer calms down, a lazy one wakes."""
    net = nn.Sequential(nn.Linear(4, 20), snn.Leaky(beta=0.8, init_hidden=True))
    x = torch.rand(16, 4) * (4 if bound == "upper" else 1)
    penalty = functional.rate_upper_bound(0.1) if bound == "upper" else functional.rate_lower_bound(0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    rates = []
    for _ in range(150):
        snn.utils.reset(net)
        spk = snn.unroll(net, x, steps=25)
        rates.append(spk.mean().item())
        optimizer.zero_grad()
        penalty(spk).backward()
        optimizer.step()
    assert (rates[0] > 0.2 and rates[-1] < 0.12) if bound == "upper" else (rates[0] < 0.1 and rates[-1] > 0.4), rates
