"""Utilities for training loops: reset and detach, seed, summary, validation split."""

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

__all__ = [
    "Summary", "data_subset", "detach", "free_memory", "recomputing", "reset", "seed", "summary", "valid_split",
]  # fmt: skip


def reset(net: nn.Module) -> None:
    """Reset every state of every neuron in a network to its initial value, usually zero, before a new input.

    Also resets the state of other layers: the contents of delays, and step counters.

    Args:
        net: a network or a layer; its layers may be nested and wrapped to any depth. Other networks are not
            affected.

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
    """Detach every state of every neuron in a network from its graph; the values stay.

    Call it between two chunks of a sequence, for truncated backpropagation through time. The contents of delays are
    detached too. Outputs keep their graph, step by step and unrolled, so a loss may be computed from them later. If you
    pass states explicitly, the next step detaches the state that you pass to it.

    Args:
        net: a network or a layer; its layers may be nested and wrapped to any depth.

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
    """Release unused memory to the system.

    Releases the memory blocks of freed large results, which are cached for reuse (at most 1 GiB), and the free memory
    of the C heap. Existing results are not affected. The next large results are slower, because they use fresh memory.
    On a GPU, also deletes the CUDA graphs of wide recurrent layers.

        >>> import spikeloom as snn
        >>> snn.utils.free_memory()
    """
    buffer_pool.release()
    cuda_graphs.release()
    buffer_pool.trim()


# -- random numbers ---------------------------------------------------------------------------------------------------


def seed(number: int | None = None) -> int:
    """Seed the random generators of Python, NumPy, and PyTorch on every device.

    This also determines the shuffling of a DataLoader that is created or iterated later, and the seeds of its workers.

    Args:
        number: the seed, 0 to 2**32 - 1. Default: None, a new seed from the operating system.

    Returns:
        the seed. Store it with the results: ``seed(number)`` reproduces the random numbers.

    Raises:
        TypeError, ValueError: for any other value, before anything is seeded.

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
        raise TypeError(f"seed got {number!r}; pass an integer, or nothing for a new seed")
    number = number.__index__()
    if not 0 <= number < 2**32:
        raise ValueError(f"seed got {number}; pass a number from 0 to 2**32 - 1, the range that NumPy accepts")
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)  # CUDA too, also if it starts later
    return number


# -- data -------------------------------------------------------------------------------------------------------------


def data_subset(dataset: Any, subset: float, idx: int = 0) -> Any:
    """Reduce a dataset, in place, to one of `subset` equal parts, for a quick trial.

    Each part has N // subset of the N entries; the remainder is a last, shorter part.

    Args:
        dataset: a dataset with `.data` and `.targets`, each a tensor, array or list, such as torchvision's MNIST.
        subset: number of parts; 1 or less keeps all entries.
        idx: index of the part, from 0. Default: 0.

    Returns:
        the same dataset.

    Raises:
        AttributeError: if the dataset has no `.data` or `.targets`.
        TypeError: if subset or idx is not a number.
        ValueError: if subset is not an integer, or if the part is empty. The dataset is then unchanged.

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
        raise ValueError(f"subset is {subset}; pass an integer number of parts")
    size = len(data) // int(subset)
    idx = whole(idx, "idx", least=None)
    part = slice(idx * size, (idx + 1) * size)
    if idx < 0 or not len(data[part]):
        raise ValueError(f"part {idx} of {len(data)} entries in {subset} parts is empty; pass a smaller subset or idx")
    dataset.data, dataset.targets = data[part], targets[part]
    return dataset


def valid_split(ds_train: Any, ds_val: Any, split: float, seed: int = 0) -> tuple[Any, Any]:
    """Split the entries of a training set, in place and at random, into a training set and a validation set.

    Of N entries, ``int(split * N)`` move to `ds_val`, in their order; the others stay in `ds_train`, in random order.

    Args:
        ds_train: a dataset with `.data` and `.targets`, each a tensor, array or list, such as torchvision's MNIST.
        ds_val: the dataset that receives the validation entries instead of its own. It may have other transforms.
        split: share of the validation entries, in [0, 1].
        seed: seed of the split; no other random generator is affected. Default: 0.

    Returns:
        ds_train and ds_val, the same objects.

    Raises:
        AttributeError: if `ds_train` has no `.data` or `.targets`.
        TypeError: if split is not a number, or seed is not an integer.
        ValueError: if split is not in [0, 1], or seed is negative.

        >>> from types import SimpleNamespace
        >>> import torch, spikeloom as snn
        >>> train = SimpleNamespace(data=torch.arange(10), targets=torch.arange(10) % 2)
        >>> train, valid = snn.utils.valid_split(train, SimpleNamespace(), split=0.3)
        >>> len(train.data), valid.data
        (7, tensor([6, 7, 8]))
    """
    data, targets = _data_of(ds_train)
    if not 0 <= _number(split, "split") <= 1:
        raise ValueError(f"split is {split}; pass the share of validation entries, from 0 to 1")

    total = len(data)
    training = np.random.default_rng(whole(seed, "seed")).choice(total, total - int(split * total), replace=False)
    held = np.setdiff1d(np.arange(total), training)
    ds_train.data, ds_train.targets = _taken(data, training), _taken(targets, training)
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
