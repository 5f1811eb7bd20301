"""Record one step of a network: which layer gets the outputs of which others.

The network runs once on the sample. Hooks see the layers; a `TorchFunctionMode` sees what the forwards do between
them. Sums of outputs become edges, reshapes become Flatten, constant factors become Scale. Another operation is refused
if its result reaches a layer or an output, with its name.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import FunctionMode, tree_leaves
from ...layers import SEES_TIME
from ...neurons import SpikingNeuron
from ._layers import is_known
from ._network import Cycle
from ._recording import CannotTrace, Recording, Step, Value

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


def record(net: nn.Module, samples: Sequence[Any], run: Callable[..., Any], lead: int) -> Recording:
    """The recording of one step; one of zeros must be the same, or the forward stores something or depends on values.

    Args:
        net: the network; its states and mode are those of a copy, which the run may change.
        samples: the inputs of one step.
        run: called with the network and the samples.
        lead: the number of dimensions of the batch.
    """
    samples = tuple(sample.clone() for sample in samples)  # which the forward may change
    first, second = Tracer(net, lead), Tracer(net, lead)
    again = [torch.zeros_like(sample) for sample in samples]
    _trace(first, net, samples, run)
    second.before = {key: t for key, (t, _) in first.values.items() if not any(t is sample for sample in samples)}
    _trace(second, net, again, run)
    if first.recording.links() != second.recording.links():
        raise CannotTrace(
            "the forward runs other layers at a second step, of zeros, than at the first. NIR has no conditions on "
            f"values; {OWN_STATE}"
        )
    for step, later in zip(first.recording.steps, second.recording.steps, strict=True):
        if step.factor is not None and not torch.equal(step.factor, later.factor):
            raise CannotTrace(
                f"{step.label} has another factor at a second step, of zeros, than at the first. NIR has constant "
                f"factors; {OWN_STATE}"
            )
    return first.recording


OWN_STATE = "states live in neurons and layers with delays, and spikes come back through RLeaky or RSynaptic"


def _trace(tracer: "Tracer", net: nn.Module, samples: Sequence[Any], run: Callable[..., Any]) -> None:
    for i, sample in enumerate(samples):
        name = "input" if len(samples) == 1 else f"input_{i}"
        tracer.values[id(sample)] = (sample, Value((name,)))
        tracer.recording.inputs.append((name, tuple(sample.shape)))
    handles = [handle for layer in tracer.names if _is_leaf(layer) for handle in tracer.watch(layer)]
    handles += [c.register_forward_pre_hook(tracer.enter_cycle) for c in tracer.names if isinstance(c, Cycle)]
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
        return not isinstance(layer, Cycle)
    return type(layer).__module__.startswith("torch.nn.") and not any(True for _ in layer.children())


class Tracer(FunctionMode):
    """Follows the tensors of one run."""

    def __init__(self, net: nn.Module, lead: int):
        super().__init__()
        self.names = {module: name for name, module in net.named_modules()}
        self.lead, self.recording = lead, Recording()
        self.values: dict[int, tuple[Any, Value]] = {}  # the tensors are held, so that no id is used twice
        self.before: dict[int, Any] = {}  # the tensors of an earlier step
        self.late, self.later = set[nn.Module](), dict[str, str]()  # delays in cycles; keys by what stood for them
        self.within, self.calls = 0, Counter[nn.Module]()
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
            raise CannotTrace(f"{label} got {type(given).__name__} as its input, not a tensor")
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
        self.later[f"later {id(layer)}"] = key
        self.recording.steps.append(Step(key, layer, value.sources, *shapes, label, late=int(layer in self.late)))
        for other in tree_leaves(out):
            if isinstance(other, Tensor):
                self._note(other, Value(why=f"reads a state of {label}; NIR sends only its spikes", state=True))
        self._note(first, Value((key,)))

    def enter_cycle(self, cycle: Cycle, args: tuple[Mapping[str, Tensor]]) -> None:
        """Note what an imported cycle gets of the step before: outputs of layers that run later, or from outside."""
        layers = {link.name: cycle.get_submodule(link.child) for link in cycle._links}
        self.names |= {layer: name for name, layer in layers.items()}
        self.late |= {layers[link.name] for link in cycle._links if not link.sources}
        like = next(iter(args[0].values()))
        for name, shape in cycle._shapes.items():
            cycle._past[name] = like.new_zeros(len(like), *shape)
            outside = None if name in layers else self._value(args[0][name])
            self._note(cycle._past[name], outside or Value((f"later {id(layers[name])}",)))

    def label(self, layer: nn.Module) -> str:
        name = self.names.get(layer, "")
        return f"{name!r} ({type(layer).__name__})" if name else type(layer).__name__

    def _key(self, layer: nn.Module) -> str:
        name = self.names.get(layer) or type(layer).__name__.lower()
        return self._free(name.replace("/", "_"))  # at which files split names

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
        if self.within:
            return out
        x, *sizes = args or (kwargs.get("input"),)
        if func is nn.functional.avg_pool2d and self._known(x) is not None:
            options = {name: value for name, value in kwargs.items() if name != "input"}
            self._called(nn.AvgPool2d(*sizes, **options), (x,), out)
        else:
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
            if len(other.sources) > 1:  # a + (b + c) is (b + c) + a, and not (a + b) + c, which is rounded otherwise
                value, other = other, value
            if len(other.sources) > 1:
                other = self._step("sum", other, x, x, None)
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
        return self._step("divide" if name in DIVIDED else "scale", self._value(x), x, out, factor)

    def _step(self, operation: str, value: Value, x: Tensor, out: Tensor, factor: Any) -> Value:
        key = self._free(operation)
        shapes = tuple(x.shape), tuple(out.shape)
        factor = factor if factor is None else torch.as_tensor(factor, dtype=x.dtype)
        label = f"a {operation} in the forward"
        self.recording.steps.append(Step(key, None, value.sources, *shapes, label, operation, factor))
        return Value((key,))

    # -- values -------------------------------------------------------------------------------------------------------

    def _known(self, t: Tensor) -> Value | None:
        held = self.values.get(id(t))
        if held is not None and held[0] is t:
            return held[1]
        kept = self.before.get(id(t)) is t
        return Value(why=f"gets a value that the forward stores from the step before; {OWN_STATE}") if kept else None

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
        for step in self.recording.steps:
            step.sources = tuple(self.later.get(key, key) for key in step.sources)


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
