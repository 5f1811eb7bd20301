"""Compare a network's unrolled run with its loop over steps, layer by layer, on the first steps of an input.

Both runs use the network itself, in its mode and in the dtype of the call, from its state before the call. Afterwards
the network is restored. Random operations return constants. Neurons are driven to spike, and their outputs are replaced
by synthetic spikes, the same in both runs: errors in the use of spikes show within three steps, even if no neuron would
fire so soon. Unrolled, each neuron gets the same inputs as step by step, so differences by rounding cannot grow.
"""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._torch import CompiledInEager, is_wrapped
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._state import on_trial
from ..neurons._unrolled_run import RunHook, UnrolledRun
from ._run import REPEATED, run
from ._snapshot import Copy, RandomState, Result, Snapshot, version
from ._stored import Between, stored
from ._time_folding import Request
from ._watch import (
    CURES,
    Key,
    NoChance,
    Note,
    Steps,
    Substitution,
    Watch,
    count_unlike,
    difference,
    differs_by_design,
    driven,
    given,
    noise,
)

STEPS = 3
"""Number of steps that the first call compares. Values stored between steps show at the second or third."""


class CannotCompare(Exception):
    """There is no loop over steps to compare with; the message states the reason."""


class Differs(RuntimeError):
    """The unrolled network differs from the loop over steps; the message names the module."""


