"""How a call runs: one step, by the equation or by the user's methods; or, in an unrolled network, a whole sequence.

A single step in eager mode has a fast path: if states and parameters fit and a kernel is available, which a few checks
show, the kernel runs at once. All other cases, including every error, go through `_scan`, which repeats all checks. The
checks read the current values; nothing is cached from step to step.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import IS_REPLICA, exporting, graph_task
from ..cells.firing import IMMEDIATE, Model
from ..engine.cpu import single_step
from ..engine.feedback import Feedback, MemFeedback
from ..engine.graph import Constants, Program
from ..engine.run import Call, Trajectory, choose, forced, kernel_at_hand, seen_through
from ._methods import Methods, as_tuple
from ._parameters import checked_params, taken
from ._state import States, checked_input, compute_dtype, refuse_misplaced
from ._unrolled_run import Visit, recorders, run_of, step_by_step, wants_states

PLAIN = (Tensor, nn.Parameter)
"""Tensor types whose values are in memory."""


class Running(Methods, States):
    """Runs a neuron and stores its states."""

    init_hidden: bool
    output: bool
    reset_delay: bool
    _through_layer: bool = False  # whether spikes are fed back through a layer (see `Recurrent`)
    _flat: bool = False  # whether its spike function has no gradient
    _reads_mems: bool = False  # whether the layer itself needs the membrane of every step
    _unrolled_around: bool = False  # see `run_of`
    _program: Program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a base class; use a neuron such as Leaky")

    def _run(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> Any:
        """Run one step, or the whole sequence in an unrolled network; return the spikes, or the spikes and states."""
        if recorders.open and (recorder := recorders.current()) is not None:
            return self._shown(recorder.neuron(self, input_, given))
        if self.init_hidden and True in [state is not None for state in given]:
            raise TypeError(f"{self._label()} stores its own state (init_hidden=True); call it with only the input")
        unrolled = run_of(self)
        if unrolled is not None:
            with unrolled.aside():
                why = [*self._why_by_methods(), *self._why_recorded_by_steps()]
                if why:
                    refusals = self._no_kernel(why, input_)
                    return step_by_step(self, lambda x: self._run(x, given), unrolled, input_, given, refusals)
                unrolled.admit(self, given)
                x = unrolled.unfold(checked_input(input_, self._label), self._label)
                run, backend, refusals = self._scan(self._drive(x, unrolled.steps), unrolled.steps, given)
                spk = run.spk.to(x.dtype)
                unrolled.note(self, Visit(backend, refusals, unrolled.is_repeated(x), spk, run.traces))
                outs = tuple([unrolled.fold(out) for out in self._outs((spk, *run.traces))])
        elif next(self._why_by_methods(), None) is not None or (
            self._program.untraceable and isinstance(self._model, Model)  # a spike function that cannot be traced
        ):
            outs = self._step_by_methods(input_, given)
        else:
            outs = self._step(input_, given)
        result = outs[0] if self.init_hidden and not self.output else outs
        return self._shown(result) if self._flat else result

    def _shown(self, result: Any) -> Any:
        """The result of a call. Spikes without gradient are detached: the layers before get none, instead of zeros."""
        if not self._flat or self.graded_spikes_factor.requires_grad:
            return result
        return (result[0].detach(), *result[1:]) if isinstance(result, tuple) else result.detach()

    def _step(self, x: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """One step of the equation for an unchecked input; returns the spikes and the states."""
        eager = type(x) is Tensor and x.layout is torch.strided and not torch.compiler.is_compiling()
        own = self.__dict__  # bypasses nn.Module.__setattr__, which costs as much as a step's arithmetic
        if not eager or own["_cut"] is not None or not kernel_at_hand(self._program, x):
            return self._uncommon_step(x, given)
        states = self._states_at_hand(x, given)
        if states is None:
            return self._uncommon_step(x, given)
        if graph_task() != -1 or IS_REPLICA in own:
            # not in `_uncommon_step`: a recomputed step must save the same tensors as the first
            refuse_misplaced(self, [s for s, hand in zip(states, given, strict=True) if hand is None])
        driven, mem = self._drive_step(x, states), states[-1]
        numbers = self._numbers()
        if numbers is not None:
            hoisted: tuple[Tensor, ...] = self._program.constants(mem.dtype, numbers)
        else:
            hoisted = self._program.hoist(checked_params(self._values(), mem, mem.dtype, self._label), mem)
        plain = type(hoisted) is Constants or False not in [type(value) in PLAIN for value in hoisted]
        if not plain or driven.dtype is not mem.dtype:  # which autocast changes
            return self._uncommon_step(x, given)
        if self._through_layer:  # the first state is the spikes themselves
            outs = single_step.step(self._program, type(self).__name__, driven, states[1:], hoisted)
            outs = (outs[0], *outs)
        else:
            outs = single_step.step(self._program, type(self).__name__, driven, states, hoisted)
        for name, state in zip(self._state_names(), outs[1:], strict=True):
            own[name] = state
        own["_before"], own["_reset"] = mem if isinstance(self._model, Model) else None, None
        return self._outs(outs)

    def _uncommon_step(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        x = checked_input(input_, self._label)
        run, _, _ = self._scan(self._drive(x, None), None, given)
        return self._outs((run.spk if run.spk.dtype is x.dtype else run.spk.to(x.dtype), *run.final_states))

    def _scan(
        self, x: Tensor, steps: int | None, given: tuple[Tensor | None, ...], traced: bool | None = None
    ) -> tuple[Trajectory, str, list[str]]:
        """Run on the best backend; also returns its name and the refusals of faster ones. A failure changes no state.

        Args:
            x: [T, *S] or [1, *S] over `steps`, or, if that is None, one step [*S]; see `_drive`.
            given: the states passed by the caller.
            traced: whether the states of every step are requested; None if the layer decides.
        """
        dtype = compute_dtype(x)
        like = self._like_a_state(x if steps is None else x[0] if x.shape[0] != 0 else x.new_empty(x.shape[1:]))
        by_torch = torch.compiler.is_compiling() or not x.is_cpu or seen_through()
        numbers = None if by_torch else self._numbers()
        params = checked_params(self._values(copied=numbers is None), like, dtype, self._label)
        states = self._states(like, dtype, given)
        call = Call(
            program=self._program,
            x=x,
            steps=steps,
            states=states,
            params=params,
            traced=steps is not None
            and (
                self._reads_mems
                or (self.output or not self.init_hidden or wants_states(self) if traced is None else traced)
            ),
            layer=self._label(),
            feedback=self._feedback(),
            mem_feedback=self._mem_feedback(dtype),
            numbers=numbers,
        )
        chosen, refusals = choose(call)
        run = chosen.run(call)
        if steps != 0:
            self._keep(run.final_states)
            self._note(run, states, steps)
        return run, chosen.name, refusals

    def _note(self, run: Trajectory, states: tuple[Tensor, ...], steps: int | None) -> None:
        """Store what `reset` needs."""
        own = self.__dict__
        if not isinstance(self._model, Model):
            own["_before"] = None  # a neuron that resets by its own equation has no standard reset signal
        elif steps is None or steps == 1:
            own["_before"], own["_reset"] = states[-1], None
        elif steps > 1:
            # cloned: a view would keep the whole sequence in memory; a recording may run over a single step
            known = len(run.traces) > 0 and not exporting()
            own["_before"], own["_reset"] = run.traces[-1][-2].detach().clone() if known else None, None
        self._leave()

    # -- for subclasses to override ------------------------------------------------------------------------------------

    def _drive(self, x: Tensor, steps: int | None) -> Tensor:
        """The equation's input for a checked input of the layer: [T, *S] or [1, *S]; [*S] if `steps` is None."""
        return x

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        """`_drive` for one step, plus the feedback from the previous states."""
        return x

    def _like_a_state(self, x: Tensor) -> Tensor:
        """A tensor of the shape of a state, from one step of what `_drive` returns."""
        return x

    def _outs(self, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Select the outputs of a call from the spikes and all states."""
        return outs

    def _feedback(self) -> Feedback | None:
        """The feedback from spikes to inputs, if any (see `Recurrent`)."""
        return None

    def _why_recorded_by_steps(self) -> Iterator[str]:
        """Why torch.export records a whole step of the layer, and not of its equation, if it does."""
        feedback = self._feedback() if exporting() else None
        if feedback is not None and any(hasattr(module, "_carried") for module in feedback.layer.modules()):
            yield "its recurrent layer stores states"

    def _mem_feedback(self, dtype: torch.dtype) -> MemFeedback | None:
        """The feedback from the membrane to the inputs, if any (see `Gated`)."""
        return None

    def _no_kernel(self, why: Iterable[str], x: Tensor) -> list[str]:
        """The refusals of faster backends if the user's methods run; raises if such a backend is forced."""
        call = Call(self._program, x, None, (x,), {}, layer=self._label(), untraceable="; ".join(why))
        return choose(call)[1]

    # -- a step by the methods ----------------------------------------------------------------------------------------

    def _step_by_methods(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """One step by the methods; returns the spikes and the states. If a method raises, the states are unchanged."""
        if forced() is not None:
            self._no_kernel(self._why_by_methods(), input_)
        raw = checked_input(input_, self._label)
        dtype = compute_dtype(raw)
        x = raw if raw.dtype is dtype else raw.to(dtype)
        own, names = self.__dict__, self._state_names()
        at_hand = None
        common = not torch.compiler.is_compiling() and x.is_cpu and own["_cut"] is None and graph_task() == -1
        if common and IS_REPLICA not in own:
            at_hand = self._states_at_hand(x, given)
        if at_hand is None:
            olds = self._states(x.new_empty(()).expand(self._shape_of_states(x)), dtype, given)
        else:
            olds = tuple(at_hand)
        before = {name: getattr(self, name) for name in (*names, "_before", "_reset")}
        own.update(zip(names, olds, strict=True))
        try:
            spk, *news = self._by_methods(x, olds, dtype)
        except BaseException:
            own.update(before)
            raise
        own.update(zip(names, news, strict=True))
        self._leave()
        return self._outs((spk if spk.dtype is raw.dtype else spk.to(raw.dtype), *news))

    def _by_methods(self, x: Tensor, olds: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Returns the spikes and the new states. The methods read the current states as attributes."""
        neuron: Any = self
        own, model, quantize = self.__dict__, neuron.model, self.state_quant
        own["_before"] = None
        own["_reset"] = fired = self.mem_reset(olds[-1])
        news = as_tuple(self.state_function(x))
        if len(news) != len(model.charged) or not all(isinstance(new, Tensor) for new in news):
            got = ", ".join(type(new).__name__ for new in news)
            raise TypeError(f"the dynamics of {self._label()} returned {got}; return {', '.join(model.charged)}")
        if callable(quantize):
            news = tuple([quantize(new) for new in news])
        *rest, mem = [new if new.dtype is dtype else new.to(dtype) for new in news]
        own.update(zip(model.charged, (*rest, mem), strict=True))
        spk = self._spikes(mem)
        spk = spk if spk.dtype is dtype else spk.to(dtype)
        if not self.reset_delay:
            late = spk / taken(self.graded_spikes_factor) - fired
            mem = IMMEDIATE[neuron.reset_mechanism](mem, late, taken(self.threshold))
        return (spk, *([spk] if len(olds) > len(news) else []), *rest, mem)
