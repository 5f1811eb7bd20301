"""Read a network: its layers in their order, from its traced forward."""

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx, nn

from ... import ops
from ...layers import SEES_TIME
from ...neurons import SpikingNeuron
from ...neurons._sequence import WholeSequence
from .errors import label, refuse
from .functions import functional_module
from .identifiers import RESERVED, Names, identifier
from .layers import Array, Layer, Network, Neuron
from .modules import module_layers
from .neurons import FUNCTIONS, function_layer, neuron_layers, returns_one
from .tracing import IN_PLACE, shapes_of, traced

SAME_MEMORY = (
    "flatten",
    "view",
    "reshape",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "detach",
    "clone",
    "float",
)
"""Functions and methods of torch that leave the values of a sample in their order."""

SHAPED = ("dim", "start_dim", "end_dim", "shape", "size", "sizes", "memory_format")
"""Their arguments, which the shapes of one step show."""

NO_DATA = ("size", "dim", "numel", "getattr", "shape")
"""Those whose result is a number or a shape."""


def captured(
    net: nn.Module, x: Tensor, steps: int | None, prefix: str, taken: frozenset[str]
) -> tuple[Network, nn.Module]:
    """The network as layers, and a copy of it that runs as the layers do: in eval mode, from its initial states.

    Args:
        net: the network, which is not changed.
        x: an input, [T, B, ...], or [B, ...] with `steps`.
        prefix: of the names of functions and tables.
        taken: names that layers cannot have.
    """
    own = copy.deepcopy(net).eval().cpu()
    if isinstance(own, SEES_TIME) or not list(own.children()):
        own = nn.Sequential(own)
    restart(own)
    graph, root = traced(own)
    shapes = shapes_of(root, graph, x, steps)
    restart(own)
    reader = _Reader(graph, own, shapes, type(net).__name__, x)
    reader.names.taken |= taken
    return reader.network(prefix), own


def restart(net: nn.Module) -> None:
    """Set the states of all layers to their initial values."""
    for module in net.modules():
        if isinstance(module, SEES_TIME):
            module.reset_mem()


