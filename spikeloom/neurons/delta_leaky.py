"""A neuron that fires when its membrane changes."""

from typing import Any

from torch import Tensor

from ..cells.delta_leaky import DELTA_LEAKY
from ..cells.firing import AnyModel
from ._unrolled_run import run_of
from .leaky import Leaky

Pair = tuple[Tensor | None, Tensor | None]


class DeltaLeaky(Leaky):
    """Leaky integrator that fires when its membrane changes by more than a threshold; it has no reset.

    mem' = beta * mem + x;  spk = H(|mem' - mem| - delta_threshold)

    Beta is not clamped. The arguments threshold, reset_mechanism, graded_spikes_factor, inhibition and state_quant are
    accepted for compatibility and have no effect.

    Args:
        delta_threshold: change of the membrane in one step above which the neuron fires; a number.
        beta: decay of the membrane per step.
        The other arguments are those of `Leaky`; pass them by name.

    Shapes:
        input_ [B, *N]; the states are a pair (mem, mem_prev), each [B, *N] or None for zeros. Always returns
        (spk, (mem, mem_prev)), even with init_hidden. Unrolled: [T, B, *N].

    Raises:
        TypeError: if no pair of states is passed without init_hidden, or one is passed with it. Also the errors of
            `Leaky`.

        >>> import torch, spikeloom as snn
        >>> lif = snn.DeltaLeaky(delta_threshold=0.3, beta=0.5, init_hidden=True)
        >>> for _ in range(3):
        ...     spk, (mem, mem_prev) = lif(torch.tensor([0.5]))
        >>> spk, mem, mem_prev
        (tensor([0.]), tensor([0.8750]), tensor([0.7500]))
    """

    model: AnyModel = DELTA_LEAKY
    mem_prev: Tensor
    _calls = ()

    def __init__(self, delta_threshold: float = 1.0, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.delta_threshold = delta_threshold
        self.output = True  # the states are always returned

    def forward(self, input_: Tensor, mem: Pair | None = None) -> Any:  # type: ignore[override]
        """One step: input_ [B, *N] and, unless init_hidden, both states; returns (spk, (mem, mem_prev))."""
        given = self.init_hidden or run_of(self) is not None or (isinstance(mem, tuple) and len(mem) == 2)
        if not given:
            raise TypeError(
                f"{self._label()} got the state {mem!r}; pass a pair (mem, mem_prev), or use init_hidden=True"
            )
        spk, *states = self._run(input_, mem or (None, None))
        return spk, tuple(states)
