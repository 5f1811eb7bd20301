"""The current unrolled run: `unroll` sets it, neurons and other layers read it.

While it is set, time is folded into dimension 0 of the network's tensors, [T*B, ...]. Tensors that do not depend on
time yet are static, [B, ...]. A neuron unfolds its input, runs all T steps, and folds its outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._torch import compiles_dict, constant_for_compiler, exporting, tree_map
from ..scoped import Scoped
from ._recorded_steps import recorded_steps

SPIKES_ALONE = (
    "A neuron returns its spikes and states, (spk, mem), unless it has init_hidden=True and not output=True. Pass on "
    "only the spikes"
)
"""What to do if a layer got the tuple of a neuron as its input."""

REWRITE = (
    "To move a network over from a loop with states by hand: make each neuron with init_hidden=True and call it with "
    "its input alone; take the loop over time out of forward, and with it init_leaky() and the lists that are appended "
    "to and stacked, because unroll makes the steps and calls forward once for all of them; let forward return what a "
    "single step returns, (spk, mem) of a last neuron with output=True; and write x.flatten(1) for "
    "x.view(batch_size, -1). Then call snn.unroll(net, x, steps=T), or snn.unroll(net, x) with x of [T, B, ...]. "
    "Before and after are shown in docs/from-snntorch.md, 'From the tutorials' loop to unroll'"
)
"""How to convert a network with its own loop over time."""


@dataclass
class Visit:
    """Record of one call of a neuron: its backend, the refusals of faster ones, whether its input was static.

    If a hook requires the states, also its spikes and its states at every step, each [T, B, *N].
    """

    backend: str
    refusals: list[str]
    static: bool
    spk: Tensor | None = None
    states: tuple[Tensor, ...] = ()


Counted = list[int]
"""The number of steps of a finished run; empty before, and if it failed or was a trial. (A list, because
torch.compile cannot create an object with an attribute.)"""


class RunHook:
    """A hook that belongs to one module: copies and pickles of the module get one that does nothing."""

    wants_states: ClassVar[bool] = False
    """Whether the neuron must compute its states at every step even if it does not return them."""

    def __call__(self, *args: Any) -> None:
        """Does nothing."""

    def muted(self) -> "RunHook":
        """A hook that does nothing, but requires the states if this one does."""
        return StatesHook() if self.wants_states else RunHook()

    def __reduce__(self) -> tuple[Any, ...]:
        return RunHook, ()


class StatesHook(RunHook):
    """Does nothing, but requires the states at every step."""

    wants_states = True


def wants_states(neuron: nn.Module) -> bool:
    """Whether a hook of the neuron requires its states at every step."""
    hooks = neuron._forward_hooks  # usually empty
    return len(hooks) > 0 and any(isinstance(hook, RunHook) and hook.wants_states for hook in hooks.values())


@dataclass
class UnrolledRun:
    """A run of a network over T steps at once, which its layers read.

    Args:
        steps: T, the number of steps.
        batch: B, the batch size.
        straight: whether everything before the first neuron is static.
        origins: records which tensors are static (see `network`); None if it is not tracked.
        names: the path of each module in the network.
        visits: the calls of neurons so far.
        counted: the number of steps once it is done, for hooks.
        at_work: whether a neuron is running now.
        bare: whether the network is one neuron whose input nobody else sees; time is then not folded, [T, B, ...].
    """

    steps: int
    batch: int
    straight: bool = False
    origins: Any = None
    names: Mapping[Any, str] = field(default_factory=dict)
    visits: dict[Any, Visit] = field(default_factory=dict)
    counted: Counted = field(default_factory=list)
    at_work: bool = False
    bare: bool = False

    def label(self, neuron: Any, kind: str) -> str:
        """The name of a neuron in messages."""
        path = self.names.get(neuron)
        return f"{path!r} ({kind})" if path else kind

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Context for the work of a neuron: its operations are not tracked."""
        before, self.at_work = self.at_work, True
        try:
            with nullcontext() if self.origins is None else self.origins.aside():
                yield
        finally:
            self.at_work = before

    def admit(self, neuron: Any, given: Sequence[Any]) -> None:
        """Reject calls that only a loop over time supports."""
        if any(state is not None for state in given):
            raise TypeError(f"{neuron._label()} got its states as arguments, which cannot be unrolled. {REWRITE}")
        if neuron in self.visits:
            raise RuntimeError(
                f"{neuron._label()} is called twice in one forward. If the forward has no loop over time, use a "
                f"separate neuron for each call. {REWRITE}"
            )
        if neuron not in self.names:
            raise RuntimeError(
                f"a {type(neuron).__name__} runs in this network, but is none of its modules; hold it in an "
                "attribute of a module, an nn.ModuleList or an nn.ModuleDict, not in a plain list or dict or outside "
                "of the network, so that unroll, reset and detach find it"
            )

    def refuse_access(self, neuron: Any, what: str, cure: str) -> None:
        """Reject reads and writes of a neuron's state in the surrounding forward: there are T states."""
        if not self.at_work and neuron in self.names:
            raise RuntimeError(
                f"{neuron._label()}: {what} while the network is unrolled, where forward is called once for all steps "
                f"and a neuron has no state of one step. {cure}"
            )

    def note(self, neuron: Any, visit: Visit) -> None:
        """Record the call of a neuron."""
        if not wants_states(neuron):
            visit.spk, visit.states = None, ()
        self.visits[neuron] = visit

    def is_static(self, x: Tensor) -> bool:
        """Whether x is the same at every step, [B, ...]."""
        if self.origins is not None:
            return bool(self.origins.is_static(x))
        return self.straight and not self.visits

    def is_repeated(self, x: Tensor) -> bool:
        """Whether x, [1, B, *N], is the same at every step of several."""
        return x.shape[0] == 1 and (exporting() or self.steps != 1)  # exported steps are a symbol, to be compared later

    def rows(self, x: Tensor) -> int:
        """The required size of dimension 0 of x."""
        return self.batch if self.is_static(x) else self.steps * self.batch

    def rows_text(self, x: Tensor) -> str:
        """The number of rows as text for messages."""
        rows = self.rows(x)
        return f"{rows}" if self.is_static(x) else f"{self.steps} * {self.batch} = {rows}"

    def unfold(self, x: Tensor, label: Callable[[], str]) -> Tensor:
        """[T*B, *N] -> [T, B, *N]; a static [B, *N] -> [1, B, *N]."""
        if self.bare:
            return x
        rows = x.shape[0] if x.dim() else None
        if rows == self.rows(x):
            return x.unsqueeze(0) if self.is_static(x) else x.reshape(self.steps, self.batch, *x.shape[1:])
        raise ValueError(
            f"{label()} got an input of shape {tuple(x.shape)} while the network is unrolled over {self.steps} steps "
            f"of {self.batch} rows; dimension 0 must be {self.rows_text(x)}. Is a batch size written into "
            f"the network's forward? Use x.flatten(1) or x.view(x.size(0), -1). Does it loop over time? {REWRITE}"
        )

    def fold(self, out: Tensor) -> Tensor:
        """[T, B, *N] -> [T*B, *N]."""
        if self.bare:
            return out
        folded = out.flatten(0, 1)
        if self.origins is not None:
            self.origins.mark(folded, static=False)
        return folded