class Comparison:
    """A network's state before a run and the first steps of its input, to be run step by step and unrolled."""

    def __init__(self, request: Request, steps: int):
        first = min(request.steps, steps)
        args, kwargs = request.mapped(lambda t: (t if request.static else t[:first]).detach().clone())
        net = request.net.module if isinstance(request.net, nn.parallel.DistributedDataParallel) else request.net
        self.request = replace(request, net=net, args=args, kwargs=kwargs, steps=first)
        self.before = DeepSnapshot(request.names)
        self._changing: set[int] = set()
        self._noisy: Steps | None = None
        self._repeats = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the run to find the hooks that change an input or output; the comparison calls only these."""
        watched = [
            (hooks, key, hook, _watched(hook, self._changing))
            for module in self.request.names
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
            for key, hook in hooks.items()
            if not isinstance(hook, RunHook)
        ]
        for hooks, key, _, watching in watched:
            hooks[key] = watching
        try:
            yield
        finally:
            for hooks, key, hook, watching in watched:
                if hooks.get(key) is watching:
                    hooks[key] = hook

    def compare(self) -> None:
        """Run both ways, and raise an error if they differ.

        Raises:
            Differs: naming the first module, in the order of the forward, whose inputs, outputs or states differ.
            CannotCompare: if the network does not run step by step, or not reproducibly.
        """
        self._on_trial(self._compare)

    def stored(self) -> str:
        """A sentence that names the attributes through which a step passes values to the next; empty if none."""
        return self._on_trial(lambda drawn: self._stored())

    def _on_trial(self, work: Callable[[RandomState], Result]) -> Result:
        """Return ``work(...)``, which runs the network; afterwards the network is as it was before.

        A function rather than a context manager, whose generator would outlive an interrupt.
        """
        drawn, after = RandomState(), self.before.now()
        self.before.forget_unwritten()
        net = self.request.net
        repeated = dict(REPEATED.get(net, {}))
        try:
            with torch.no_grad(), on_trial(), _eager():
                return work(drawn)
        finally:
            after.restore()
            drawn.restore()
            REPEATED.pop(net, None)
            if repeated:
                REPEATED[net] = repeated

    def _compare(self, drawn: RandomState) -> None:
        layers = self.request.layers()
        few = {m for m in layers if isinstance(m, SEES_TIME) or differs_by_design(m)} | {self.request.net}
        try:
            steps = self._step_by_step(few, nullcontext())
        except Exception as error:
            failure = f"step by step the network raises {type(error).__name__}: {ended(error)}"
            if self.request.batch == 1 and any(map(differs_by_design, layers)):
                raise CannotCompare(failure) from error  # a BatchNorm in training requires more than one row
            raise Differs(f"{failure} Unrolled it does not; if that is intended, pass check=False") from error
        by_own, elsewhere = self.before.drawn()
        if elsewhere or not drawn.same_outside_torch():
            raise CannotCompare("its forward draws random numbers outside of torch, so no two runs are equal")
        random = by_own or not drawn.same_in_torch()
        if not random and not any(self._differences(few, steps, nullcontext())):
            return  # the usual case; what follows takes longer, and finds the module
        steps = self._step_by_step(layers, NoChance())
        for key, sentence, count in self._differences(layers, steps, NoChance()):
            if count is None or not self._is_rounding(key, count, steps):
                raise Differs(because(sentence, self._stored()))

    def _stored(self) -> str:
        def loop(between: Between) -> Steps:
            return self._step_by_step(self.request.layers(), NoChance(), between=between)

        try:
            return stored(self.before.modules, self.request.names, loop, _same)
        except Exception:  # what cannot be run step by step, or copied, stays unnamed
            return ""

    def _differences(
        self, layers: set[nn.Module], steps: Steps, chance: AbstractContextManager[Any]
    ) -> Iterator[tuple[Key, str, int | None]]:
        for note in self._unrolled(layers, steps, chance):
            found = difference(note, steps, self.request)
            if found is not None:
                yield note.key, *found

    def _step_by_step(
        self,
        layers: set[nn.Module],
        chance: AbstractContextManager[Any],
        substitute: Callable[[Steps], Substitution] = driven,
        between: Between = lambda step: None,
    ) -> Steps:
        """The inputs and outputs of the modules at each step; `between` is called before each."""
        steps: Steps = []
        self._begin()
        own, kwargs = self.request.mapped(torch.clone)  # a forward may write to its inputs
        request = replace(self.request, args=own, kwargs=kwargs)
        watch = Watch(layers, self.request.names, substitute(steps))
        for step in range(self.request.steps):
            if step:  # buffers of torch's layers (statistics, a spectral norm's vectors) are written once if unrolled
                self.before.stand_in(
                    [m._buffers for m in self.before.modules if type(m).__module__.startswith("torch.")]
                )
            between(step)
            args, kwargs = request.at(step)
            with chance:
                request.net(*args, **kwargs)
            steps.append({note.key: note for note in watch.taken()})
        steps[-1].update({note.key: note for note in self._states(None)})
        return steps

    def _unrolled(self, layers: set[nn.Module], steps: Steps, chance: AbstractContextManager[Any]) -> list[Note]:
        """The inputs and outputs of the modules in the unrolled run, in the order of its calls."""
        self._begin()
        watch = Watch(layers, self.request.names, given(steps, self.request))
        try:
            with chance:
                unrolled = run(self.request, Snapshot(self.request.names)).unrolled
        except Exception as error:
            raise Differs(because(raises(error, self.request), self._stored())) from error
        return [note for note in (*watch.taken(), *self._states(unrolled)) if note.unrolled is unrolled]

    def _states(self, unrolled: UnrolledRun | None) -> Iterator[Note]:
        """The states of the neurons, which can differ before their spikes do."""
        for module, name in self.request.names.items():
            if isinstance(module, SpikingNeuron):
                states = tuple(vars(module)[state].detach() for state in module._state_names())
                yield Note((name, "state", 0), module, unrolled, states, (True,) * len(states))

    def _begin(self) -> None:
        """Reset the network to its state before the run, without the hooks that change nothing."""
        self.before.stand_in()
        for module in self.before.modules:
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                if hooks := vars(module)[name]:
                    matter = [(key, hook) for key, hook in hooks.items() if id(hook) in self._changing]
                    vars(module)[name] = type(hooks)(matter)

    def _is_rounding(self, key: Key, count: int, steps: Steps) -> bool:
        """Whether noise of the size of rounding causes differences as large in the loop over steps itself.

        False if repeating the loop without noise also differs: then the network has state that is not restored.
        """
        if self._noisy is None:
            layers = self.request.layers()
            again = self._step_by_step(layers, NoChance())
            self._repeats = _same(steps, again)
            self._noisy = self._step_by_step(layers, NoChance(), noise)
        moved = sum(_moved(clean, noisy, key) for clean, noisy in zip(steps, self._noisy, strict=True))
        return self._repeats and count <= 16 * moved


def ended(error: Exception) -> str:
    """The message of an error, with a full stop at its end."""
    text = str(error).rstrip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def raises(error: Exception, request: Request) -> str:
    """A sentence about an error that only the unrolled run raises."""
    return (
        f"unrolled over {request.steps} steps the network raises {type(error).__name__}: {ended(error)} Step by step "
        f"it does not; look in the forward for {CURES}."
    )


def because(sentence: str, cause: str) -> str:
    """A sentence about a difference, with its cause, if that is known, in place of the usual causes."""
    return f"{sentence.partition('; look in ')[0]}: {cause}" if cause else sentence


def _same(steps: Steps, others: Steps) -> bool:
    """Whether two loops have computed the same."""
    return all(was.keys() == now.keys() and not _moved(was, now, *was) for was, now in zip(steps, others, strict=True))


def _moved(clean: Mapping[Key, Note], noisy: Mapping[Key, Note], *keys: Key) -> int:
    """The number of values that differ between two runs of a step."""
    pairs = [pair for key in keys if key in noisy for pair in zip(noisy[key].tensors, clean[key].tensors, strict=False)]
    return sum(sum(count_unlike(a[None], b[None])) for a, b in pairs if a.shape == b.shape and a.dtype is b.dtype)


def _watched(hook: Callable[..., Any], changing: set[int]) -> Callable[..., Any]:
    """Wrap a hook, and add it to `changing` if it returns a value."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = hook(*args, **kwargs)
        if result is not None or type(hook).__module__.startswith("torch."):  # such as a weight norm
            changing.add(id(hook))
        return result

    return call


