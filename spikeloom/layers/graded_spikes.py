"""Spikes that are scaled by a learned amplitude per neuron."""

import torch
from torch import Tensor, nn

from ..neurons._state import checked_input
from ._over_time import OverTime


class GradedSpikes(OverTime):
    """Multiply the spikes of each neuron by a learned weight.

    out[..., n, ...] = weights[n] x[..., n, ...], n along `dim`

    Args:
        size: N, the number of weights.
        constant_factor: what all weights start from; if it is zero, False or None, each is drawn from 0.5 to 1.5.
        dim: the dimension of the neurons in one step of the input. 0, as in snnTorch, is that of data without a batch,
            [N, ...]; for [B, N] and [B, N, ...] give 1.

    Shapes:
        x and what is returned: one step of any shape whose dimension `dim` is N; `dim` counts the dimensions of a step
        also while the network is unrolled.

    Raises:
        ValueError: for an input whose dimension `dim` is not N.
        IndexError: for an input that has no such dimension.

        >>> import torch, spikeloom as snn
        >>> graded = snn.GradedSpikes(3, constant_factor=2.0, dim=1)
        >>> graded(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])).tolist()
        [[2.0, 0.0, 2.0], [0.0, 0.0, 2.0]]
    """

    def __init__(self, size: int, constant_factor: float | Tensor | None, *, dim: int = 0):
        super().__init__()
        start = torch.ones(size, 1) * constant_factor if constant_factor else torch.rand(size, 1) + 0.5
        self.weights = nn.Parameter(start.to(torch.get_default_dtype()))
        self.dim = dim

    def forward(self, input_: Tensor) -> Tensor:
        """One step, [*S]; or, while the network is unrolled, all of them, with time folded into dimension 0."""
        dim = self._resolved(input_.dim())
        # only dimension 0 is another one in a sequence
        return self._scaled(input_, dim) if dim else super().forward(input_)

    def over_time(self, x: Tensor) -> Tensor:
        """[T, *S] -> the same shape."""
        return self._scaled(x, self._resolved(x.dim() - 1) + 1)

    def extra_repr(self) -> str:
        return f"{len(self.weights)}, dim={self.dim}"

    def _resolved(self, dims: int) -> int:
        """The dimension, from the left, in a step that has so many."""
        if not -dims <= self.dim < dims:
            raise IndexError(f"{self._label()} has dim={self.dim}, and got an input of {dims} dimensions")
        return self.dim % dims

    def _scaled(self, x: Tensor, dim: int) -> Tensor:
        x, size = checked_input(x, self._label), len(self.weights)
        if x.shape[dim] != size:
            raise ValueError(
                f"{self._label()} scales dimension {self.dim} of a step, has size={size} weights and got "
                f"{x.shape[dim]} there; for an input [B, N] make it with dim=1, and with size=N"
            )
        return x * self.weights.to(x.dtype).view(size, *[1] * (x.dim() - dim - 1))