_current: Scoped[UnrolledRun | None] = Scoped("spikeloom_unrolled_run", None)
current_run = _current.get
running = _current.set
"""Context in which neurons run over that time; None for step by step."""


def guarded(name: str) -> property:
    """A property for a state of a neuron, which the surrounding forward cannot read while the network is unrolled."""

    def value(neuron: Any) -> Any:
        unrolled = current_run()
        if unrolled is not None:
            cure = f"Make it with output=True and use the {name} that it returns: spk, mem = lif(x)"
            unrolled.refuse_access(neuron, f"its {name} is read", cure)
        if torch.compiler.is_dynamo_compiling() and not _compiles_dict():
            return super(nn.Module, neuron).__getattribute__(name)  # traced as a read of `__dict__`
        try:
            return neuron.__dict__[name]
        except KeyError:
            raise AttributeError(f"{type(neuron).__name__} has no {name}") from None

    return property(value, doc=f"The state {name} after the last step.")


@constant_for_compiler
def _compiles_dict() -> bool:
    getter: Any = guarded("").fget  # all have the same code
    return compiles_dict(getter)


def run_of(neuron: Any) -> UnrolledRun | None:
    """The unrolled run in which the neuron is called, if any.

    Parts of a network may be compiled separately. Compiled code would not notice that it is unrolled, so the neurons
    are marked, and a marked one causes a graph break.
    """
    return _current.outside() if neuron._unrolled_around else current_run()


