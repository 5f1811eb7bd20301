"""One epoch of training per call, over whole sequences or in chunks.

A custom training loop is as short and can do more: see docs/training.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._torch import tree_map
from .network import unroll, why_by_steps
from .utils import detach, reset

__all__ = ["BPTT", "RTRL", "TBPTT"]

Criterion = Callable[[Tensor, Any], Tensor]
Regularization = Callable[[Tensor], Tensor]


def BPTT(
    net: nn.Module,
    dataloader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Regularization | bool = False,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Tensor:
    """Train for one epoch by backpropagation through time: one update per batch, through all of its steps.

    Args:
        net: a network that stores its states (init_hidden=True) and returns (spk, ..., mem), or spk alone if the
            criterion uses no membranes. It is moved to `device` and set to training mode.
        dataloader: yields (data, targets).
        optimizer: optimizer of the parameters of `net`.
        criterion: a function of the spikes [T, B, ...] and the targets; of the membranes if its `__name__` (or the name
            of its class) contains "membrane". If it has a true `time_var_targets`, targets are [T, B, ...].
        num_steps: T, for static data.
        time_var: whether the data varies over time: [T, B, ...]. Static data is [B, ...]. Default: True.
        time_first: False if the data is [B, T, ...]. Has no effect on static data. Default: True.
        regularization: a function of the spikes [T, B, ...] whose value is added to the loss.
        device: the device to which the network and the batches are moved.
        progress: show a progress bar over the batches; requires tqdm.

    Returns:
        the loss, averaged over the batches, without graph.

    Raises:
        ValueError: if `num_steps` is given for varying data or missing for static data; if there are no batches or no
            steps; if a batch is not (data, targets).
        TypeError: if the criterion uses membranes and the network returns spikes only.
        ImportError: if `progress` is True and tqdm is not installed.

    The network is unrolled if that gives the results of a loop over time, which is checked on the first batch;
    otherwise it runs step by step. So BatchNorm and Dropout in training mode process each step separately.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> def rate_loss(spk, targets):
        ...     return torch.nn.functional.cross_entropy(spk.mean(0), targets)
        >>> batches = [(torch.rand(20, 4, 3), torch.tensor([0, 1, 1, 0]))]
        >>> loss = snn.backprop.BPTT(net, batches, optimizer, rate_loss)
        >>> loss.shape, loss.requires_grad
        (torch.Size([]), False)
    """
    training = _Training(net, optimizer, criterion, num_steps, time_var, time_first, regularization, device, chunk=None)
    return training.epoch(dataloader, progress)


def TBPTT(
    net: nn.Module,
    dataloader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Regularization | bool = False,
    device: str | torch.device = "cpu",
    K: int = 1,
    progress: bool = False,
) -> Tensor:
    """Train for one epoch by truncated backpropagation through time: one update per chunk of K steps.

    States are carried from chunk to chunk without their graph. If K does not divide the number of steps, the last chunk
    of a batch is shorter. A sequence shorter than K is one chunk.

    Args:
        net, dataloader, optimizer, criterion, num_steps, time_var, time_first, regularization, device, progress: as for
            `BPTT`, with K in place of T. The criterion receives the same targets for every chunk, or the steps of the
            chunk if the targets vary over time.
        K: number of steps per chunk. Default: 1.

    Returns:
        the loss, averaged over the steps of a batch and then over the batches, without graph.

    Raises:
        ValueError: if K is not an integer from 1 to `num_steps`; and as `BPTT`.
        TypeError, ImportError: as `BPTT`.

    Source: Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", 1990.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> def membrane_loss(mem, targets):
        ...     return torch.nn.functional.cross_entropy(mem.mean(0), targets)
        >>> batches = [(torch.rand(20, 4, 3), torch.tensor([0, 1, 1, 0]))]
        >>> loss = snn.backprop.TBPTT(net, batches, optimizer, membrane_loss, K=5)
    """
    if not _is_count(K):
        raise ValueError(f"K is {K!r}; pass a number of steps, an integer of at least 1")
    training = _Training(net, optimizer, criterion, num_steps, time_var, time_first, regularization, device, int(K))
    return training.epoch(dataloader, progress)


def RTRL(
    net: nn.Module,
    dataloader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Regularization | bool = False,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Tensor:
    """Train for one epoch with one update per step: `TBPTT` with K = 1.

    snnTorch calls this real-time recurrent learning. Gradients stop at the beginning of the step.

    Args:
        net, dataloader, optimizer, criterion, num_steps, time_var, time_first, regularization, device, progress: as for
            `TBPTT`.

    Returns:
        the loss, averaged over steps and batches, without graph.

    Raises:
        ValueError, TypeError, ImportError: as `BPTT`.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> def rate_loss(spk, targets):
        ...     return torch.nn.functional.cross_entropy(spk.mean(0), targets)
        >>> static = [(torch.rand(4, 3), torch.tensor([0, 1, 1, 0]))]
        >>> loss = snn.backprop.RTRL(net, static, optimizer, rate_loss, num_steps=20, time_var=False)
    """
    training = _Training(net, optimizer, criterion, num_steps, time_var, time_first, regularization, device, chunk=1)
    return training.epoch(dataloader, progress)


# -- an epoch ----------------------------------------------------------------------------------------------------------


@dataclass
class _Training:
    """The arguments of the functions above, in their order; `chunk` is K, or None for all steps at once."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    num_steps: int | bool
    time_var: bool
    time_first: bool
    regularization: Regularization | bool
    device: str | torch.device
    chunk: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.net, nn.Module):
            raise TypeError(f"net is a {type(self.net).__name__}; pass a network, an nn.Module")
        if not callable(self.criterion):
            raise TypeError(f"criterion is a {type(self.criterion).__name__}; pass a function of outputs and targets")
        if self.time_var and self.num_steps:
            raise ValueError(
                f"num_steps is {self.num_steps} for data that varies over time, which has its own number of steps; "
                "omit num_steps, or pass time_var=False for static data"
            )
        if not self.time_var and not _is_count(self.num_steps):
            raise ValueError(
                f"num_steps is {self.num_steps!r}; with time_var=False pass the number of steps, an integer from 1"
            )
        if not self.time_var and self.chunk is not None and self.chunk > self.num_steps:
            raise ValueError(f"K is {self.chunk}, larger than num_steps, {self.num_steps}; pass at most num_steps")

    def epoch(self, dataloader: Iterable[Any], progress: bool) -> Tensor:
        self.net.to(self.device).train()
        run = None
        losses = []
        for batch in _with_bar(dataloader, progress):
            data, targets = self._read(batch)
            chunks = self._chunks(data)
            reset(self.net)
            run = run or _way_of_running(self.net, *chunks[0])
            losses.append(self._train(run, chunks, targets))
        if not losses:
            raise ValueError("the dataloader yielded no batch; pass one that yields (data, targets)")
        return torch.stack(losses).mean(0)

    def _train(self, run: Callable[..., Any], chunks: "list[_Chunk]", targets: Any) -> Tensor:
        """Make one update per chunk; return the loss averaged over the steps of the batch."""
        total, begin, steps = torch.zeros(()), 0, sum(_steps_of(chunk) for chunk in chunks)
        for data, num in chunks:
            end = begin + _steps_of((data, num))
            loss = self._loss(run(self.net, data, steps=num), targets, slice(begin, end))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            detach(self.net)
            total = total.to(loss) + loss.detach() * ((end - begin) / steps)
            begin = end
        return total

    def _loss(self, outputs: Any, targets: Any, steps: slice) -> Tensor:
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        spk, seen = outputs[0], outputs[0]
        name = getattr(self.criterion, "__name__", type(self.criterion).__name__)
        if "membrane" in name.lower():
            seen = outputs[-1]
            if len(outputs) < 2:
                raise TypeError(
                    f"the criterion {name} uses membranes, but {type(self.net).__name__} returned spikes alone; "
                    "make its last neuron with output=True"
                )
        if getattr(self.criterion, "time_var_targets", False):
            targets = targets[steps]
        loss = self.criterion(seen, targets)
        return loss + self.regularization(spk) if callable(self.regularization) else loss

    def _read(self, batch: Any) -> tuple[Tensor, Any]:
        """Data, time first, and targets, on the device."""
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Tensor)):
            raise ValueError(f"the dataloader yielded a {type(batch).__name__}; pass one that yields (data, targets)")
        data, targets = tree_map(lambda t: t.to(self.device) if isinstance(t, Tensor) else t, tuple(batch))
        return data if self.time_first or not self.time_var else data.transpose(0, 1), targets

    def _chunks(self, data: Tensor) -> "list[_Chunk]":
        if self.time_var:
            if not (data.dim() and len(data)):
                raise ValueError(f"the data has shape {tuple(data.shape)}, without steps; pass [T, B, ...]")
            return [(part, None) for part in data.split(self.chunk or len(data))]
        size = self.chunk or self.num_steps
        return [(data, min(size, self.num_steps - begin)) for begin in range(0, self.num_steps, size)]


_Chunk = tuple[Tensor, int | None]
"""Data [T, B, ...] and None, or data [B, ...] and T: the arguments of `unroll`."""


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and value >= 1


def _steps_of(chunk: _Chunk) -> int:
    data, steps = chunk
    return len(data) if steps is None else steps


def _way_of_running(net: nn.Module, data: Tensor, steps: int | None) -> Callable[..., Any]:
    if _steps_of((data, steps)) == 1 or why_by_steps(net, data, steps):
        return _by_steps
    return partial(unroll, check=False)  # already checked


def _by_steps(net: nn.Module, data: Tensor, steps: int | None) -> Any:
    """The outputs of all steps, stacked."""
    outs = [net(x) for x in (data.unbind(0) if steps is None else [data] * steps)]
    return tree_map(lambda *each: torch.stack(each), *outs)


def _with_bar(batches: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return batches
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("a progress bar requires tqdm; install it with: pip install tqdm") from error

    bar: Iterable[Any] = tqdm(batches, desc="training", unit="batch")
    return bar
