"""The unrolled run that neurons take part in: `unroll` sets it, and neurons and other layers read it.

While it is set, the network's tensors carry time folded into dimension 0, [T*B, ...]; or they are static, [B, ...],
where nothing has depended on time yet. A neuron unfolds its input, runs all T steps, and folds what it returns.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._torch import tree_map
from ..scoped import Scoped

REWRITE = (
    "To move a network over from a loop with states by hand: make each neuron with init_hidden=True and call it with "
    "its input alone; take the loop over time out of forward, and with it init_leaky() and the lists that are appended "
    "to and stacked, because unroll makes the steps and calls forward once for all of them; let forward return what a "
    "single step returns, (spk, mem) of a last neuron with output=True; and write x.flatten(1) for "
    "x.view(batch_size, -1). Then call snn.unroll(net, x, steps=T), or snn.unroll(net, x) with x of [T, B, ...]. "
    "Before and after are shown in docs/from-snntorch.md, 'From the tutorials' loop to unroll'"
)
"""What whoever brings a network with a loop of its own has to do, all of it."""


@dataclass
class Visit:
    """What one neuron did in one call: its backend, why no faster one, whether its input was static.

    Also its spikes and its states at every step, each [T, B, *N], if anybody listens; else nothing holds them here.
    """

    backend: str
    refusals: list[str]
    static: bool
    spk: Tensor | None = None
    states: tuple[Tensor, ...] = ()


Counted = list[int]
"""The number of steps of a run that is done; empty before, and where it failed or was a trial. (No object with an
attribute, which torch.compile could not make.)"""


class Listener:
    """A hook of a module, held by that module alone: copies and pickles of the module hold one that does nothing."""

    wants_states: ClassVar[bool] = False
    """Whether the neuron must have its states at every step, which it otherwise computes only where it returns them."""

    def __call__(self, *args: Any) -> None:
        """Does nothing."""

    def muted(self) -> "Listener":
        """A hook that does nothing, and wants the states if this one does."""
        return WantsStates() if self.wants_states else Listener()

    def __reduce__(self) -> tuple[Any, ...]:
        return Listener, ()


class WantsStates(Listener):
    """Does nothing, but wants the states at every step."""

    wants_states = True


def wants_states(neuron: nn.Module) -> bool:
    """Whether a hook of the neuron wants its states at every step."""
    return any(isinstance(hook, Listener) and hook.wants_states for hook in neuron._forward_hooks.values())


@dataclass
class UnrolledRun:
    """A run of a network over T steps at once, which its layers look up.

    Args:
        steps: T.
        batch: B.
        straight: whether everything before the first neuron is static.
        origins: knows which tensors are static (see `network`); None if all are folded.
        names: the path of each module in the network.
        visits: what the neurons have done so far.
        counted: its number of steps once it is done, for those who listen to it.
        at_work: whether a neuron is at work now.
    """

    steps: int
    batch: int
    straight: bool = False
    origins: Any = None
    names: Mapping[Any, str] = field(default_factory=dict)
    visits: dict[Any, Visit] = field(default_factory=dict)
    counted: Counted = field(default_factory=list)
    at_work: bool = False

    def label(self, neuron: Any, kind: str) -> str:
        """The name of a neuron in messages."""
        path = self.names.get(neuron)
        return f"{path!r} ({kind})" if path else kind

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around the work of a neuron: none of it is watched."""
        before, self.at_work = self.at_work, True
        try:
            with nullcontext() if self.origins is None else self.origins.aside():
                yield
        finally:
            self.at_work = before

    def admit(self, neuron: Any, given: Sequence[Any]) -> None:
        """Refuse what only a loop over time can do."""
        if any(state is not None for state in given):
            raise TypeError(f"{neuron._label()} is given its states by hand, which cannot be unrolled. {REWRITE}")
        if neuron in self.visits:
            raise RuntimeError(
                f"{neuron._label()} is called twice in one forward. If the forward has no loop over time, give each "
                f"call a neuron of its own. {REWRITE}"
            )
        if neuron not in self.names:
            raise RuntimeError(
                f"a {type(neuron).__name__} runs in this network, and is none of its modules; hold it in an attribute "
                "of a module, an nn.ModuleList or an nn.ModuleDict, not in a plain list or dict or outside of the "
                "network, so that unroll, reset and detach find it"
            )

    def refuse_access(self, neuron: Any, what: str, cure: str) -> None:
        """Refuse that the forward around a neuron reads or writes its state, of which there are T."""
        if not self.at_work and neuron in self.names:
            raise RuntimeError(
                f"{neuron._label()}: {what} while the network is unrolled, where forward is called once for all steps "
                f"and a neuron has no state of one step. {cure}"
            )

    def note(self, neuron: Any, visit: Visit) -> None:
        """Note what a neuron has done."""
        if not wants_states(neuron):
            visit.spk, visit.states = None, ()
        self.visits[neuron] = visit

    def is_static(self, x: Tensor) -> bool:
        """Whether x is the same at every step, [B, ...]."""
        if self.origins is not None:
            return bool(self.origins.is_static(x))
        return self.straight and not self.visits

    def rows(self, x: Tensor) -> int:
        """What dimension 0 of x must be."""
        return self.batch if self.is_static(x) else self.steps * self.batch

    def told_rows(self, x: Tensor) -> str:
        """The same in words."""
        rows = self.rows(x)
        return f"{rows}" if self.is_static(x) else f"{self.steps} * {self.batch} = {rows}"

    def unfold(self, x: Tensor, label: str) -> Tensor:
        """[T*B, *N] -> [T, B, *N]; a static [B, *N] -> [1, B, *N]."""
        rows = x.shape[0] if x.dim() else None
        if rows == self.rows(x):
            return x.unsqueeze(0) if self.is_static(x) else x.reshape(self.steps, self.batch, *x.shape[1:])
        raise ValueError(
            f"{label} got an input of shape {tuple(x.shape)} while the network is unrolled over {self.steps} steps of "
            f"{self.batch} rows; dimension 0 must be {self.told_rows(x)}. Is a batch size written into "
            f"the network's forward? Use x.flatten(1) or x.view(x.size(0), -1). Has it a loop over time? {REWRITE}"
        )

    def fold(self, out: Tensor) -> Tensor:
        """[T, B, *N] -> [T*B, *N]."""
        folded = out.flatten(0, 1)
        if self.origins is not None:
            self.origins.mark(folded, static=False)
        return folded


