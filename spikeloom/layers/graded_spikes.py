"""Scale spikes by a learned amplitude per neuron."""

import torch
from torch import Tensor, nn

from ..neurons._state import checked_input
from ._over_time import OverTime


class GradedSpikes(OverTime):
    """Multiply the spikes of each neuron by a learned weight.

    out[..., n, ...] = weights[n] x[..., n, ...], n along `dim`

    Args:
        size: N, the number of weights.
        constant_factor: initial value of all weights; if zero, False or None, each is drawn uniformly from [0.5, 1.5).
        dim: dimension of the neurons in one step of the input. The default 0, as in snnTorch, is for unbatched input,
            [N, ...]; for [B, N] and [B, N, ...] pass 1.

    Shapes:
        x, one step of any shape whose dimension `dim` has size N; returns the same shape. In an unrolled network, too,
        `dim` refers to the dimensions of one step.

    Raises:
        ValueError: if dimension `dim` of the input does not have size N.
        IndexError: if the input has no dimension `dim`.

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
        """Scale one step, [*S]; in an unrolled network all steps, with time folded into dimension 0."""
        dim = self._resolved(input_.dim())
        # only dimension 0 changes its meaning in a sequence
        return self._scaled(input_, dim) if dim else super().forward(input_)

    def over_time(self, x: Tensor) -> Tensor:
        """Scale a sequence [T, *S]; returns the same shape."""
        return self._scaled(x, self._resolved(x.dim() - 1) + 1)

    def extra_repr(self) -> str:
        return f"{len(self.weights)}, dim={self.dim}"

    def _resolved(self, dims: int) -> int:
        """`dim` as a non-negative index in a step of `dims` dimensions."""
        if not -dims <= self.dim < dims:
            raise IndexError(f"{self._label()} has dim={self.dim} and got an input of {dims} dimensions; change dim")
        return self.dim % dims

    def _scaled(self, x: Tensor, dim: int) -> Tensor:
        x, size = checked_input(x, self._label), len(self.weights)
        if x.shape[dim] != size:
            raise ValueError(
                f"{self._label()} got {x.shape[dim]} neurons along dimension {self.dim} of a step and has "
                f"size={size} weights; for an input [B, N] create it with dim=1 and size=N"
            )
        return x * self.weights.to(x.dtype).view(size, *[1] * (x.dim() - dim - 1))
