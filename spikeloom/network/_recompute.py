"""A part of a network under torch.utils.checkpoint: run again within the backward, from the states of the first run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from .._torch import graph_task
from ..layers import SEES_TIME
from ..neurons._checks import restarted
from ..neurons._time import current_time, time_is
from ._snapshot import Snapshot

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def recomputing(net: nn.Module) -> Callable[[], Contexts]:
    """What `torch.utils.checkpoint.checkpoint` has to know of the neurons that it runs twice: its `context_fn`.

    The second run, within the backward, starts from the states of the first, and leaves the network as the backward
    found it. It may stand around chunks of a sequence, around single steps, and within a network that is unrolled.

    Args:
        net: the network, or the part of it, that is checkpointed.

    Returns:
        a function of no arguments, for ``context_fn=``. The states before each run are kept until its backward.

        >>> import torch, spikeloom as snn
        >>> from torch.utils.checkpoint import checkpoint
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> loss = torch.zeros(())
        >>> for chunk in torch.rand(100, 2, 3).split(10):
        ...     spk = checkpoint(snn.unroll, net, chunk, use_reentrant=False, context_fn=snn.utils.recomputing(net))
        ...     loss = loss + spk.mean()
        >>> loss.backward()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"recomputing takes a network, an nn.Module; got {type(net).__name__}")

    def contexts() -> Contexts:
        run = _Run(net)
        return run.first(), run.again()

    return contexts


class _Run:
    """One run of what is checkpointed: from which states it started, and in which unrolled run it took part."""

    def __init__(self, net: nn.Module):
        self.layers = [module for module in net.modules() if isinstance(module, SEES_TIME)]

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the run within the forward."""
        time = current_time()
        if time is not None and time.origins is not None:
            raise RuntimeError("what is checkpointed cannot be followed to see which of its tensors are static")
        self.before = Snapshot(self.layers)
        self.time = None if time is None else replace(time, visits=dict(time.visits))
        yield
        self.versions = self.before.versions()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around the run within the backward."""
        if any(t._version != version for t, version in self.versions):
            raise RuntimeError(
                "a parameter or buffer of a neuron was modified in place since the run that is checkpointed, which the "
                "backward makes again; call backward() before that, as before the step of the optimizer"
            )
        now, backward = Snapshot(self.layers), graph_task()

        def restore() -> None:
            if graph_task() == backward:  # not where Ctrl-C left this context, which Python closes some time later
                now.restore()

        try:
            try:
                self.before.stand_in()
                for layer in self.layers:
                    restarted(layer)
                with time_is(None if self.time is None else replace(self.time, visits=dict(self.time.visits))):
                    yield
            finally:
                restore()
        finally:
            restore()  # again, for Ctrl-C may have come within the first