def _eager() -> AbstractContextManager[Any]:
    """Run compiled parts of the network in eager mode: the comparison uses other shapes."""
    return CompiledInEager() if "torch._dynamo" in sys.modules else nullcontext()


# -- everything that a network refers to -------------------------------------------------------------------------------

FOREIGN = sys.stdlib_module_names | {"torch", "numpy", "spikeloom"}
"""Packages whose objects are not searched: a forward should not write to them."""

MOST = 20_000
"""Maximum number of objects searched. A network that holds a dataset has more."""

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size))
"""Types of values that refer to no other objects."""


class DeepSnapshot(Snapshot):
    """A snapshot that follows references: includes values in lists and user objects, and random generators.

    Args:
        modules: of the network; modules in plain lists or objects are found as well.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        super().__init__(())
        self.modules: list[nn.Module] = []
        self._lazy: list[Tensor] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Callable[[Any], Any], Any, Callable[[], Any]]] = []
        todo: list[Any] = list(modules)
        seen: set[int] = set()
        for obj in todo:  # grows in the loop; the modules come first
            if id(obj) in seen:
                continue
            seen.add(id(obj))
            if isinstance(obj, nn.Module):
                self.modules.append(obj)
            if len(todo) < MOST:
                todo.extend(self._visit(obj))

    def _visit(self, obj: Any) -> Iterable[Any]:
        """Save one object; returns the objects that it refers to."""
        if isinstance(obj, (list, dict, set, deque)):
            return self._save(obj)
        if isinstance(obj, tuple):
            return obj
        if isinstance(obj, Tensor):
            if is_lazy(obj):
                self._lazy.append(obj)
            elif (type(obj) is nn.Parameter or not isinstance(obj, nn.Parameter)) and not is_wrapped(obj):
                self._save_values(obj)
        elif isinstance(obj, torch.Generator):
            self._generators.append((obj.set_state, obj.get_state(), obj.get_state))
        elif isinstance(obj, random.Random):
            self._generators.append((obj.setstate, obj.getstate(), obj.getstate))
        elif isinstance(obj, np.random.Generator):
            bits = obj.bit_generator
            self._generators.append((lambda s: setattr(bits, "state", s), bits.state, lambda: bits.state))
        elif isinstance(obj, np.ndarray) and obj.dtype != object and obj.flags.writeable:
            self._arrays.append((obj, obj.copy()))
        elif _has_attributes(obj):
            return self._save(vars(obj))
        return ()

    def _save(self, holder: Any) -> Iterable[Any]:
        saved = _copied(holder)
        self._containers[id(holder)] = holder, saved
        return [v for v in (saved.values() if isinstance(saved, dict) else saved) if type(v) not in ATOMS]

    def now(self) -> Self:
        """A snapshot of the current contents of the same containers, arrays and generators, and of new lazy buffers.

        It does not copy other tensors: `stand_in` does not modify them.
        """
        now = copy(self)
        now._containers = {at: (holder, _copied(holder)) for at, (holder, _) in self._containers.items()}
        now._arrays = [(array, array.copy()) for array, _ in self._arrays]
        now._generators = [(setter, getter(), getter) for setter, _, getter in self._generators]
        now._values = {}
        for t in self._lazy:
            if not is_lazy(t) and not isinstance(t, nn.Parameter):
                now._save_values(t)
        return now

    def _put_back(self, copied_once: Copy | None = None) -> None:
        super()._put_back(copied_once)
        for array, values in self._arrays:
            array[...] = values
        for setter, state, _ in self._generators:
            setter(state)

    def forget_unwritten(self) -> None:
        """Drop the copies of parameters that were not written to, so that `stand_in` need not copy them."""
        for at, (tensor, values, then) in [*self._values.items()]:
            same = isinstance(tensor, nn.Parameter) and version(tensor) == then
            if same and torch.equal(tensor, values):  # writes to `.data` do not count in the version
                del self._values[at]

    def drawn(self) -> tuple[bool, bool]:
        """Whether a generator that the network refers to was used: one of torch's, one of another library."""
        moved = [(state, getter()) for _, state, getter in self._generators]
        torchs = any(not torch.equal(was, now) for was, now in moved if isinstance(was, Tensor))
        return torchs, any(repr(was) != repr(now) for was, now in moved if not isinstance(was, Tensor))


def _has_attributes(obj: Any) -> bool:
    if isinstance(obj, (nn.Module, SimpleNamespace)):
        return True
    kind = type(obj)
    return kind.__module__.partition(".")[0] not in FOREIGN and isinstance(getattr(obj, "__dict__", None), dict)


def _copied(holder: Any) -> Any:
    return dict(holder) if isinstance(holder, dict) else set(holder) if isinstance(holder, set) else list(holder)
