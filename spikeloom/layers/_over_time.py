"""The base of layers that are not neurons and depend on time, defined by their operation on a sequence."""

from typing import Any

from torch import Tensor, nn

from ..neurons import SpikingNeuron
from ..neurons._state import replicated
from ..neurons._unrolled_run import Visit, current_run, run_of


class OverTime(nn.Module):
    """Base of layers that act differently at each step, or store something from step to step.

    A subclass implements `over_time`, its operation on a sequence. A plain call processes a sequence of one step; in an
    unrolled network, a call processes the whole sequence. `spikeloom.utils.reset` calls `reset_mem`, and
    `spikeloom.utils.detach` calls `detach_mem`.

        >>> import torch, spikeloom as snn
        >>> class Difference(snn.layers.OverTime):
        ...     '''The change since the previous step.'''
        ...     before = torch.zeros(1)
        ...     def over_time(self, x):
        ...         series = torch.cat((self.before.expand(1, *x.shape[1:]), x))
        ...         self.before = series[-1:]
        ...         return series[1:] - series[:-1]
        ...     def reset_mem(self):
        ...         self.before = torch.zeros(1)
        >>> difference = Difference()
        >>> x = torch.tensor([[[1.0]], [[4.0]], [[2.0]]])
        >>> torch.cat([difference(x_t) for x_t in x]).flatten()
        tensor([ 1.,  3., -2.])
        >>> snn.utils.reset(difference)
        >>> snn.unroll(difference, x).flatten()
        tensor([ 1.,  3., -2.])
    """

    _unrolled_around: bool = False  # see `run_of`

    def over_time(self, x: Tensor) -> Tensor:
        """Process the next T steps, T >= 1, and update what the layer stores: [T, *S] -> [T, *R]."""
        raise NotImplementedError(f"{type(self).__name__} does not implement over_time, its operation on a sequence")

    def _carried(self) -> tuple[str, ...]:
        """The attributes that a step leaves for the next one, where the library knows them."""
        return ()

    def reset_mem(self) -> None:
        """Discard everything stored from previous steps."""

    def detach_mem(self) -> None:
        """Detach the stored tensors from their autograd graph; their values are preserved."""

    def forward(self, input_: Tensor) -> Tensor:
        """Process one step, [*S]; in an unrolled network all steps, with time folded into dimension 0."""
        unrolled = run_of(self)
        if unrolled is None:
            return self.over_time(input_.unsqueeze(0))[0]
        with unrolled.aside():
            unrolled.admit(self, ())
            x = unrolled.unfold(input_, self._label)
            out = self.over_time(x.expand(unrolled.steps, *x.shape[1:]))
            unrolled.note(self, Visit("torch", [], unrolled.is_repeated(x), out))
            return unrolled.fold(out)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()
        replicated(self, replica)
        return replica

    def _label(self) -> str:
        """The name of the layer in messages: its path while its network is unrolled."""
        unrolled, kind = current_run(), type(self).__name__
        return kind if unrolled is None else unrolled.label(self, kind)


SEES_TIME = (SpikingNeuron, OverTime)
"""The classes that process whole sequences in an unrolled network, and to which reset and detach apply."""