def mark(layers: Iterable[Any], unrolled: bool) -> None:
    """Mark or unmark the layers as part of an unrolled network, of which compiled code may be only a part."""
    for layer in layers:
        if unrolled:
            vars(layer)["_unrolled_around"] = True
        else:
            vars(layer).pop("_unrolled_around", None)


# -- neurons that support single steps only ----------------------------------------------------------------------------


def forward_over_time(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a custom forward of a single step also process whole sequences in an unrolled network."""

    @wraps(forward)
    def over_time(self: Any, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        unrolled = run_of(self)
        if unrolled is None:
            return forward(self, input_, *args, **kwargs)
        with unrolled.aside():
            given = (*args, *(value for value in kwargs.values() if isinstance(value, Tensor)))
            why = [f"{type(self).__name__} overrides forward"]
            return step_by_step(self, lambda x: forward(self, x, *args, **kwargs), unrolled, input_, given, why)

    over_time.over_time = True  # type: ignore[attr-defined]
    return over_time


def step_by_step(
    neuron: Any,
    step: Callable[[Tensor], Any],
    unrolled: UnrolledRun,
    input_: Tensor,
    given: Sequence[Any],
    why: list[str],
) -> Any:
    """Run a sequence step by step; time is folded into dimension 0 of the stacked results."""
    unrolled.admit(neuron, given)
    x = unrolled.unfold(input_, neuron._label)
    static = unrolled.is_repeated(x)
    if exporting():
        with running(None):
            recorded = recorded_steps(neuron, step, x, static, unrolled.steps)
        unrolled.note(neuron, Visit("loop", why, static))
        return tree_map(unrolled.fold, recorded)
    inputs = [x[0]] * unrolled.steps if static else list(x.unbind(0))
    if not inputs:  # one step determines the form of the results; `unroll` restores the state
        inputs = [x.new_zeros(x.shape[1:])]
    wanted, outs, states = wants_states(neuron), [], []
    with running(None):
        for x_t in inputs:
            outs.append(step(x_t))
            states.append(tuple(getattr(neuron, name) for name in neuron._state_names()) if wanted else ())
    stacked = tree_map(lambda *each: torch.stack(each)[: unrolled.steps], *outs)
    spk = stacked[0] if isinstance(stacked, tuple) else stacked
    traces = tuple(map(torch.stack, zip(*states, strict=True))) if wanted else ()
    unrolled.note(neuron, Visit("loop", why, static, spk, traces))
    return tree_map(unrolled.fold, stacked)


# -- steps that are recorded instead of run ----------------------------------------------------------------------------


class Recorders:
    """Which recorder of `spikeloom.fuse` is active: neurons pass it their steps instead of running.

    `open` counts them over all threads, so that a step without any has one check.
    """

    def __init__(self) -> None:
        self.open = 0
        self._context: ContextVar[Any] = ContextVar("spikeloom_recorder", default=None)

    def current(self) -> Any:
        """The recorder of this thread, or None."""
        return self._context.get()

    @contextmanager
    def active(self, recorder: Any) -> Iterator[None]:
        """Within this block, `recorder` is active; None for none."""
        token = self._context.set(recorder)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            self._context.reset(token)


recorders = Recorders()
