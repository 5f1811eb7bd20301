"""Read a network: its layers in their order, from its traced forward."""

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...layers import SEES_TIME
from ...neurons import SpikingNeuron
from ...neurons._sequence import WholeSequence
from .elementwise import elementwise_call, elementwise_layer
from .errors import label, refuse
from .functions import REDUCED, functional_module
from .identifiers import RESERVED, Names, identifier
from .layers import Array, Join, Layer, Network, Neuron
from .modules import module_layers
from .moves import MOVES, check_move, function_of, moved, pick
from .neurons import neuron_layers, returns_one
from .tracing import IN_PLACE, Shapes, shapes_of, traced

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
    "view_as",
    "reshape_as",
    "float",
    "double",
    "to",
    "type_as",
)
"""Functions and methods of torch that leave the values of a sample in their order."""


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
    graph, root = traced(own, len(x) if steps is not None else x.shape[1])
    seen = shapes_of(root, graph, x, steps)
    restart(own)
    reader = _Reader(graph, own, seen, type(net).__name__, x)
    reader.names.taken |= taken
    return reader.network(prefix), own


def restart(net: nn.Module) -> None:
    """Set the states of all layers to their initial values."""
    for module in net.modules():
        if isinstance(module, SEES_TIME):
            module.reset_mem()


