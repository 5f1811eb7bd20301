"""Spiking associative memory: a matrix of leaky integrators, updated by outer products."""

import torch
from torch import Tensor, nn

from ..cells.associative import ASSOCIATIVE
from ..cells.firing import FRAME_PARAMS
from ..engine.run import MATRICES, MatrixCall, by_steps, choose
from ._sequence import Ran, WholeSequence
from ._state import compute_dtype


class AssociativeLeaky(WholeSequence):
    """Matrix of leaky integrators without reset; one call processes the whole sequence.

    S_t = S_{t-1} * A_t + v_t k_t^T, S [d_value, d_key], with

    | value  | gate of each column       | key     |
    | ------ | ------------------------- | ------- |
    | v_t = to_v(x_t) | A_t = sigmoid(to_alpha(x_t)) | k_t = to_k(x_t) |

    and spk = H(S_t - threshold). With a query, q_t = to_q(x_t) of shape [d_key, d_value], the output is the product
    spk q_t. Every call starts with S = 0. The recurrence runs as a scan, so long sequences neither overflow nor
    underflow, and only few of the matrices S_t are saved for backward.

    Args:
        in_dim: size of the input.
        d_value: size of v, the rows of S.
        d_key: size of k, the columns of S.
        num_spiking_neurons: number of neurons; must equal d_value * d_key.
        use_q_projection: if False, the layer has no query and returns the spikes.

    Shapes:
        x [T, B, in_dim]; returns [T, B, d_value * d_value], or without a query the spikes, [T, B, d_value * d_key].
        In an unrolled network (see `spikeloom.unroll`), use it like any other layer.

    Raises:
        ValueError: if num_spiking_neurons is not d_value * d_key, or the input is not a sequence.

        >>> import torch, spikeloom as snn
        >>> memory = snn.AssociativeLeaky(in_dim=3, d_value=2, d_key=4, num_spiking_neurons=8, use_q_projection=False)
        >>> memory(torch.rand(25, 2, 3)).shape
        torch.Size([25, 2, 8])
    """

    model = ASSOCIATIVE

    def __init__(self, in_dim: int, d_value: int, d_key: int, num_spiking_neurons: int, use_q_projection: bool = True):
        if num_spiking_neurons != d_value * d_key:
            raise ValueError(
                f"AssociativeLeaky got num_spiking_neurons={num_spiking_neurons} with d_value={d_value} and "
                f"d_key={d_key}; pass their product, {d_value * d_key}"
            )
        self._build({"output": True})
        self.d_value, self.d_key, self.num_spiking_neurons = d_value, d_key, num_spiking_neurons
        self.use_q_projection = use_q_projection
        self.to_v, self.to_k = nn.Linear(in_dim, d_value), nn.Linear(in_dim, d_key)
        self.to_alpha = nn.Linear(in_dim, d_key)
        if use_q_projection:
            self.to_q = nn.Linear(in_dim, num_spiking_neurons)

    @classmethod
    def from_num_spiking_neurons(
        cls, in_dim: int, num_spiking_neurons: int, use_q_projection: bool = True
    ) -> "AssociativeLeaky":
        """Create a layer with a square matrix of `num_spiking_neurons` neurons.

        Raises:
            ValueError: if num_spiking_neurons is not a square number.
        """
        side = round(num_spiking_neurons**0.5)
        if side * side != num_spiking_neurons:
            raise ValueError(f"got num_spiking_neurons={num_spiking_neurons}; pass a square number, such as {side**2}")
        return cls(in_dim, side, side, num_spiking_neurons, use_q_projection)

    def _value_names(self) -> tuple[str, ...]:
        return FRAME_PARAMS

    def forward(self, x: Tensor) -> Tensor:
        """Process a sequence x [T, B, in_dim]; returns one tensor, [T, B, d_value * d_value] or the spikes."""
        x = self._checked(x)
        series = [self.to_v(x), self.to_k(x), torch.sigmoid(self.to_alpha(x))]
        return self._over_time(self._whole, *series, *([self.to_q(x)] if self.use_q_projection else []))[0]

    def _whole(self, steps: int, v: Tensor, k: Tensor, gate: Tensor, q: Tensor | None = None) -> Ran:
        dtype = compute_dtype(v)
        v_t, k_t, gate_t = (t.to(dtype).expand(steps, *t.shape[1:]) for t in (v, k, gate))
        params = {name: p.to(dtype) for name, p in self._values().items()}
        call = MatrixCall(self._program, v_t, k_t, gate_t, params, self._label())
        if self._fires_by_method():
            why = self._program.untraceable or f"{type(self).__name__} overrides fire"
            backend, refusals = "loop", self._no_kernel([why], v)
            spk = self.fire(by_steps(call, which=1).flatten(-2)).unflatten(-1, (self.d_value, self.d_key))
        else:
            chosen, refusals = choose(call, MATRICES)
            backend, spk = chosen.name, chosen.run(call)
        spk = spk.to(v.dtype)
        out = spk if q is None else spk @ q.unflatten(-1, (self.d_key, self.d_value))
        return Ran((out.flatten(-2),), backend, refusals)
