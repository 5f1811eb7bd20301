"""Layers without a step form: one call processes the whole sequence, and no state is stored."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .. import surrogate
from ..engine.graph import program_for
from ..engine.run import Call
from ._neuron import SpikingNeuron
from ._parameters import checked_params
from ._state import checked_input, compute_dtype
from ._unrolled_run import Visit, run_of


class Ran(NamedTuple):
    """Results of a scan over a whole sequence, its backend, and the refusals of faster ones."""

    outs: tuple[Tensor, ...]
    backend: str
    refusals: list[str]


class WholeSequence(SpikingNeuron):
    """Base of the layers that process [T, B, N] at once, in a plain call and in an unrolled network."""

    _without_steps: ClassVar[bool] = True
    unbatched: ClassVar[bool] = False  # whether a plain call also accepts [T, N]
    state_outputs: ClassVar[tuple[str, ...]] = ()  # the states among its outputs, which come last
    _stepwise = False
    _calls: ClassVar[tuple[str, ...]] = ("fire",)

    def _state_names(self) -> tuple[str, ...]:
        return ()

    def _recorded_names(self) -> tuple[str, ...]:
        return self.state_outputs

    def _carried(self) -> tuple[str, ...]:
        return ()

    def _recorded_states(self, outs: Any) -> tuple[Tensor, ...]:
        """The states at every step among the outputs."""
        every: tuple[Tensor, ...] = outs if isinstance(outs, tuple) else (outs,)
        return every[len(every) - len(self.state_outputs) :]

    def _checked(self, input_: Tensor) -> Tensor:
        """The input as a floating tensor: [T, B, N], or, while unrolled, [T*B, N]."""
        x = checked_input(input_, self._label)
        wanted = (3, 2)[: 1 + self.unbatched] if run_of(self) is None else (2,)
        if x.dim() not in wanted:
            raise ValueError(
                f"{self._label()} got an input of shape {tuple(x.shape)}; pass a whole sequence, [T, B, N], or run the "
                "network by spikeloom.unroll. This layer has no step form"
            )
        return x

    def _over_time(self, scan: Callable[..., Ran], *series: Tensor) -> tuple[Tensor, ...]:
        """The results of ``scan(T, *series)``, each [T, B, *N]; in an unrolled network folded to [T*B, *N].

        Args:
            scan: accepts sequences [T, B, N], or [1, B, N] if they are static.
            series: sequences as passed to the layer, either all static or none.
        """
        unrolled = run_of(self)
        if unrolled is None:
            return scan(series[0].shape[0], *series).outs
        with unrolled.aside():
            unrolled.admit(self, ())
            unfolded = [unrolled.unfold(x, self._label) for x in series]
            ran = scan(unrolled.steps, *unfolded)
            static = unrolled.is_repeated(unfolded[0])
            unrolled.note(self, Visit(ran.backend, ran.refusals, static, ran.outs[0], self._recorded_states(ran.outs)))
            return tuple(unrolled.fold(out) for out in ran.outs)

    def _call(self, steps: int, x: Tensor, values: Mapping[str, Tensor], traced: bool = True) -> Call:
        """The call of the layer's program for x, [T, B, N] or [1, B, N], from a membrane of zeros."""
        dtype = compute_dtype(x)
        start = torch.zeros(x.shape[1:], dtype=dtype, device=x.device)
        params = checked_params(values, start, dtype, self._label)
        program = self._program
        if program.untraceable:  # a user's spike function, applied to all membranes after the scan
            program = program_for(program.cell, surrogate.no_gradient())
        return Call(program, x, steps, (start,), params, traced, self._label())

    def _fires_by_method(self) -> bool:
        """Whether the spikes are computed from the membranes after the scan instead of within it."""
        return bool(self.state_quant) or self._is_overridden("fire") or bool(self._program.untraceable)