_current: Scoped[UnrolledRun | None] = Scoped("spikeloom_unrolled_run", None)
current_run = _current.get
running = _current.set
"""Within this context neurons run over that time; None is step by step."""


def guarded(name: str) -> property:
    """A state as an attribute of a neuron's class: its values are the neuron's, and the forward around it cannot read
    them while the network is unrolled."""

    def value(neuron: Any) -> Any:
        unrolled = current_run()
        if unrolled is not None:
            cure = f"Make it with output=True and use the {name} that it returns: spk, mem = lif(x)"
            unrolled.refuse_access(neuron, f"its {name} is read", cure)
        try:
            return neuron.__dict__[name]
        except KeyError:
            raise AttributeError(f"{type(neuron).__name__} has no {name}") from None

    return property(value, doc=f"The state {name} after the last step.")


def run_of(neuron: Any) -> UnrolledRun | None:
    """What the neuron runs over now.

    A network may hold parts that are compiled by themselves. Compiled code would not notice that it is unrolled; so the
    neurons are marked, and a marked one leaves the graph.
    """
    return _current.outside() if neuron._unrolled_around else current_run()


def mark(layers: Iterable[Any], unrolled: bool) -> None:
    """Let the layers know that what is compiled may be only a part of what is unrolled; or that this is over."""
    for layer in layers:
        if unrolled:
            vars(layer)["_unrolled_around"] = True
        else:
            vars(layer).pop("_unrolled_around", None)


# -- neurons that know one step alone ---------------------------------------------------------------------------------


def forward_over_time(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a user's own forward, which knows one step, also serve a whole sequence while a network is unrolled."""

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
    """One step after the other of a sequence; what they return is folded, time into dimension 0."""
    unrolled.admit(neuron, given)
    x = unrolled.unfold(input_, neuron._label())
    static = len(x) == 1 != unrolled.steps
    inputs = [x[0]] * unrolled.steps if static else list(x.unbind(0))
    if not inputs:  # one step shows the form of the results; `unroll` restores the state
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
