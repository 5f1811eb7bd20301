"""Read a network: the order of its layers from its forward, which is traced once, and their shapes from one step."""

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...accelerated import PLAIN
from ...engine.run import backend
from ...layers import SEES_TIME
from ...network import unroll
from ...neurons import SpikingNeuron
from ...neurons._unrolled_run import REWRITE
from .errors import label, refuse
from .identifiers import RESERVED, Names, identifier
from .layers import Array, Layer, Network
from .modules import module_layers
from .neurons import FUNCTIONS, function_layer, neuron_layers, returns_one

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
    net: nn.Module, x: Tensor, steps: int | None, taken: frozenset[str] = frozenset()
) -> tuple[Network, nn.Module]:
    """The network as layers, and a copy of it that runs as the layers do: in eval mode, from its initial states.

    Args:
        net: the network, which is not changed.
        x: an input, [T, B, ...], or [B, ...] with `steps`.
        taken: names that layers cannot have.
    """
    own = copy.deepcopy(net).eval().cpu()
    if isinstance(own, SpikingNeuron) or not list(own.children()):
        own = nn.Sequential(own)
    restart(own)
    graph, root = _traced(own)
    shapes = _shapes(root, graph, x, steps)
    restart(own)
    reader = _Reader(graph, own, shapes, type(net).__name__, x)
    reader.names.taken |= taken
    return reader.network(), own


def restart(net: nn.Module) -> None:
    """Set the states of all layers to their initial values."""
    for module in net.modules():
        if isinstance(module, SEES_TIME):
            module.reset_mem()


IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class _Proxy(fx.Proxy):
    """Records y += z as it is; torch.fx records y + z, which leaves other names of y as they were."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at the layers that have a form in C, and at all others of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, SEES_TIME) or type(m) in PLAIN
        return known or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value of a node."""
        return _Proxy(node, self)


def _traced(net: nn.Module) -> tuple[fx.Graph, nn.Module]:
    what, arguments = type(net).__name__, [*inspect.signature(net.forward).parameters.values()]
    given = [a for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)]
    needed = [a.name for a in given if a.default is a.empty]
    if len(needed) > 1:
        refuse(what, f"its forward takes {', '.join(needed)}; a program has one input")
    defaults = {a.name: a.default for a in given[1:]}
    tracer = _Tracer()
    try:
        with torch.no_grad():
            graph = tracer.trace(net, concrete_args=defaults)
    except Exception as error:  # whatever a forward does with a value that it does not have
        refuse(what, f"the path through its forward depends on data ({error}); use layers and torch functions alone")
    return graph, fx.GraphModule(tracer.root, graph)


class _Recording(nn.Module):
    """Runs a graph and keeps the shape of every value."""

    def __init__(self, root: nn.Module, graph: fx.Graph):
        super().__init__()
        self.root, self.shapes = root, dict[fx.Node, tuple[int, ...]]()
        self.interpreter = _Interpreter(root, self.shapes)

    def forward(self, x: Tensor) -> Tensor:
        self.interpreter.run(x)
        return x


class _Interpreter(fx.Interpreter):
    def __init__(self, root: Any, shapes: dict[fx.Node, tuple[int, ...]]):
        super().__init__(root)
        self.shapes = shapes

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape)
        return value


def _shapes(root: nn.Module, graph: fx.Graph, x: Tensor, steps: int | None) -> dict[fx.Node, tuple[int, ...]]:
    """The shape of every value in one step, [B, ...]."""
    _check_calls(root, graph)
    recording = _Recording(root, graph)
    with torch.no_grad(), backend("loop"):
        try:
            unroll(recording, x if steps is not None else x[:1], steps=None if steps is None else 1, check=False)
        except NotImplementedError:
            raise
        except RuntimeError as error:  # of torch, for shapes and dtypes that do not fit
            raise ValueError(
                f"the network does not run on x of shape {tuple(x.shape)} and {x.dtype} ({error}); pass an example "
                "with the features and the dtype of its weights"
            ) from error
    return recording.shapes


def _check_calls(root: nn.Module, graph: fx.Graph) -> None:
    """Refuse loops over time and states that the forward carries, with the way out."""
    seen = set[str]()
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        module = root.get_submodule(node.target)
        if not isinstance(module, SEES_TIME):
            continue
        if node.target in seen:
            refuse(label(node.target, module), f"it is called twice in one forward, as in a loop over time. {REWRITE}")
        seen.add(node.target)
        if isinstance(module, SpikingNeuron) and len(node.args) + len(node.kwargs) > 1:
            refuse(label(node.target, module), f"the forward passes its states by hand. {REWRITE}")


class _Reader:
    """Turns a graph into layers."""

    def __init__(self, graph: fx.Graph, net: nn.Module, shapes: dict[fx.Node, tuple[int, ...]], title: str, x: Tensor):
        self.graph, self.net, self.shapes, self.title, self.dtype = graph, net, shapes, title, x.dtype
        self.layers, self.lost = list[Layer](), list[str]()
        self.values: dict[fx.Node, Any] = {}
        self.names = Names(RESERVED, roots=True)

    def network(self) -> Network:
        """All layers; those that the output does not depend on are left out if they have no states."""
        first, *_ = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.values[first] = x = Array("x", self._shape(first))
        for node in self.graph.nodes:
            if node.op == "call_module":
                self.values[node] = self._module(node)
            elif node.op in ("call_function", "call_method"):
                self.values[node] = self._function(node)
            elif node.op == "get_attr":
                self.values[node] = None
        y = self._output()
        if not self.layers:
            refuse(self.title, "it has no layer that computes anything")
        lost = [*self.lost, *(line for layer in self.layers for line in getattr(layer, "lost", ()))]
        return Network(self.title, x, self.layers, y, self.dtype, tuple(lost))

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
            self.layers += layers
            return outs[0] if returns_one(module) else outs
        producer = next((layer for layer in self.layers if layer.y == x), None)
        if node not in self.shapes:
            refuse(label(path, module), "it returns several values")
        users = [user for n in self.graph.nodes if self.values.get(n) == x for user in n.users]
        alone = producer is not None and len(users) == 1
        layer, lost = module_layers(path, name, module, x, self._shape(node), self.dtype, producer if alone else None)
        self.lost += lost
        if layer is None:  # folded into the one before
            return x
        self.layers.append(layer)
        return layer.y

    def _check_hooks(self, path: str, module: nn.Module) -> None:
        from ...neurons._unrolled_run import RunHook

        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        theirs = [hook for hook in hooks if not isinstance(hook, RunHook)]
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
        args = self._arguments(node, name)
        if name in SAME_MEMORY or name == "dropout":
            return Array(self._array(args[0]).name, self._shape(node))
        changes = getattr(target, "__name__", str(target))
        if changes.endswith("_") or target in IN_PLACE or node.kwargs.get("inplace") or True in args[1:]:
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
        if function is None and not (name == "truediv" and len(constants) == 1):
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
