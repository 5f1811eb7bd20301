"""Does a network give the same unrolled as step by step? Its first steps are run both ways and compared.

Both runs are made on the network itself, in its mode and in the dtype of the call, from where it stood before; then it
is put back. Random operations return constants. Neurons are driven to spike, and return spikes made up for the purpose,
the same both ways: so what is done to spikes shows within three steps, also where none would fire so soon. Each is
given, unrolled, the very inputs that it got step by step: a difference by rounding, which is no error, can not grow.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from operator import itemgetter
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from .._torch import FORWARD_HOOKS, tree_flatten, tree_unflatten
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._state import on_trial
from ..neurons._time import Listener, Time, current_time
from ._differences import CURES, Difference, Key, Note, Steps, count_unlike, difference, differs_by_design, precision
from ._known import CALLED
from ._randomness import NoChance
from ._reachable import Reachable
from ._request import Request
from ._run import REPEATED, run
from ._snapshot import RandomState, Snapshot

STEPS = 3
"""How many steps the first call compares. What a forward keeps between steps shows at the second or third."""


class CannotCompare(Exception):
    """There is no loop over steps to compare with; says why."""


class Differs(RuntimeError):
    """A network gives something else unrolled than step by step; says where."""


class Comparison:
    """A network as it is before a run, and its first steps of input, to be run step by step and unrolled.

    Args:
        request: what is run.
        steps: how many steps are compared, at most.
    """

    def __init__(self, request: Request, steps: int):
        first = min(request.steps, steps)
        args, kwargs = request.mapped(lambda t: (t if request.static else t[:first]).detach().clone())
        net = request.net.module if isinstance(request.net, nn.parallel.DistributedDataParallel) else request.net
        self.request = replace(request, net=net, args=args, kwargs=kwargs, steps=first)
        self.before = Reachable(request.names)
        self._changing: set[int] = set()
        self._noisy: Steps | None = None
        self._repeats = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the run: which hooks change what a module gets or returns? The comparison calls no other."""
        called = [hooks for m in self.request.names for name in CALLED if (hooks := getattr(m, name))]
        watched = [(hooks, dict(hooks)) for hooks in called]
        for hooks, own in watched:
            for key, hook in own.items():
                if not isinstance(hook, Listener):
                    hooks[key] = _Watched(hook, self._changing)
        try:
            yield
        finally:
            for hooks, own in watched:
                hooks.update({key: hook for key, hook in own.items() if isinstance(hooks.get(key), _Watched)})

    def undo(self) -> None:
        """Put back what the run has written to lists, dicts and the user's objects."""
        self.before.restore()

    def compare(self) -> None:
        """Run both ways, and raise where they differ.

        Raises:
            Differs: naming the first module, in the order of the forward, that sees or returns other values.
            CannotCompare: if the network does not run step by step, or in no reproducible way.
        """
        drawn, put_back = RandomState(), self.before.now()
        self.before.forget_unwritten()
        net = self.request.net
        repeated = dict(REPEATED.get(net, {}))
        try:
            with torch.no_grad(), on_trial(), _eager():
                self._compare(drawn)
        finally:
            put_back()
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
        if not random and not self._differs(few, steps):
            return  # as nearly all networks do; the rest finds which module it is, and takes longer
        steps = self._step_by_step(layers, NoChance())
        for note in self._unrolled(layers, steps, NoChance()):
            found = difference(note, steps, self.request)
            if found is not None and not self._is_rounding(note, found, steps):
                raise Differs(found.sentence)

    def _differs(self, layers: set[nn.Module], steps: Steps) -> bool:
        return any(difference(note, steps, self.request) for note in self._unrolled(layers, steps, nullcontext()))

    # -- the two ways -------------------------------------------------------------------------------------------------

    def _step_by_step(
        self, layers: set[nn.Module], chance: AbstractContextManager[Any], clean: Steps | None = None
    ) -> Steps:
        """What the modules saw and returned at each step; with noise as large as rounding, if `clean` is given."""
        steps: Steps = []
        self._begin()
        own, kwargs = self.request.mapped(torch.clone)  # which a forward may write to
        request = replace(self.request, args=own, kwargs=kwargs)
        watch = _Watch(layers, self.request.names, _driven(steps) if clean is None else _noise(clean, steps))
        for step in range(self.request.steps):
            if step:
                self._renew()
            args, kwargs = request.at(step)
            with chance:
                request.net(*args, **kwargs)
            steps.append({note.key: note for note in watch.taken()})
        steps[-1].update({note.key: note for note in self._states(None)})
        return steps

    def _unrolled(self, layers: set[nn.Module], steps: Steps, chance: AbstractContextManager[Any]) -> list[Note]:
        """What the modules saw and returned unrolled, in the order in which they did."""
        self._begin()
        watch = _Watch(layers, self.request.names, _given(steps, self.request))
        try:
            with chance:
                time = run(self.request, Snapshot(self.request.names)).time
        except Exception as error:
            raise Differs(
                f"unrolled over {self.request.steps} steps the network raises {type(error).__name__}: {error} Step by "
                f"step it does not; look in the forward for {CURES}"
            ) from error
        return [note for note in (*watch.taken(), *self._states(time)) if note.time is time]

    def _states(self, time: Time | None) -> Iterator[Note]:
        """What the neurons keep: it shows what their spikes do not yet show."""
        for module, name in self.request.names.items():
            if isinstance(module, SpikingNeuron):
                states = tuple(vars(module)[state].detach() for state in module._state_names())
                yield Note((name, "state", 0), module, time, states, (True,) * len(states))

    def _begin(self) -> None:
        """Let the network be as it was before the run, without the hooks that change nothing."""
        self.before.begin()
        for module in self.before.modules:
            own = vars(module)
            for name in (*FORWARD_HOOKS, "_backward_hooks", "_backward_pre_hooks"):
                if hooks := own[name]:
                    own[name] = type(hooks)((k, v) for k, v in hooks.items() if self._matters(name, k, v))

    def _matters(self, name: str, key: int, hook: Any) -> bool:
        return "backward" not in name and (name not in CALLED or id(hook) in self._changing)

    def _renew(self) -> None:
        """What torch's own layers count (statistics, the vectors of a spectral norm) is written once unrolled."""
        self.before.begin([m._buffers for m in self.before.modules if type(m).__module__.startswith("torch.")])

    def _is_rounding(self, note: Note, found: Difference, steps: Steps) -> bool:
        """Whether noise as large as rounding makes differences as large in the loop over steps itself.

        Not if the loop gives other values also without noise: then the network keeps something that is not put back.
        """
        if found.count is None:
            return False
        if self._noisy is None:
            layers = self.request.layers()
            again = self._step_by_step(layers, NoChance())
            self._repeats = all(
                was.keys() == now.keys() and not _moved(was, now, *was) for was, now in zip(steps, again, strict=True)
            )
            self._noisy = self._step_by_step(layers, NoChance(), steps)
        moved = sum(_moved(clean, noisy, note.key) for clean, noisy in zip(steps, self._noisy, strict=True))
        return self._repeats and found.count <= 16 * moved


