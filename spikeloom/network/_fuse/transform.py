"""Run a function that has a loop over time by the kernels of `unroll`, with the values of the loop."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar, overload

import torch
from torch import nn

from ..._torch import (
    CompiledInEager,
    around_transforms,
    compiler_stance,
    fake_mode,
    graph_task,
    is_traced,
    on_function_apply,
    on_hidden_calls,
    saved_hooks,
    transformed,
)
from ...engine.run import forced
from ...neurons._unrolled_run import current_run, recorders
from ...scoped import Scoped
from .._checkpoint import checked_length
from .neurons import set_aside
from .partly import replay
from .plan import Plan
from .recorded import Vocabulary
from .recorder import Recorder
from .run import Execution
from .segments import InSegments, Segments

Function = TypeVar("Function", bound=Callable[..., Any])

PLANS = 64
"""The number of plans that a fused function stores."""

SMALL = 32_768
"""Up to so many elements in a result, recording an operation takes a tenth of running it or more."""


class Engine:
    """What a fused function stores from call to call, and how a call runs.

    Args:
        function: the user's function.
        exact_products: whether products run step by step.
        checkpoint: the number of steps of a segment that the backward recomputes; None for no recomputation.
    """

    def __init__(self, function: Callable[..., Any], exact_products: bool, checkpoint: int | None):
        self.function, self.exact_products, self.checkpoint = function, exact_products, checkpoint
        self.vocabulary = Vocabulary()
        self.plans: dict[Any, Plan] = {}
        self.noted = self.fused = self.elements = 0  # operations in the current call, and elements of their results
        self.poor = self.skip = 0
        self.always = checkpoint is not None  # whether to record where it does not pay, as for tests
        self.observer: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.why_plain():
            return self.function(*args, **kwargs)
        if self.skip:
            self.skip -= 1
            return self.function(*args, **kwargs)
        return self.recorded(args, kwargs)

    @staticmethod
    def why_plain() -> str:
        """Why nothing can be recorded now, so that the function runs as it is."""
        if torch.compiler.is_compiling():
            return "torch.compile traces the function"
        if recorders.open and recorders.current() is not None:
            return "it is part of another fused function"
        if as_it_is.get():
            return "each call of a neuron is examined"
        if transformed() or is_traced() or fake_mode() is not None or current_run() is not None:
            return "a transform of torch sees each operation"
        if saved_hooks() is not None:
            return "hooks pack the saved tensors, as by torch.utils.checkpoint"
        return "it runs within a backward pass" if graph_task() != -1 else ""

    def recorded(self, args: Any, kwargs: Any) -> Any:
        """Call the function on recording tensors."""
        self.noted = self.fused = self.elements = 0
        self.vocabulary.tidy()
        recorder = Recorder(self.vocabulary, self.run, forced())
        recorder.watch = None if self.observer is None else self.observer.path
        with ExitStack() as stack:
            stack.callback(_leave_eager, CompiledInEager.depth())
            if compiler_stance() is not None:  # the compiler would compile the recorder, in every compiled layer
                CompiledInEager.__enter__()
            stack.enter_context(recorders.active(recorder))
            stack.enter_context(on_function_apply(recorder.enter_function))
            stack.enter_context(around_transforms(recorder.transform))
            stack.enter_context(on_hidden_calls(recorder.enter_hidden))
            with recorder:
                try:
                    outputs = self.function(*args, **kwargs)
                finally:
                    recorder.execute()
        self._judge()
        return outputs

    def _judge(self) -> None:
        """Run the function as it is for some calls if recording takes longer than it saves.

        An operation that runs over all steps saves about what recording one takes, more if its tensors are large.
        """
        large = self.elements >= SMALL * self.noted
        if self.fused >= (0.25 if large else 0.4) * self.noted or self.observer is not None:
            self.poor = 0
        elif self.noted and not self.always:
            self.poor += 1
            if self.poor >= 2:
                self.skip = min(8 << self.poor, 1000)

    def run(self, recorder: Recorder) -> None:
        """Execute what a recorder has recorded."""
        with ExitStack() as stack:
            for touched in recorder.touched.values():
                if not touched.holds():
                    stack.enter_context(touched.restored())
            released = set_aside(recorder.touched)
            alive = recorder.alive()
            wanted = tuple([at for at, _ in alive])
            length = self.checkpoint if self.observer is None else None
            key = (tuple(recorder.operations), wanted, length)
            plan = self.plans.get(key)
            if plan is None:
                while len(self.plans) >= PLANS:
                    self.plans.pop(next(iter(self.plans)))
                noted = recorder.operations, recorder.first, recorder.kinds, wanted, self.exact_products
                plan = self.plans[key] = Plan(*noted) if length is None else Segments(*noted, length)
            self.noted += plan.count
            self.fused += plan.fused
            self.elements += plan.elements
            given = recorder.outside, recorder.touched
            execution = InSegments(plan, *given) if isinstance(plan, Segments) else Execution(plan, *given)
            try:
                execution.run()
                values = {at: execution.hand(at) for at in wanted}
            except Exception:
                self.fused -= plan.fused
                if (error := replay(recorder, execution.updates())) is not None:
                    raise error from None
                return
            except BaseException:
                recorder.abandon()
                raise
            if self.observer is not None:
                self.observer.note(recorder, plan, execution)
            standing: dict[int, Any] = dict(alive)
            before = {neuron: standing.get(at, execution.peek(at)) for neuron, at in released.items()}
            recorder.finish(values, alive)
            for neuron, value in before.items():
                neuron.__dict__["_before"] = value


def _leave_eager(depth: int) -> None:
    """Leave eager mode for compiled code, also if Ctrl-C came while it was entered."""
    while CompiledInEager.depth() > depth:
        CompiledInEager.__exit__()


class Fused(nn.Module):
    """Base of the modules that `fuse` returns: the same parameters, states and attributes, and a fused call."""

    _fused_engine: Engine

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        engine = engine_of(self)
        if self.__dict__ is not engine.function.__dict__:  # a replica made by nn.DataParallel
            return super().__call__(*args, **kwargs)
        return engine(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        engine = engine_of(self)
        return _again, (engine.function, engine.exact_products, engine.checkpoint)

    def __deepcopy__(self, memo: Any) -> Any:
        import copy

        engine = engine_of(self)
        return _again(copy.deepcopy(engine.function, memo), engine.exact_products, engine.checkpoint)


def engine_of(fused: Any) -> Engine:
    """The engine of a fused module or function."""
    found: Engine | None = getattr(type(fused), "_fused_engine", None) or getattr(fused, "_fused_engine", None)
    if found is None:
        raise TypeError(f"{type(fused).__name__} was not made by spikeloom.fuse")
    return found


as_it_is = Scoped("spikeloom_as_it_is", False)
"""Whether fused functions run as they are in this block, as for the gradient at each call of a neuron."""


def is_fused(function: Any) -> bool:
    """Whether a module or function was made by `fuse`."""
    return isinstance(function, Fused) or hasattr(function, "_fused_engine")


def _again(function: Any, exact_products: bool, checkpoint: int | None) -> Any:
    return fuse(function, exact_products=exact_products, checkpoint=checkpoint)


@overload
def fuse(function: Function, *, exact_products: bool = False, checkpoint: int | None = None) -> Function: ...
@overload
def fuse(*, exact_products: bool = False, checkpoint: int | None = None) -> Callable[[Function], Function]: ...
def fuse(function: Any = None, *, exact_products: bool = False, checkpoint: int | None = None) -> Any:
    """Run a module or function with its own loop over time by the kernels of `unroll`, with the results of the loop.

    Each call runs the function once, on tensors that record the operations of torch instead of running them. The
    recording is executed when the function returns, or earlier if a value is needed. The calls of one line of the loop
    at all steps run as one operation, the steps of a neuron as one fused scan, and operations with the same arguments
    at every step once. Feedback from later layers, and operations that cannot be recorded, run step by step, as
    written. So only the speed depends on what `fuse` recognizes. `spikeloom.explain` shows how each operation runs.

    Args:
        function: a module, or a function of tensors, for example the forward part of a training step. Its loop may
            pass the states by hand or let the neurons store them. As a decorator, also of a `forward`.
        exact_products: whether matrix products and convolutions run once per step. One product over all steps may
            round differently from one per step, so that a membrane at the threshold may fire in one and not in the
            other. All other results are bit-identical to the loop. Default: False.
        checkpoint: the number of steps K of a segment. The backward recomputes one segment after the other from the
            states at its start, so that the memory is that of K steps, and of one set of states every K steps; the
            forward runs twice. Nothing that the function reads may change before the backward. None saves the values
            of all steps. Default: None.

    Returns:
        For a module, a module that shares its parameters, buffers, submodules, states and attributes: train, save or
        move either of them. For a function, a function. Both return what the original returns, with the same graph,
        and leave the same states in the neurons and in the random number generators.

    Raises:
        TypeError: if `function` is neither a module nor callable, or is a DistributedDataParallel, or if `checkpoint`
            is not a whole number. The errors of the function are raised at its line.
        ValueError: if `checkpoint` is less than 1.

    Dropout, encoders and other random operations draw in the order of the loop, and batch normalization in training
    updates its statistics at every step. Compiled layers in the function run in eager mode, so that their operations
    are recorded. The function runs as written under torch.compile, torch.func, torch.jit.trace
    and hooks for saved tensors, and within a backward pass. It also does so for some calls if recording takes longer
    than it saves.

        >>> import torch, spikeloom as snn
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc, self.lif = torch.nn.Linear(3, 4), snn.Leaky(beta=0.9)
        ...     def forward(self, x):
        ...         mem, spikes = self.lif.init_leaky(), []
        ...         for step in range(len(x)):
        ...             spk, mem = self.lif(self.fc(x[step]), mem)
        ...             spikes.append(spk)
        ...         return torch.stack(spikes), mem
        >>> net = Net()
        >>> fast = snn.fuse(net)
        >>> spk, mem = fast(torch.rand(25, 2, 3))
        >>> spk.shape, fast.fc is net.fc
        (torch.Size([25, 2, 4]), True)
    """
    if function is None:
        return functools.partial(fuse, exact_products=exact_products, checkpoint=checkpoint)
    if checkpoint is not None:
        checked_length(checkpoint)
    engine = Engine(function, exact_products, checkpoint)
    if isinstance(function, nn.Module):
        return _fused_module(function, engine)
    if not callable(function):
        raise TypeError(f"fuse requires a module or a function; got {type(function).__name__}")

    @functools.wraps(function)
    def fused(*args: Any, **kwargs: Any) -> Any:
        return engine(*args, **kwargs)

    fused._fused_engine = engine  # type: ignore[attr-defined]
    return fused


def _fused_module(net: nn.Module, engine: Engine) -> nn.Module:
    kind = type(net)
    if isinstance(net, Fused):
        return net
    if isinstance(net, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "fuse got a DistributedDataParallel; fuse the network first: DistributedDataParallel(fuse(net))"
        )
    body = {"_fused_engine": engine, "__module__": kind.__module__, "__doc__": kind.__doc__}
    made = type.__new__(type(kind), kind.__name__, (Fused, kind), body)
    fused: nn.Module = object.__new__(made)
    object.__setattr__(fused, "__dict__", net.__dict__)
    return fused
