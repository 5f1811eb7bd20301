"""Does a network give the same unrolled as step by step? Its first steps are run both ways and compared.

Both runs are made on the network itself, in its mode and in the dtype of the call, from where it stood before; then it
is put back. Random operations return constants. Neurons are driven to spike, and return spikes made up for the purpose,
the same both ways: so what is done to spikes shows within three steps, also where none would fire so soon. Each is
given, unrolled, the very inputs that it got step by step: a difference by rounding, which is no error, can not grow.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._state import on_trial
from ..neurons._unrolled_run import Listener, UnrolledRun
from ._run import REPEATED, run
from ._snapshot import DeepSnapshot, RandomState, Snapshot
from ._time_folding import Request
from ._watch import Key, NoChance, Note, Steps, Watch, differs_by_design, driven, given, noise, precision

STEPS = 3
"""How many steps the first call compares. What a forward keeps between steps shows at the second or third."""


CURES = (
    "what it keeps between steps (an attribute, a counter, a state of a neuron), operations over dimension 0, which "
    "mix the rows of a batch (layers that take time or nodes there, a mean, an index), or a size of dimension 0 that "
    "enters a value. If that cannot be changed, run the network step by step, or pass check=False if it is meant"
)

Difference = tuple[str, int | None]
"""What differs, in a sentence, and in how many numbers; None where it is more than numbers."""


class CannotCompare(Exception):
    """There is no loop over steps to compare with; says why."""


class Differs(RuntimeError):
    """A network gives something else unrolled than step by step; says where."""


class Comparison:
    """A network as it is before a run, and its first steps of input, to be run step by step and unrolled."""

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
        """Around the run: which hooks change what a module gets or returns? The comparison calls no other."""
        watched = [
            (hooks, key, hook, _watched(hook, self._changing))
            for module in self.request.names
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
            for key, hook in hooks.items()
            if not isinstance(hook, Listener)
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
        """Run both ways, and raise where they differ.

        Raises:
            Differs: naming the first module, in the order of the forward, that sees or returns other values.
            CannotCompare: if the network does not run step by step, or in no reproducible way.
        """
        drawn, after = RandomState(), self.before.now()
        self.before.forget_unwritten()
        net = self.request.net
        repeated = dict(REPEATED.get(net, {}))
        try:
            with torch.no_grad(), on_trial(), _eager():
                self._compare(drawn)
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
            told = f"step by step the network raises {type(error).__name__}: {error}"
            if self.request.batch == 1 and any(map(differs_by_design, layers)):
                raise CannotCompare(told) from error  # a BatchNorm in training wants more rows than one
            raise Differs(f"{told} Unrolled it does not; if that is meant, pass check=False") from error
        by_own, elsewhere = self.before.drawn()
        if elsewhere or not drawn.same_outside_torch():
            raise CannotCompare("its forward draws random numbers outside of torch, so that no two runs are the same")
        random = by_own or not drawn.same_in_torch()
        if not random and not any(self._differences(few, steps, nullcontext())):
            return  # as nearly all networks do; the rest finds which module it is, and takes longer
        steps = self._step_by_step(layers, NoChance())
        for key, sentence, count in self._differences(layers, steps, NoChance()):
            if count is None or not self._is_rounding(key, count, steps):
                raise Differs(sentence)

    def _differences(
        self, layers: set[nn.Module], steps: Steps, chance: AbstractContextManager[Any]
    ) -> Iterator[tuple[Key, str, int | None]]:
        for note in self._unrolled(layers, steps, chance):
            found = difference(note, steps, self.request)
            if found is not None:
                yield note.key, *found

    def _step_by_step(
        self, layers: set[nn.Module], chance: AbstractContextManager[Any], clean: Steps | None = None
    ) -> Steps:
        """What the modules saw and returned at each step; with noise as large as rounding, if `clean` is given."""
        steps: Steps = []
        self._begin()
        own, kwargs = self.request.mapped(torch.clone)  # which a forward may write to
        request = replace(self.request, args=own, kwargs=kwargs)
        watch = Watch(layers, self.request.names, driven(steps) if clean is None else noise(clean, steps))
        for step in range(self.request.steps):
            if step:  # what torch's own layers count (statistics, a spectral norm's vectors) is written once unrolled
                self.before.stand_in(
                    [m._buffers for m in self.before.modules if type(m).__module__.startswith("torch.")]
                )
            args, kwargs = request.at(step)
            with chance:
                request.net(*args, **kwargs)
            steps.append({note.key: note for note in watch.taken()})
        steps[-1].update({note.key: note for note in self._states(None)})
        return steps

    def _unrolled(self, layers: set[nn.Module], steps: Steps, chance: AbstractContextManager[Any]) -> list[Note]:
        """What the modules saw and returned unrolled, in the order in which they did."""
        self._begin()
        watch = Watch(layers, self.request.names, given(steps, self.request))
        try:
            with chance:
                unrolled = run(self.request, Snapshot(self.request.names)).unrolled
        except Exception as error:
            raise Differs(
                f"unrolled over {self.request.steps} steps the network raises {type(error).__name__}: {error} Step by "
                f"step it does not; look in the forward for {CURES}"
            ) from error
        return [note for note in (*watch.taken(), *self._states(unrolled)) if note.unrolled is unrolled]

    def _states(self, unrolled: UnrolledRun | None) -> Iterator[Note]:
        """What the neurons keep: it shows what their spikes do not yet show."""
        for module, name in self.request.names.items():
            if isinstance(module, SpikingNeuron):
                states = tuple(vars(module)[state].detach() for state in module._state_names())
                yield Note((name, "state", 0), module, unrolled, states, (True,) * len(states))

    def _begin(self) -> None:
        """Let the network be as it was before the run, without the hooks that change nothing."""
        self.before.stand_in()
        for module in self.before.modules:
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                if hooks := vars(module)[name]:
                    matter = [(key, hook) for key, hook in hooks.items() if id(hook) in self._changing]
                    vars(module)[name] = type(hooks)(matter)

    def _is_rounding(self, key: Key, count: int, steps: Steps) -> bool:
        """Whether noise as large as rounding makes differences as large in the loop over steps itself.

        Not if the loop gives other values also without noise: then the network keeps something that is not put back.
        """
        if self._noisy is None:
            layers = self.request.layers()
            again = self._step_by_step(layers, NoChance())
            self._repeats = all(
                was.keys() == now.keys() and not _moved(was, now, *was) for was, now in zip(steps, again, strict=True)
            )
            self._noisy = self._step_by_step(layers, NoChance(), steps)
        moved = sum(_moved(clean, noisy, key) for clean, noisy in zip(steps, self._noisy, strict=True))
        return self._repeats and count <= 16 * moved


def _moved(clean: Mapping[Key, Note], noisy: Mapping[Key, Note], *keys: Key) -> int:
    """How many numbers differ between two runs of a step."""
    pairs = [pair for key in keys if key in noisy for pair in zip(noisy[key].tensors, clean[key].tensors, strict=False)]
    return sum(sum(count_unlike(a[None], b[None])) for a, b in pairs if a.shape == b.shape and a.dtype is b.dtype)


def _watched(hook: Callable[..., Any], changing: set[int]) -> Callable[..., Any]:
    """A hook that notes in `changing` whether it returns anything."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = hook(*args, **kwargs)
        if result is not None or type(hook).__module__.startswith("torch."):  # such as a weight norm
            changing.add(id(hook))
        return result

    return call


