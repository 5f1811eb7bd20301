"""The forward of a network, traced once, and the shapes of its values, from one step."""

import inspect
import operator
from dataclasses import dataclass
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

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class _Proxy(fx.Proxy):
    """Records y += z as it is; torch.fx records y + z, which leaves other names of y as they were.

    The length of a value is that of the batch.
    """

    def __len__(self) -> int:
        if self.node.target in (getattr, "size"):  # of a shape
            return super().__len__()
        return int(self.tracer.batch)  # type: ignore[attr-defined]

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at the layers that have a form in C, and at all others of torch.

    Args:
        batch: B.
    """

    def __init__(self, batch: int):
        super().__init__()
        self.batch = batch

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, SEES_TIME) or type(m) in PLAIN
        return known or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value of a node."""
        return _Proxy(node, self)


def traced(net: nn.Module, batch: int) -> tuple[fx.Graph, nn.Module]:
    """The graph of the forward for inputs [B, ...], and the module that it calls into."""
    what, arguments = type(net).__name__, [*inspect.signature(net.forward).parameters.values()]
    given = [a for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)]
    needed = [a.name for a in given if a.default is a.empty]
    if len(needed) > 1:
        refuse(what, f"its forward takes {', '.join(needed)}; a program has one input")
    defaults = {a.name: a.default for a in given[1:]}
    tracer = _Tracer(batch)
    try:
        with torch.no_grad():
            graph = tracer.trace(net, concrete_args=defaults)
    except Exception as error:  # whatever a forward does with a value that it does not have
        refuse(what, f"the path through its forward depends on data ({error}); use layers and torch functions alone")
    return graph, fx.GraphModule(tracer.root, graph)


@dataclass(frozen=True)
class Shapes:
    """What a step with the example shows.

    Args:
        shapes: of every tensor, [B, ...].
        numbers: values that are no tensors, such as sizes.
    """

    shapes: dict[fx.Node, tuple[int, ...]]
    numbers: dict[fx.Node, Any]


class _Recording(nn.Module):
    """Runs a graph and keeps the shape of every tensor, and all other values."""

    def __init__(self, root: nn.Module, graph: fx.Graph):
        super().__init__()
        self.root, self.found = root, Shapes({}, {})
        self.interpreter = _Interpreter(root, self.found)

    def forward(self, x: Tensor) -> Tensor:
        self.interpreter.run(x)
        return x


class _Interpreter(fx.Interpreter):
    def __init__(self, root: Any, found: Shapes):
        super().__init__(root)
        self.found = found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found.shapes[n] = tuple(value.shape)
        elif isinstance(value, (int, float, torch.Size, torch.device, torch.dtype)):
            self.found.numbers[n] = value
        return value


def shapes_of(root: nn.Module, graph: fx.Graph, x: Tensor, steps: int | None) -> Shapes:
    """What one step shows."""
    _check_calls(root, graph)
    recording = _Recording(root, graph)
    with torch.no_grad(), backend("loop"):
        try:
            unroll(recording, x if steps is not None else x[:1], steps=None if steps is None else 1, check=False)
        except NotImplementedError:
            raise
        except RuntimeError as error:  # of torch, for shapes and dtypes that do not fit
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"the network does not run on x of shape {tuple(x.shape)} and {x.dtype} ({reason}); pass an example "
                "with the features and the dtype of its weights; a network in half precision as net.float()"
            ) from error
    return recording.found


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