def _moved(clean: Mapping[Key, Note], noisy: Mapping[Key, Note], *keys: Key) -> int:
    """How many numbers differ between two runs of a step."""
    pairs = [pair for key in keys if key in noisy for pair in zip(noisy[key].tensors, clean[key].tensors, strict=False)]
    return sum(sum(count_unlike(a[None], b[None])) for a, b in pairs if a.shape == b.shape and a.dtype is b.dtype)


class _Watch:
    """Notes what goes in and out of layers, and changes it on the way, until the layers are put back.

    It stands in the place of their forwards: nearer than any hook, and sooner called.

    Args:
        layers: which.
        names: the paths of modules.
        mend: what is changed.
    """

    def __init__(self, layers: Iterable[nn.Module], names: Mapping[nn.Module, str], mend: "Mend"):
        self._mend, self._notes = mend, list[Note]()
        self._calls: dict[tuple[nn.Module, int], int] = {}
        for module in layers:
            vars(module)["forward"] = partial(self._call, module, names.get(module, ""), module.forward)

    def taken(self) -> list[Note]:
        """What was noted since this was last asked."""
        taken, self._notes, self._calls = self._notes, [], {}
        return taken

    def _call(self, module: nn.Module, path: str, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        time = current_time()
        call = self._calls.get((module, id(time)), 0)
        if kwargs:
            args, kwargs = self._note((path, "input", call), module, time, (args, kwargs))
        else:
            args = self._note((path, "input", call), module, time, args)
        self._calls[module, id(time)] = call + 1
        return self._note((path, "output", call), module, time, forward(*args, **kwargs))

    def _note(self, key: Key, module: nn.Module, time: Time | None, tree: Any) -> Any:
        with nullcontext() if time is None else time.aside():
            leaves, rebuilt = _flat(tree)
            tensors = tuple([leaf for leaf in leaves if _counts(leaf)])
            static = tuple([time is not None and time.is_static(t) for t in tensors])
            note = Note(key, module, time, tuple([t.detach().clone() for t in tensors]), static)
            self._notes.append(note)
            mended = self._mend(note, tensors)
            if mended is None:
                return tree
            if time is None:
                note.given = tuple([t.clone() for t in mended])
            rest = iter(mended)
            return rebuilt([next(rest) if _counts(leaf) else leaf for leaf in leaves])


class _Watched:
    """A hook that notes whether it returns anything.

    Args:
        hook: the hook.
        changing: the ids of those that do.
    """

    def __init__(self, hook: Callable[..., Any], changing: set[int]):
        self.hook, self.changing = hook, changing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.hook(*args, **kwargs)
        if result is not None or type(self.hook).__module__.startswith("torch."):  # such as a weight norm
            self.changing.add(id(self.hook))
        return result


# -- what is changed on the way ---------------------------------------------------------------------------------------

Mend = Callable[[Note, tuple[Tensor, ...]], "list[Tensor] | None"]
"""Takes a note and the tensors themselves; returns others in their place, or nothing."""


def _driven(steps: Steps) -> Mend:
    """Step by step: every neuron gets currents that make it fire, and returns made-up spikes."""

    currents: dict[Any, Tensor] = {}

    def current(neuron: SpikingNeuron, path: str, like: Tensor) -> Tensor:
        threshold = getattr(neuron, "threshold", None)
        if not isinstance(threshold, Tensor) or not threshold.numel():
            threshold = torch.ones(())
        return 3 * threshold.abs().max().nan_to_num(0.0, 0.0, 0.0) * _pattern(like, path, 0)

    def mend(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
        neuron, (path, way, _) = note.module, note.key
        if not isinstance(neuron, SpikingNeuron) or not tensors or not tensors[0].is_floating_point():
            return None
        first, *rest = tensors
        if way == "output":
            return [_pattern(first, path, len(steps)), *rest]
        at = note.key, first.shape, first.dtype
        if at not in currents:
            currents[at] = current(neuron, path, first)
        return [first + currents[at], *rest]

    return mend


def _pattern(like: Tensor, path: str, step: int) -> Tensor:
    """Zeros, and ones at two of five places, which differ from row to row and from step to step."""
    start, size = crc32(f"{step} {path}".encode()) % PERIOD, like.numel()
    ones = _ones() if size <= PERIOD else _ones().repeat(1 + size // PERIOD)
    return ones[start : start + size].view(like.shape).to(like, copy=True)


PERIOD = 65521
"""Places after which made-up spikes come again. A prime number, so that rows of nearly all sizes differ."""


@cache
def _ones() -> Tensor:
    places = torch.arange(2 * PERIOD, device="cpu") % PERIOD
    return ((places * 2654435761) % 2**32 >> 16) % 5 < 2


def _given(steps: Steps, request: Request) -> Mend:
    """Unrolled: a neuron gets and returns what it got and returned step by step, as does what differs by design."""

    def mend(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
        module, time = note.module, note.time
        forced = isinstance(module, SEES_TIME) or (note.key[1] == "output" and differs_by_design(module))
        if time is None or not forced:
            return None
        if any(note.key not in step or len(step[note.key].tensors) != len(tensors) for step in steps):
            return None
        new = []
        for i, (t, static) in enumerate(zip(tensors, note.static, strict=True)):
            each = [(step[note.key].given or step[note.key].tensors)[i] for step in steps]
            other = each[0] if static else torch.cat(each)
            if other.shape != t.shape or other.dtype != t.dtype:
                return None
            if time.origins is not None:
                time.origins.mark(other, static)
            new.append(other)
        return new

    return mend


def _noise(clean: Steps, steps: Steps) -> Mend:
    """Step by step: every layer returns a little more or less, and every neuron gets and returns what it did before."""

    def mend(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
        was = clean[len(steps)].get(note.key)
        if was is None or len(was.tensors) != len(tensors):
            return None
        given = was.given or was.tensors
        if note.key[1] == "input":
            first = not note.key[0] or isinstance(note.module, SEES_TIME)
            return [_shaken(t) for t in given] if first else None
        if isinstance(note.module, SEES_TIME):
            return [t.clone() for t in given]
        return None if note.module._modules else [_shaken(t) for t in tensors]

    return mend


def _shaken(t: Tensor) -> Tensor:
    if not t.is_floating_point() or not t.numel():
        return t
    wave = torch.arange(t.numel(), device=t.device, dtype=torch.float32).cos().view(t.shape)
    return t + (16 * precision(t) * t.abs().max() * wave).to(t.dtype)


def _flat(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of nested containers, and what makes such containers of others; `tree_flatten` takes 20 us."""
    if isinstance(tree, Tensor):
        return [tree], itemgetter(0)
    if type(tree) is tuple and all(isinstance(leaf, Tensor) for leaf in tree):
        return list(tree), tuple
    leaves, form = tree_flatten(tree)
    return leaves, lambda others: tree_unflatten(others, form)


def _counts(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def _eager() -> AbstractContextManager[Any]:
    """Compiled parts of the network run as they are written: the comparison has shapes of its own."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
