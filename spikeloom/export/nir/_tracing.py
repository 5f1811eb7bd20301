"""Record one step of a network: which layer gets the outputs of which others.

The network runs once on the sample. Hooks see the layers; a `TorchFunctionMode` sees what the forwards do between
them. Sums of outputs become edges, reshapes become Flatten, constant factors become Scale. Another operation is refused
if its result reaches a layer or an output, with its name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import FunctionMode, tree_leaves
from ...layers import SEES_TIME
from ...neurons import SpikingNeuron
from ._forms import Shape
from ._layers import is_known

ADDED = {"add", "add_", "__add__", "__radd__", "__iadd__"}
SUBTRACTED = {"sub", "sub_", "subtract", "__sub__", "__isub__"}
SCALED = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
DIVIDED = {"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"}
NEGATED = {"neg", "negative", "__neg__"}
ARITHMETIC = ADDED | SUBTRACTED | SCALED | DIVIDED
IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__"}
SAME = {"clone", "detach", "detach_", "contiguous", "to", "float", "double", "requires_grad_", "type_as", "cpu", "cuda"}
SAME |= {"dropout", "dropout1d", "dropout2d", "alpha_dropout", "identity", "alias", "type", "data"}
WHOLE = {"__getitem__"}
UNSIZED = {"squeeze", "unsqueeze"}
RESHAPED = {"flatten", "reshape", "view", "view_as", "reshape_as", "unflatten"}
FRESH = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
FRESH |= {"new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"}


OUTPUT = re.compile(r"output(_\d+)?")  # the names of the Output nodes


@dataclass(frozen=True)
class Value:
    """What a tensor of the run is: the sum of outputs of layers, or something that NIR cannot express.

    Args:
        sources: keys of the layers whose outputs it sums, in order.
        why: why it is none, empty otherwise.
        state: whether it is a state that a neuron returned.
    """

    sources: tuple[str, ...] = ()
    why: str = ""
    state: bool = False


@dataclass
class Step:
    """A layer, or an operation between layers, in the order of the run.

    Args:
        key: its name in the graph.
        layer: the module; None for an operation.
        operation: "flatten" or "scale".
        factor: of a scale.
        sources: the keys of the layers that it gets the sum of.
        before, after: the shapes of the tensors, with the dimensions of the batch.
        label: for messages.
    """

    key: str
    layer: nn.Module | None
    sources: tuple[str, ...]
    before: Shape
    after: Shape
    label: str
    operation: str = ""
    factor: Any = None


@dataclass
class Recording:
    """One step of a network.

    Args:
        inputs: names and shapes.
        steps: layers and operations, in the order of the run.
        outputs: the keys whose sum an output is, its shape, and its place among the tensors that the forward returns.
    """

    inputs: list[tuple[str, Shape]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[tuple[tuple[str, ...], Shape, int]] = field(default_factory=list)

    def links(self) -> list[Any]:
        """What is connected with what."""
        return [*((step.key, step.sources, step.before, step.after) for step in self.steps), *self.outputs]


class CannotTrace(ValueError):
    """A forward that is no NIR graph; the message says where, and what would be one."""


def record(net: nn.Module, samples: Sequence[Any], run: Callable[..., Any], lead: int) -> Recording:
    """The recording of one step; a second step must be the same, or the forward itself keeps something between them.

    Args:
        net: the network; its states and mode are those of a copy, which the run may change.
        samples: the inputs of one step.
        run: called with the network and the samples.
        lead: the number of dimensions of the batch.
    """
    samples = tuple(sample.clone() for sample in samples)  # which the forward may change
    first, second = Tracer(net, lead), Tracer(net, lead)
    again = [sample.clone() for sample in samples]
    _trace(first, net, samples, run)
    second.before = {key: t for key, (t, _) in first.values.items() if not any(t is sample for sample in samples)}
    _trace(second, net, again, run)
    if first.recording.links() != second.recording.links():
        raise CannotTrace(f"the forward runs other layers at the second step than at the first; {OWN_STATE}")
    return first.recording


OWN_STATE = "states live in neurons and layers with delays, and spikes come back through RLeaky or RSynaptic"


def _trace(tracer: "Tracer", net: nn.Module, samples: Sequence[Any], run: Callable[..., Any]) -> None:
    for i, sample in enumerate(samples):
        name = "input" if len(samples) == 1 else f"input_{i}"
        tracer.values[id(sample)] = (sample, Value((name,)))
        tracer.recording.inputs.append((name, tuple(sample.shape)))
    handles = [handle for layer in tracer.names if _is_leaf(layer) for handle in tracer.watch(layer)]
    try:
        with torch.no_grad(), tracer:
            outputs = run(net, *samples)
    finally:
        for handle in handles:
            handle.remove()
    tracer.finish(outputs)


def _is_leaf(layer: nn.Module) -> bool:
    """Whether a layer is one node: one that NIR may know, or a layer of torch without parts."""
    if is_known(layer) or isinstance(layer, SEES_TIME):
        return True
    return type(layer).__module__.startswith("torch.nn.") and not any(True for _ in layer.children())


class Tracer(FunctionMode):
    """Follows the tensors of one run."""

    def __init__(self, net: nn.Module, lead: int):
        super().__init__()
        self.names = {module: name for name, module in net.named_modules()}
        self.lead, self.recording = lead, Recording()
        self.values: dict[int, tuple[Any, Value]] = {}  # the tensors are held, so that no id is used twice
        self.before: dict[int, Any] = {}  # the tensors of an earlier step
        self.within, self.calls = 0, dict.fromkeys(self.names, 0)
        self.within_leaves = {part for m in self.names if _is_leaf(m) for part in m.modules() if part is not m}

    # -- layers -------------------------------------------------------------------------------------------------------

    def watch(self, layer: nn.Module) -> Iterable[Any]:
        """Record the calls of a layer."""
        if layer in self.within_leaves:
            return ()

        def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
            self.within += 1

        def leave(layer: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self.within -= 1
            self._called(layer, (*args, *kwargs.values()), out)

        first = layer.register_forward_pre_hook(enter, with_kwargs=True)
        # before the layer's other hooks, whose changes of the output are then seen as the forward's
        return first, layer.register_forward_hook(leave, with_kwargs=True, prepend=True)

    def _called(self, layer: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        label = self.label(layer)
        given = args[0] if args else None
        if not isinstance(given, Tensor):
            raise CannotTrace(
                f"{label} got {type(given).__name__} as its input, not a tensor; if it is a cycle that was imported, "
                "use the graph that it was imported from"
            )
        value = self._known(given)
        if value is None:
            raise CannotTrace(f"{label} gets an input that does not come from the input of the network")
        if value.why:
            raise CannotTrace(f"{label} {value.why}")
        neuron = isinstance(layer, SpikingNeuron)
        for state in tree_leaves(args[1:]) if neuron and not self.before else ():
            if isinstance(state, Tensor) and state.numel() and bool((state != 0).any()):
                raise CannotTrace(
                    f"{label} starts from a state that is not zero; NIR has no initial state. Pass zeros, or none"
                )
        self.calls[layer] += 1
        if self.calls[layer] > 1 and isinstance(layer, SEES_TIME):
            raise CannotTrace(
                f"the forward calls {label} {self.calls[layer]} times; a graph is one step of the network. If the "
                "forward loops over time, pass model_fwd, a function (module, x) that runs one step"
            )
        first = out[0] if isinstance(out, (tuple, list)) else out
        key = self._key(layer)
        shapes = tuple(given.shape), tuple(first.shape)
        self.recording.steps.append(Step(key, layer, value.sources, *shapes, label))
        for other in tree_leaves(out):
            if isinstance(other, Tensor):
                self._note(other, Value(why=f"reads a state of {label}; NIR sends only its spikes", state=True))
        self._note(first, Value((key,)))

    def label(self, layer: nn.Module) -> str:
        name = self.names.get(layer, "")
        return f"{name!r} ({type(layer).__name__})" if name else type(layer).__name__

    def _key(self, layer: nn.Module) -> str:
        name = self.names[layer] or type(layer).__name__.lower()
        return self._free(name)

    def _free(self, name: str) -> str:
        taken = {step.key for step in self.recording.steps} | {name for name, _ in self.recording.inputs}
        key, count = name, 0
        while key in taken or OUTPUT.fullmatch(key):
            count += 1
            key = f"{name}_layer_{count}" if OUTPUT.fullmatch(name) else f"{name}_{count}"
        return key

    # -- operations ---------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.within:
            self._operated(func, (*args, *kwargs.values()), kwargs, out)
        return out

    def _operated(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):  # of a property, such as x.data
            name = getattr(func.__self__, "__name__", name)
        given = [t for t in tree_leaves(args) if isinstance(t, Tensor) and self._known(t) is not None]
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not given or name in FRESH:
            return
        if _writes(func, name, kwargs):
            self._written(name, kwargs.get("out", args[0]))
        if not outs:
            return
        bad = next((value for t in given if (value := self._known(t)) is not None and value.why), None)
        value = bad or self._result(name, args, given, outs)
        for t in outs:
            if value is not None:
                self._note(t, value)

    def _written(self, name: str, target: Any) -> None:
        """Note that a tensor was changed in place, and what shares its memory; arithmetic notes its result later."""
        if not isinstance(target, Tensor):
            return
        changed = Value(why=self._why(name, [f"{tuple(target.shape)}"]))
        place = target.untyped_storage().data_ptr()
        others = [t for t, _ in self.values.values() if t is not target and t.untyped_storage().data_ptr() == place]
        for t in others if name in ARITHMETIC else (target, *others):
            self._note(t, changed)

    def _result(self, name: str, args: tuple[Any, ...], given: list[Tensor], outs: list[Tensor]) -> Value:
        x, out = given[0], outs[0]
        value = self._value(x)
        if len(given) == 1 and len(outs) == 1:
            if name in SAME | WHOLE and x.shape == out.shape and _is_same(name, args, x, out):
                return value
            if name in RESHAPED | UNSIZED:
                return self._reshaped(name, x, out)
            constants = [arg for arg in args[:2] if arg is not x]
            constant = constants[0] if constants else None
            if name in ADDED | SUBTRACTED and _is_zero(constant) and args[0] is x:
                return value
            if name in SCALED or (name in DIVIDED and args[0] is x):
                return self._scaled(name, x, out, constant)
            if name in NEGATED:
                return self._step("scale", value, x, out, -1.0)
        if len(given) == 2 and name in ADDED | SUBTRACTED and given[0].shape == given[1].shape and len(args) == 2:
            other = self._value(given[1])
            if name in SUBTRACTED:
                other = self._step("scale", other, given[1], given[1], -1.0)
            return Value(value.sources + other.sources)
        return Value(why=self._why(name, [f"{tuple(t.shape)}" for t in given]))

    def _why(self, name: str, shapes: list[str]) -> str:
        reason = f"gets the result of {name.strip('_')} of {' and '.join(shapes)}, which NIR cannot express"
        if name in ("__getitem__", "unbind", "select", "split", "chunk", "__iter__"):
            return (
                f"{reason}. Is it a step of a sequence? Pass one step as the sample, and, if the forward loops over "
                "time, model_fwd, a function (module, x) that runs one step"
            )
        return f"{reason}; it has sums of outputs, Flatten, and constant factors"

    def _reshaped(self, name: str, x: Tensor, out: Tensor) -> Value:
        value = self._value(x)
        if x.shape[: self.lead] != out.shape[: self.lead]:
            return Value(why=self._why(name, [f"{tuple(x.shape)} to {tuple(out.shape)}"]))
        return value if x.shape == out.shape else self._step("flatten", value, x, out, None)

    def _scaled(self, name: str, x: Tensor, out: Tensor, constant: Any) -> Value:
        factor = constant.detach().clone() if isinstance(constant, Tensor) else constant
        if not isinstance(factor, (int, float, Tensor)) or x.shape != out.shape:
            return Value(why=self._why(name, [f"{tuple(x.shape)}"]))
        if isinstance(factor, Tensor):
            batch = factor.shape[: max(0, factor.dim() - (x.dim() - self.lead))]
            if any(size != 1 for size in batch):
                return Value(why=self._why(name, [f"{tuple(x.shape)}", "one factor per batch entry"]))
            factor = factor.reshape(factor.shape[len(batch) :])
        return self._step("scale", self._value(x), x, out, 1 / factor if name in DIVIDED else factor)

    def _step(self, operation: str, value: Value, x: Tensor, out: Tensor, factor: Any) -> Value:
        key = self._free(operation)
        shapes = tuple(x.shape), tuple(out.shape)
        label = f"a {operation} in the forward"
        self.recording.steps.append(Step(key, None, value.sources, *shapes, label, operation, factor))
        return Value((key,))

    # -- values -------------------------------------------------------------------------------------------------------

    def _known(self, t: Tensor) -> Value | None:
        held = self.values.get(id(t))
        if held is not None and held[0] is t:
            return held[1]
        kept = self.before.get(id(t)) is t
        return Value(why=f"gets a value that the forward keeps from the step before; {OWN_STATE}") if kept else None

    def _value(self, t: Tensor) -> Value:
        value = self._known(t)
        assert value is not None
        return value

    def _note(self, t: Tensor, value: Value) -> None:
        self.values[id(t)] = (t, value)

    def finish(self, outputs: Any) -> None:
        """Note the outputs of the network; states among them are left out."""
        leaves = enumerate(tree_leaves(outputs))
        known = [(leaf, t, self._known(t)) for leaf, t in leaves if isinstance(t, Tensor)]
        if not known:
            raise CannotTrace(f"the forward returned {type(outputs).__name__} without a tensor; return its spikes")
        for leaf, t, value in known:
            if value is None:
                raise CannotTrace("an output of the network does not come from its input; is it a constant?")
            if value.state:
                continue
            if value.why:
                raise CannotTrace(f"an output of the network {value.why}")
            self.recording.outputs.append((value.sources, tuple(t.shape), leaf))
        if not self.recording.outputs:
            raise CannotTrace("the network returns only states of its neurons; NIR sends spikes, so return these too")


def _writes(func: Any, name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation changes a tensor in place."""
    if name in SAME:
        return getattr(func, "__name__", "") == "__set__"  # of x.data
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__setitem__", *IN_PLACE) or isinstance(kwargs.get("out"), Tensor)


def _is_zero(constant: Any) -> bool:
    if isinstance(constant, Tensor):
        return not bool((constant != 0).any())
    return isinstance(constant, (int, float)) and constant == 0


def _is_same(name: str, args: tuple[Any, ...], x: Tensor, out: Tensor) -> bool:
    """Whether an operation returned its input: a copy, all of it by slices, or dropout that is off."""
    if name in WHOLE:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        if not all(part is Ellipsis or (isinstance(part, slice) and part.step in (None, 1)) for part in index):
            return False
    return out.is_floating_point() and torch.equal(out.to(x.dtype), x)