class _Reader:
    """Turns a graph into layers."""

    def __init__(self, graph: fx.Graph, net: nn.Module, seen: Shapes, title: str, x: Tensor):
        self.graph, self.net, self.title, self.dtype = graph, net, title, x.dtype
        self.shapes, self.numbers = seen.shapes, seen.numbers
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
        with_kind = [] if wish == kind else [identifier(f"{kind}_{wish}".replace(".", "_"))]
        return self.names.new(*([] if simple.startswith("_") else [simple]), *with_kind)

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
        whole = (shape[0], *[1] * (len(x.shape) - 1)) if name in REDUCED else shape
        y = self._layers_of(node, "", self._name(node.name, name), module, x, whole)
        return Array(y.name, shape)

    def _check_hooks(self, path: str, module: nn.Module) -> None:
        from ...neurons._unrolled_run import RunHook

        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        theirs = [hook for hook in hooks if not isinstance(hook, RunHook)]
        if theirs:
            refuse(label(path, module), f"it has a forward hook, {theirs[0]!r}, which runs in Python; remove it")

    def _function(self, node: fx.Node) -> Any:
        """The value of a call: an array, a tuple of arrays, or a constant tensor."""
        if node in self.numbers:
            return None
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
        name = name.strip("_").removeprefix("i") if target in IN_PLACE else name.rstrip("_")
        if target is getattr:
            name = str(node.args[1])
        constant = self._constant(node)
        if constant is not None:
            return constant
        if target is operator.getitem:
            source, index = node.args
            found = self.values.get(source) if isinstance(source, fx.Node) else None
            if isinstance(found, tuple) and isinstance(index, (int, slice)):
                return found[index]
        module = functional_module(name, *self._given(node), self.title)
        if module is not None:
            return self._by_module(node, name, module)
        if name in SAME_MEMORY or name == "dropout":
            return self._same(node, name)
        if name in MOVES:
            return self._moved(node, name)
        if name in ("cat", "concat", "concatenate", "stack"):
            return self._joined(node, name)
        return self._elementwise(node, name)

    def _given(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call: arrays, constant tensors, and numbers."""

        def value(arg: fx.Node) -> Any:
            if arg in self.numbers:
                return self.numbers[arg]
            found = self.values.get(arg)
            return found if isinstance(found, (Tensor, tuple)) and not _single(found) else self._array(arg)

        args: Any = fx.node.map_arg(node.args, value)
        kwargs: Any = fx.node.map_arg(node.kwargs, value)
        return tuple(args), dict(kwargs)

    def _constant(self, node: fx.Node) -> Tensor | None:
        """The result of a call on constant tensors alone, such as a transposed weight."""
        if not node.all_input_nodes or not all(
            isinstance(self.values.get(arg), Tensor) or arg in self.numbers for arg in node.all_input_nodes
        ):
            return None
        args, kwargs = self._given(node)
        target: Any = node.target
        out = getattr(args[0], target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
        return out if isinstance(out, Tensor) else None

    def _same(self, node: fx.Node, name: str) -> Array:
        """A call that leaves the values of a sample in their order."""
        args, kwargs = self._given(node)
        if name == "dropout":
            training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
            if training is not False:
                refuse(self.title, "its forward calls dropout with training=True; pass training=self.training")
        kinds = [v for v in (*args[1:], *kwargs.values()) if isinstance(v, torch.dtype) and not v.is_floating_point]
        if kinds:
            refuse(self.title, f"its forward converts an array to {kinds[0]}")
        x = args[0] if args else kwargs["input"]
        return Array(x.name, self._shape(node))

    def _moved(self, node: fx.Node, name: str) -> Any:
        args, kwargs = self._given(node)
        x, *rest = args or (kwargs.pop("input"),)
        what = f"{self.title}: its forward"
        if not isinstance(x, Array) or any(isinstance(arg, Array) for arg in (*rest, *kwargs.values())):
            refuse(self.title, f"its forward calls {name} with places that are computed")
        check_move(what, name, rest, kwargs)
        batch = next(iter(self.shapes.values()))[0]
        places = moved(what, name, function_of(node.target, name, tuple(rest), kwargs), x, batch)
        several = places if isinstance(places, tuple) else (places,)
        found = tuple(self._picked(node, name, x, each) for each in several)
        return found if isinstance(places, tuple) else found[0]

    def _picked(self, node: fx.Node, name: str, x: Array, places: Tensor) -> Array:
        """The array with the values of these places of x."""
        if torch.equal(places.flatten(), torch.arange(x.size)):
            return Array(x.name, tuple(places.shape))
        wish, name = node.name.replace("getitem", "part"), name.replace("getitem", "part")
        self.layers.append(pick(self._name(wish, name), f"{name} of {x.name}", x, places))
        return self.layers[-1].y

    def _elementwise(self, node: fx.Node, name: str) -> Array:
        call = elementwise_call(name, *self._given(node), self.title)
        if call is None:
            refuse(self.title, f"its forward calls {name}, which has no form in C")
        if node not in self.shapes:
            refuse(self.title, f"its forward calls {name}, which returns several values")
        changed = str(getattr(node.target, "__name__", node.target)).endswith("_") or node.target in IN_PLACE
        if changed or node.kwargs.get("inplace") or any(arg is True for arg in node.args[1:]):
            self._check_changed(node, next(iter(node.all_input_nodes)), name)
        shape = self._shape(node)
        xs = tuple(self._expanded(node, x, shape) for x in call.arrays)
        self.layers.append(elementwise_layer(self._name(node.name, name), name, call, xs, shape, self.dtype))
        return self.layers[-1].y

    def _expanded(self, node: fx.Node, x: Array, shape: tuple[int, ...]) -> Array:
        """An array in the shape to which torch broadcasts it."""
        if x.shape == shape:
            return x
        if len(x.shape) != len(shape):
            refuse(self.title, f"its forward calls {node.name} on arrays of shapes {x.shape} and {shape}")
        return self._picked(node, "broadcast", x, torch.arange(x.size).view(x.shape).expand(shape))

    def _joined(self, node: fx.Node, name: str) -> Array:
        args, kwargs = self._given(node)
        parts, *rest = args or (kwargs["tensors"],)
        dim, stacked = rest[0] if rest else kwargs.get("dim", kwargs.get("axis", 0)), name == "stack"
        own = self._name(node.name, name)
        if not all(isinstance(part, Array) for part in parts):
            refuse(self.title, f"its forward calls {name} with a constant")
        axis = int(dim) % (len(parts[0].shape) + 1 + stacked)
        if axis == 0:
            refuse(self.title, "its forward concatenates samples of the batch")
        if stacked:
            parts = [Array(x.name, (*x.shape[: axis - 1], 1, *x.shape[axis - 1 :])) for x in parts]
        self.layers.append(Join(own, f"{name}, dim={axis}", tuple(parts), Array(own, self._shape(node)), axis - 1))
        return self.layers[-1].y

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


def _leaves(value: Any) -> Iterator[Any]:
    """The values in nested lists and tuples."""
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _leaves(item) if isinstance(item, (list, tuple)) else (item,)


def _single(found: Any) -> bool:
    """Whether a value is the tuple of one array, which a layer with one output returns."""
    return isinstance(found, tuple) and len(found) == 1
