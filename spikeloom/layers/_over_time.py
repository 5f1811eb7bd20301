"""What a layer needs to see time without being a neuron: its work on a sequence, said once."""

from typing import Any

from torch import Tensor, nn

from ..neurons import SpikingNeuron
from ..neurons._state import replicated
from ..neurons._unrolled_run import Visit, current_run, run_of


class OverTime(nn.Module):
    """Base of layers that do something else at each step, or keep something from step to step.

    A subclass says in `over_time` what it does to a sequence. A plain call is a sequence of one step; while the network
    is unrolled, a call is the whole sequence. `spikeloom.utils.reset` calls `reset_mem`, and `spikeloom.utils.detach`
    calls `detach_mem`.

        >>> import torch, spikeloom as snn
        >>> class Difference(snn.layers.OverTime):
        ...     '''What changed since the step before.'''
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
        """What the layer makes of the next T steps, [T, *S] -> [T, *R], T at least 1; it counts and keeps for later."""
        raise NotImplementedError(f"{type(self).__name__} does not say in over_time what it does to a sequence")

    def reset_mem(self) -> None:
        """Forget all steps before."""

    def detach_mem(self) -> None:
        """Cut what is kept from the graph that made it; its values stay."""

    def forward(self, input_: Tensor) -> Tensor:
        """One step, [*S]; or, while the network is unrolled, all of them, with time folded into dimension 0."""
        unrolled = run_of(self)
        if unrolled is None:
            return self.over_time(input_.unsqueeze(0))[0]
        with unrolled.aside():
            unrolled.admit(self, ())
            x = unrolled.unfold(input_, self._label())
            out = self.over_time(x.expand(unrolled.steps, *x.shape[1:]))
            unrolled.note(self, Visit("torch", [], len(x) == 1 != unrolled.steps, out))
            return unrolled.fold(out)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()
        replicated(self, replica)
        return replica

    def _label(self) -> str:
        """How messages name the layer: by its path while its network is unrolled."""
        unrolled, kind = current_run(), type(self).__name__
        return kind if unrolled is None else unrolled.label(self, kind)


SEES_TIME = (SpikingNeuron, OverTime)
"""What runs over the whole sequence while a network is unrolled, and is reached by reset and detach."""