def _eager() -> AbstractContextManager[Any]:
    """Compiled parts of the network run as they are written: the comparison has shapes of its own."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


# -- differences ------------------------------------------------------------------------------------------------------


def difference(note: Note, steps: Steps, request: Request) -> Difference | None:
    """Where a note of the unrolled run differs from those of the loop over steps; None if it does not."""
    path, way, _ = note.key
    if way == "output" and differs_by_design(note.module):
        return None
    label = f"{path!r} ({type(note.module).__name__})" if path else f"the network ({type(note.module).__name__})"
    first = len(steps) - 1 if way == "state" else 0  # of states, that of the last step is known
    for step, stepped in enumerate(steps[first:], first):
        if note.key not in stepped:
            return f"{label} is called unrolled, and not at step {step}; look in the forward for {CURES}", None
        if len(stepped[note.key].tensors) != len(note.tensors):
            return _sentence(label, way, step), None
    counts = [0] * len(steps)
    for i, (t, static) in enumerate(zip(note.tensors, note.static, strict=True)):
        if not static and len(t) != request.steps * request.batch:
            continue  # dimension 0 is not time and batch, as inside an attention
        wanted = [stepped[note.key].tensors[i] for stepped in steps[first:]]
        shape = t.shape if static else (request.batch, *t.shape[1:])
        for step, w in enumerate(wanted, first):
            if w.shape != shape or w.dtype != t.dtype:
                return _sentence(label, way, step), None
        got = t.expand(len(wanted), *shape) if static else t.view(len(wanted), *shape)
        for step, count in enumerate(count_unlike(got, torch.stack(wanted)), first):
            counts[step] += count
    differing = [step for step, count in enumerate(counts) if count]
    return (_sentence(label, way, differing[0]), sum(counts)) if differing else None


def _sentence(label: str, way: str, step: int) -> str:
    told, where = {
        "input": ("gets another input", "the forward around it, or a hook,"),
        "output": ("returns other values for the same input", "its forward"),
        "state": ("has another state after the same input", "the forward around it"),
    }[way]
    return f"{label} {told} unrolled than step by step, first at step {step}; look in {where} for {CURES}"


def count_unlike(got: Tensor, wanted: Tensor) -> list[int]:
    """How many numbers differ by more than rounding, at each step, of tensors [T, ...] of one shape and dtype."""
    if torch.equal(got, wanted):
        return [0] * len(got)
    if not got.dtype.is_floating_point:
        same = got == wanted
    else:
        close = precision(got)
        relative = min(1000 * close, close**0.5)
        finite = wanted.nan_to_num(0.0, 0.0, 0.0).abs()
        largest = finite.flatten(1).amax(1).view(-1, *[1] * (got.dim() - 1))
        same = (got - wanted).abs() <= relative * (finite + largest / 8)
        same |= (got == wanted) | (got.isnan() & wanted.isnan())
    counts: list[int] = (~same).flatten(1).sum(1).tolist()
    return counts
