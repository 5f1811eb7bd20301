"""What is written by hand around every network: reset and detach, a seed, a summary, a validation split."""

import numbers
import random
import secrets
from typing import Any

import numpy as np
import torch
from torch import nn

from .engine.gpu import cuda_graphs
from .engine.jit import buffer_pool
from .inspect import Summary as Summary
from .inspect import summary as summary
from .layers import SEES_TIME
from .network import recomputing as recomputing
from .spikegen._inputs import whole


def reset(net: nn.Module) -> None:
    """Set every state of every neuron in a network to what it starts from, nearly always zero, before a new input.

    Also what other layers keep from step to step: the inputs on their way through delays, the counts of steps.

    Args:
        net: the network, or one layer; its layers may be nested and wrapped to any depth. Other networks are left
            alone.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(snn.Leaky(beta=0.5, init_hidden=True))
        >>> _ = net(torch.full((1, 2), 0.75))
        >>> snn.utils.reset(net)
        >>> net[0].mem
        tensor([[0., 0.]])
    """
    for layer in _stateful(net):
        layer.reset_mem()


def detach(net: nn.Module) -> None:
    """Cut every state of every neuron in a network from the graph that made it; the values stay.

    For truncated backpropagation through time: between two chunks of one sequence. Also cut are the inputs on their way
    through delays. What calls have returned keeps its graph, step by step as unrolled: a loss may be made of it later.
    Where the last state that a step has returned is passed to the next step by hand, it is taken without its graph.

    Args:
        net: the network, or one layer; its layers may be nested and wrapped to any depth.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), snn.Leaky(beta=0.5, init_hidden=True))
        >>> for chunk in torch.rand(100, 1, 2).split(25):
        ...     snn.unroll(net, chunk).sum().backward()
        ...     snn.utils.detach(net)
        >>> net[1].mem.requires_grad
        False
    """
    for layer in _stateful(net):
        layer.detach_mem()


def _stateful(net: nn.Module) -> list[Any]:
    if not isinstance(net, nn.Module):
        raise TypeError(f"pass a network, an nn.Module; got {type(net).__name__}")
    return [module for module in net.modules() if isinstance(module, SEES_TIME)]


# -- memory -----------------------------------------------------------------------------------------------------------


def free_memory() -> None:
    """Give memory that is not in use back to the system.

    The blocks behind large results are kept when these die, to be used again (1 GiB at most); and the C library keeps
    what was freed between things that live. Results that still exist are left alone. The next large ones take fresh
    memory, which is slower the first time. On a GPU the recorded steps of wide recurrent layers go, too.

        >>> import spikeloom as snn
        >>> snn.utils.free_memory()
    """
    buffer_pool.release()
    cuda_graphs.release()
    buffer_pool.trim()


# -- chance -----------------------------------------------------------------------------------------------------------


def seed(number: int | None = None) -> int:
    """Seed every generator that a training draws from: Python's, NumPy's, and torch's on every device.

    A DataLoader that is made or iterated later shuffles by it too, and seeds its workers by it.

    Args:
        number: 0 to 2**32 - 1; None takes a new one from the operating system.

    Returns:
        the number. Keep it with the results: ``seed(number)`` draws the same again.

    Raises:
        TypeError, ValueError: for another number, before anything is seeded.

        >>> import torch, spikeloom as snn
        >>> number = snn.utils.seed()
        >>> drawn = torch.rand(3)
        >>> snn.utils.seed(number) == number
        True
        >>> torch.equal(torch.rand(3), drawn)
        True
    """
    if number is None:
        number = secrets.randbits(32)
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"seed got {number!r}; pass a whole number, or nothing for a new one")
    number = number.__index__()
    if not 0 <= number < 2**32:
        raise ValueError(f"seed got {number}; pass a number from 0 to 2**32 - 1, which is what NumPy takes")
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)  # CUDA too, also if it starts later
    return number


# -- data -------------------------------------------------------------------------------------------------------------


