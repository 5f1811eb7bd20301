"""Training in one call, and parts of datasets."""

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .fix import Fix, error_of

STEPS = 6


def backprop(snn: ModuleType) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"{snn.__name__}.backprop")


def rate_loss(spk: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(spk.mean(0), labels)


def ce_rate_loss(spk: Tensor, labels: Tensor) -> Tensor:
    return rate_loss(spk, labels)


def trained(
    snn: ModuleType, way: str, criterion: Any = ce_rate_loss, shape: Any = (4, 3), first: Any = (), **options: Any
) -> Any:
    """The loss of an epoch of one batch, [B, N] for data that do not vary."""
    net = nn.Sequential(*first, nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    data = [(torch.rand(shape), torch.tensor([0, 1, 1, 0]))]
    return getattr(backprop(snn), way)(net, data, optimizer, criterion, **options)


STATIC: dict[str, Any] = {"time_var": False, "num_steps": STEPS}
SEQUENCE: dict[str, Any] = {"shape": (STEPS, 4, 3)}


def error(way: str, **options: Any) -> Callable[[ModuleType], str]:
    return lambda snn: error_of(lambda: trained(snn, way, **options))


def two_kinds(snn: ModuleType) -> str:
    """Chunks through a network of two kinds of neurons."""
    first = [nn.Linear(3, 3), snn.Synaptic(alpha=0.9, beta=0.8, init_hidden=True)]
    return error_of(lambda: trained(snn, "TBPTT", first=first, **STATIC, K=2))


def keeps_a_graph(snn: ModuleType) -> bool:
    return trained(snn, "BPTT", **SEQUENCE).requires_grad


def mean_of_ones(snn: ModuleType) -> float:
    """The mean loss where the loss of every chunk is one; four steps and two."""

    def ce_rate_loss(spk: Tensor, labels: Tensor) -> Tensor:
        return spk.mean() * 0 + 1

    return round(trained(snn, "TBPTT", ce_rate_loss, **STATIC, K=4).item(), 4)


def warned(snn: ModuleType) -> list[str]:
    module = backprop(snn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.reload(module)
    return [warning.category.__name__ for warning in caught]


class Nameless(nn.Module):
    """A criterion as torch's own are."""

    def forward(self, spk: Tensor, labels: Tensor) -> Tensor:
        return rate_loss(spk, labels)


def activity(spk: Tensor) -> Tensor:
    return 0.1 * spk.mean()


# -- utils -------------------------------------------------------------------------------------------------------------


class Dataset(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.data)


def digits(make: Any = torch.arange) -> Dataset:
    return Dataset(data=make(10), targets=make(10))


def listed(entries: int) -> list[int]:
    return list(range(entries))


def utils(snn: ModuleType) -> Any:
    return importlib.import_module(f"{snn.__name__}.utils")


CRITERION_ROW = "a custom criterion or regularization, such as an `nn.Module`"
SEQUENCE_ROW = "`backprop.TBPTT` and `RTRL` with `time_var=True`"
K_ROW = "`TBPTT` with a `K` of zero or below"
LIST_ROW = "`data_subset` and `valid_split` of datasets that hold lists"

FIXES: dict[str, Fix] = {
    "TBPTT over sequences": Fix(SEQUENCE_ROW, error("TBPTT", **SEQUENCE), "UnboundLocalError", "nothing"),
    "RTRL over sequences": Fix(SEQUENCE_ROW, error("RTRL", **SEQUENCE), "UnboundLocalError", "nothing"),
    "two kinds of neurons": Fix(
        "`TBPTT` and `RTRL` with several kinds of neurons", two_kinds, "RuntimeError", "nothing"
    ),
    "static data, batch first": Fix(
        "`backprop` with `time_var=False, time_first=False`",
        error("BPTT", **STATIC, time_first=False),
        "ValueError",
        "nothing",
    ),
    "a criterion of another name": Fix(
        CRITERION_ROW, error("BPTT", criterion=rate_loss, **SEQUENCE), "UnboundLocalError", "nothing"
    ),
    "a criterion without a name": Fix(
        CRITERION_ROW, error("BPTT", criterion=Nameless(), **SEQUENCE), "AttributeError", "nothing"
    ),
    "a regularization of another name": Fix(
        CRITERION_ROW, error("BPTT", regularization=activity, **SEQUENCE), "UnboundLocalError", "nothing"
    ),
    "a loss with its graph": Fix("the loss that `backprop` returns", keeps_a_graph, True, False),
    "K does not divide the steps": Fix(
        "the loss of `TBPTT` where `K` does not divide the steps", mean_of_ones, round(4 / 6 + 1 / 2, 4), 1.0
    ),
    "K of zero": Fix(K_ROW, error("TBPTT", **STATIC, K=0), "ZeroDivisionError", "ValueError"),
    "K below zero": Fix(K_ROW, error("TBPTT", **STATIC, K=-1), "nothing", "ValueError"),
    "backprop is deprecated": Fix("importing `backprop`", warned, ["DeprecationWarning"], []),
    "a part with nothing in it": Fix(
        "`data_subset` with a part beyond the end of the data",
        lambda snn: error_of(lambda: utils(snn).data_subset(digits(), 3, 4)),
        "nothing",
        "ValueError",
    ),
    "a subset of lists": Fix(
        LIST_ROW, lambda snn: error_of(lambda: utils(snn).data_subset(digits(listed), 3)), "TypeError", "nothing"
    ),
    "a split of lists": Fix(
        LIST_ROW,
        lambda snn: error_of(lambda: utils(snn).valid_split(digits(listed), digits(listed), 0.3)),
        "TypeError",
        "nothing",
    ),
}