class _Reader:
    """Turns a graph into layers."""

    def __init__(self, graph: fx.Graph, net: nn.Module, shapes: dict[fx.Node, tuple[int, ...]], title: str, x: Tensor):
        self.graph, self.net, self.shapes, self.title, self.dtype = graph, net, shapes, title, x.dtype
        self.layers, self.lost = list[Layer](), list[str]()
        self.values: dict[fx.Node, Any] = {}
        self.names = Names(RESERVED, roots=True)

    def network(self, prefix: str) -> Network:
        """All layers; those that the output does not depend on are left out if they have no states."""
        first, *_ = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.values[first] = x = Array("x", self._shape(first))
        for node in self.graph.nodes:
            if node.op == "call_module":
                self.values[node] = self._module(node)
            elif node.op in ("call_function", "call_method"):
                self.values[node] = self._function(node)
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(str(node.target))(self.net)
        y = self._output()
        if not self.layers:
            refuse(self.title, "it has no layer that computes anything")
        for layer in self.layers:
            layer.name = f"{prefix}_{layer.name}"
        lost = [*self.lost, *(line for layer in self.layers for line in getattr(layer, "lost", ()))]
        return Network(self.title, prefix, x, self.layers, y, self.dtype, tuple(lost))

    def _output(self) -> Array:
        (node,) = [node for node in self.graph.nodes if node.op == "output"]
        flat: list[Any] = []
        fx.node.map_arg(node.args, lambda arg: flat.append(self.values.get(arg)))
        leaves = [*_leaves(flat)]
        if not leaves or not isinstance(leaves[0], Array):
            refuse(self.title, "its forward does not return the output of a layer")
        states = {state.name for layer in self.layers for state in getattr(layer, "states", {}).values()}
        more = [leaf.name for leaf in leaves[1:] if isinstance(leaf, Array) and leaf.name not in states]
        if more:
            self.lost.append(f"further outputs of its forward, which are arrays of the struct: {', '.join(more)}")
        return leaves[0]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        batch = next(iter(self.shapes.values()))[0]
        shape = self.shapes[node]
        if not shape or shape[0] != batch:
            refuse(self.title, f"{str(node.target)!r} returns {shape}, which does not start with the batch, {batch}")
        return shape[1:]

    def _array(self, value: Any) -> Array:
        found = self.values.get(value) if isinstance(value, fx.Node) else None
        if isinstance(found, tuple) and len(found) == 1:
            found = found[0]
        if not isinstance(found, Array):
            refuse(self.title, f"{value} is not the output of a layer of the network")
        return found

    def _name(self, wish: str, kind: str) -> str:
        simple = identifier(wish.replace(".", "_"))
        return self.names.new(
            *([] if simple.startswith("_") else [simple]), identifier(f"{kind}_{wish}".replace(".", "_"))
        )

    def _module(self, node: fx.Node) -> Any:
        path = str(node.target)
        module = self.net.get_submodule(path)
        if module._forward_hooks or module._forward_pre_hooks:
            self._check_hooks(path, module)
        value = node.args[0] if node.args else next(iter(node.kwargs.values()))
        x, name = self._array(value), ""
        if getattr(module, "inplace", False) and "Dropout" not in type(module).__name__:
            self._check_changed(node, value, label(path, module))
        if isinstance(module, nn.Identity) or "Dropout" in type(module).__name__:
            if not isinstance(module, nn.Identity):
                self.lost.append(f"{label(path, module)}: it does nothing outside of training")
            return x
        if isinstance(module, (nn.Flatten, nn.Unflatten)):
            return Array(x.name, self._shape(node))
        name = self._name(path, type(module).__name__.lower())
        if isinstance(module, SpikingNeuron):
            layers, outs = neuron_layers(path, name, module, x, self.dtype)
            for layer in layers:
                if isinstance(layer, Neuron) and not isinstance(module, WholeSequence):
                    layer.module = module
            self.layers += layers
            return outs[0] if returns_one(module) else outs
        if node not in self.shapes:
            refuse(label(path, module), "it returns several values")
        return self._layers_of(node, path, name, module, x, self._shape(node))

    def _layers_of(
        self, node: fx.Node, path: str, name: str, module: nn.Module, x: Array, shape: tuple[int, ...]
    ) -> Array:
        """The output of the layers of a module, or of a function that computes the same."""
        producer = next((layer for layer in self.layers if layer.y == x), None)
        users = [user for n in self.graph.nodes if self.values.get(n) == x for user in n.users]
        alone = producer is not None and len(users) == 1
        layer, lost = module_layers(path, name, module, x, shape, self.dtype, producer if alone else None)
        self.lost += lost
        if layer is None:  # folded into the one before
            return x
        self.layers.append(layer)
        return layer.y

    def _by_module(self, node: fx.Node, name: str, module: nn.Module) -> Array:
        """A call of a function that computes what a module does."""
        x, shape = self._array(node.args[0] if node.args else node.kwargs["input"]), self._shape(node)
        whole = (shape[0], *[1] * (len(x.shape) - 1)) if name == "mean" else shape
        y = self._layers_of(node, "", self._name(node.name, name), module, x, whole)
        return Array(y.name, shape)

    def _check_hooks(self, path: str, module: nn.Module) -> None:
        from ...neurons._unrolled_run import Listener

        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        theirs = [hook for hook in hooks if not isinstance(hook, Listener)]
        if theirs:
            refuse(label(path, module), f"it has a forward hook, {theirs[0]!r}, which runs in Python; remove it")

    def _function(self, node: fx.Node) -> Any:
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
        name = name.strip("_").removeprefix("i") if target in IN_PLACE else name.rstrip("_")
        if target is operator.getitem:
            found = self.values.get(node.args[0])  # type: ignore[arg-type]
            if found is None:  # of a shape
                return None
            if not isinstance(found, tuple) or not isinstance(node.args[1], int):
                refuse(self.title, "its forward takes a part of an array by an index")
            return found[node.args[1]]
        if name in NO_DATA:
            return None
        module = functional_module(name, node.args, node.kwargs, self.values, self.title)
        if module is not None:
            return self._by_module(node, name, module)
        args = self._arguments(node, name)
        if name in SAME_MEMORY or name == "dropout":
            return Array(self._array(args[0]).name, self._shape(node))
        changes = getattr(target, "__name__", str(target))
        if (
            changes.endswith("_")
            or target in IN_PLACE
            or node.kwargs.get("inplace")
            or any(arg is True for arg in args[1:])
        ):
            self._check_changed(node, args[0], name)
        return self._computed(node, name, args)

    def _arguments(self, node: fx.Node, name: str) -> tuple[Any, ...]:
        """All arguments that matter, in order."""
        named = dict(node.kwargs)
        args = [*node.args, *(named.pop(key) for key in ("input", "tensors", "other") if key in named)]
        if name == "dropout":
            training = named.pop("training", named.pop("train", args[2] if len(args) > 2 else True))
            if training is not False:
                refuse(self.title, "its forward calls dropout with training=True; pass training=self.training")
            return tuple(args[:1])
        plain = SHAPED if name in SAME_MEMORY else ("dim", "inplace") if name in ("cat", "concat") else ("inplace",)
        more = [key for key, value in named.items() if key not in plain and value is not None]
        if more:
            refuse(self.title, f"its forward calls {name} with {', '.join(f'{k}={named[k]}' for k in more)}")
        return tuple(args)

    def _check_changed(self, node: fx.Node, value: Any, what: str) -> None:
        """Refuse to change an array in place that is read later, or stays to the next step."""
        array, order = self._array(value), [*self.graph.nodes]
        later = set(order[order.index(node) + 1 :])
        same = [n for n, found in self.values.items() if isinstance(found, Array) and found.name == array.name]
        states = {state.name for layer in self.layers for state in getattr(layer, "states", {}).values()}
        if array.name == "x" or array.name in states or any(user in later for n in same for user in n.users):
            refuse(
                self.title, f"its forward changes {value} in place ({what}), which is read again; compute a new tensor"
            )

    def _computed(self, node: fx.Node, name: str, args: tuple[Any, ...]) -> Any:
        own = self._name(node.name, name)
        if name in ("cat", "concat"):
            return self._joined(node, own, args)
        function: Callable[[Any], Any] | None = FUNCTIONS.get(name)
        constants = [arg for arg in args if isinstance(arg, (int, float)) and not isinstance(arg, bool)]
        if function is None and not (name == "truediv" and len(constants) == 1) and not (name == "clamp" and constants):
            refuse(self.title, f"its forward calls {name}, which has no form in C")
        if constants:
            function = _with_number(name, args)
        xs = tuple(self._array(arg) for arg in args if isinstance(arg, fx.Node))
        shape = self._shape(node)
        if any(x.shape != shape for x in xs):
            refuse(self.title, f"its forward calls {name} on arrays of shapes {', '.join(str(x.shape) for x in xs)}")
        self.layers.append(function_layer(own, name, function or FUNCTIONS[name], xs, self.dtype))
        return self.layers[-1].y

    def _joined(self, node: fx.Node, own: str, args: tuple[Any, ...]) -> Array:
        from .layers import Join

        parts, *rest = args
        dim = rest[0] if rest else node.kwargs.get("dim", 0)
        xs = tuple(self._array(part) for part in parts)
        axis = int(dim) % (len(xs[0].shape) + 1)  # type: ignore[arg-type]
        if axis == 0:
            refuse(self.title, "its forward concatenates samples of the batch")
        self.layers.append(Join(own, f"cat, dim={axis}", xs, Array(own, self._shape(node)), axis - 1))
        return self.layers[-1].y


def _leaves(value: Any) -> Iterator[Any]:
    """The values in nested lists and tuples."""
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _leaves(item) if isinstance(item, (list, tuple)) else (item,)


def _with_number(name: str, args: Any) -> Callable[[Any], Any]:
    """A function of an array and a number."""
    if name == "clamp":
        if len(args) != 3 or None in args:
            refuse(name, "pass its lower and its upper bound")
        return lambda x: ops.clamp(x, float(args[1]), float(args[2]))
    left, right = args[:2]
    calls: dict[str, Callable[[Any, Any], Any]] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "truediv": operator.truediv,
    }
    if name not in calls:
        refuse(name, "it takes a number")
    if isinstance(left, (int, float)):
        return lambda x: calls[name](float(left), x)
    return lambda x: calls[name](x, float(right))