def data_subset(dataset: Any, subset: float, idx: int = 0) -> Any:
    """Shorten a dataset, in place, to one of `subset` equal parts: for a quick trial.

    With N entries the parts have N // subset entries each; what remains is a last, shorter part.

    Args:
        dataset: has `.data` and `.targets`, each a tensor, an array or a list, as torchvision's MNIST has.
        subset: how many parts; 1 or less keeps everything.
        idx: which part, from 0.

    Returns:
        the same dataset.

    Raises:
        AttributeError: for a dataset without `.data` and `.targets`.
        TypeError: for a subset or an idx that is no number.
        ValueError: for a subset that is not whole, or a part in which there is nothing. The dataset is then as it was.

        >>> from types import SimpleNamespace
        >>> import torch, spikeloom as snn
        >>> digits = SimpleNamespace(data=torch.arange(10), targets=torch.arange(10) % 2)
        >>> snn.utils.data_subset(digits, 3, idx=1).data
        tensor([3, 4, 5])
    """
    data, targets = _data_of(dataset)
    if _number(subset, "subset") <= 1:
        return dataset
    if subset % 1:
        raise ValueError(f"subset is {subset}; pass a whole number of parts")
    size = len(data) // int(subset)
    idx = whole(idx, "idx", least=None)
    part = slice(idx * size, (idx + 1) * size)
    if idx < 0 or not len(data[part]):
        raise ValueError(f"part {idx} of {len(data)} entries in {subset} parts is empty; give a smaller subset or idx")
    dataset.data, dataset.targets = data[part], targets[part]
    return dataset


def valid_split(ds_train: Any, ds_val: Any, split: float, seed: int = 0) -> tuple[Any, Any]:
    """Split the entries of a training set, in place, at random, into a training set and a validation set.

    Of N entries, ``int(split * N)`` go to `ds_val`, in their order; the others stay in `ds_train`, in the order drawn.

    Args:
        ds_train: has `.data` and `.targets`, each a tensor, an array or a list, as torchvision's MNIST has.
        ds_val: receives its part; what it held is replaced. It may have other transforms.
        split: the share to validate on, 0 to 1.
        seed: of the draw. It touches no other random numbers.

    Returns:
        both, the same objects.

    Raises:
        AttributeError: for a `ds_train` without `.data` and `.targets`.
        TypeError: for a split that is no number, or a seed that is not whole.
        ValueError: for a split that is no share, or a negative seed.

        >>> from types import SimpleNamespace
        >>> import torch, spikeloom as snn
        >>> train = SimpleNamespace(data=torch.arange(10), targets=torch.arange(10) % 2)
        >>> train, valid = snn.utils.valid_split(train, SimpleNamespace(), split=0.3)
        >>> len(train.data), valid.data
        (7, tensor([6, 7, 8]))
    """
    data, targets = _data_of(ds_train)
    if not 0 <= _number(split, "split") <= 1:
        raise ValueError(f"split is {split}; pass the share to validate on, from 0 to 1")
    total = len(data)
    kept = np.random.default_rng(whole(seed, "seed")).choice(total, total - int(split * total), replace=False)
    held = np.setdiff1d(np.arange(total), kept)
    ds_train.data, ds_train.targets = _taken(data, kept), _taken(targets, kept)
    ds_val.data, ds_val.targets = _taken(data, held), _taken(targets, held)
    return ds_train, ds_val


def _data_of(dataset: Any) -> tuple[Any, Any]:
    if not (hasattr(dataset, "data") and hasattr(dataset, "targets")):
        raise AttributeError(
            f"the {type(dataset).__name__} has no .data and .targets; for other datasets use torch.utils.data.Subset "
            "or torch.utils.data.random_split"
        )
    data, targets = dataset.data, dataset.targets
    if len(data) != len(targets):
        raise ValueError(
            f"the {type(dataset).__name__} has {len(data)} entries in .data and {len(targets)} in .targets"
        )
    return data, targets


def _number(value: Any, name: str) -> Any:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; pass a number")
    return value


def _taken(values: Any, rows: Any) -> Any:
    return [values[row] for row in rows] if isinstance(values, (list, tuple)) else values[rows]
