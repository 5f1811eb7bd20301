"""Every private name of torch that the package uses, so that a release of torch that changes one breaks one file.

The names are bound here once, with a type, and tests/test_torch_names.py checks what each answers. What `nn.Module`
offers its subclasses under private names (`_parameters`, `_forward_hooks`, `_apply`, ...) is used where it is needed;
tests/test_house.py lists those names.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec as TreeSpec
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_flatten_with_path as tree_flatten_with_path
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils._pytree import tree_unflatten as tree_unflatten

Function = TypeVar("Function", bound=Callable[..., Any])

_c: Any = torch._C
_autograd: Any = torch._C._autograd
_functorch: Any = torch._C._functorch

# -- torch.func and forward-mode differentiation ----------------------------------------------------------------------

transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a transform of torch.func (vmap, grad, jvp, ...) runs now."""

is_wrapped: Callable[[Tensor], bool] = _functorch.is_functorch_wrapped_tensor
"""Whether a tensor is the wrapper of a transform of torch.func, one that is over included."""

is_batched: Callable[[Tensor], bool] = _functorch.is_batchedtensor
"""Whether a tensor is the wrapper of torch.func.vmap."""

is_batch_of_gradients: Callable[[Tensor], bool] = _functorch.is_legacy_batchedtensor
"""Whether a tensor is a gradient of a backward with `is_grads_batched=True`."""

unwrapped_if_dead: Callable[[Tensor], Tensor] = _functorch.unwrap_if_dead
"""The tensor inside the wrapper of a torch.func.grad that is over; any other tensor itself."""


def of_running_vmap(tensor: Tensor) -> bool:
    """Whether the wrapper of a torch.func.vmap is of one that runs now, as far as its level and size show."""
    for one in _functorch.get_interpreter_stack() or ():
        if one.key() == _functorch.TransformType.Vmap and one.level() == _functorch.maybe_get_level(tensor):
            size = _functorch.get_unwrapped(tensor).shape[_functorch.maybe_get_bdim(tensor)]
            return bool(size == _functorch.CVmapInterpreterPtr(one).batchSize())
    return False


def tangents_pass() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether torch must see each operation that runs now: a transform of torch.func is active, or tangents pass."""
    return transforms_active() or tangents_pass()


# -- autograd ---------------------------------------------------------------------------------------------------------

graph_task: Callable[[], int] = torch._C._current_graph_task_id
"""The number of the backward that runs in this thread; -1 outside of a backward."""

saved_hooks_allowed: Callable[[], bool] = _autograd._saved_tensors_hooks_is_enabled
"""Whether hooks on saved tensors may be set: not within `torch.autograd.graph.disable_saved_tensors_hooks`."""

saved_hooks: Callable[[], tuple[Callable[..., Any], Callable[..., Any]] | None] = partial(
    _autograd._top_saved_tensors_default_hooks, False
)
"""The innermost pair of hooks on saved tensors, or None."""

pop_saved_hooks: Callable[[], None] = _autograd._pop_saved_tensors_default_hooks
"""Take the innermost pair of hooks on saved tensors away."""

is_view: Callable[[Tensor], bool] = Tensor._is_view
"""Whether autograd treats a tensor as a view of another."""

# -- modules ----------------------------------------------------------------------------------------------------------

IS_REPLICA = "_is_replica"
"""The attribute that marks a module as a replica made by nn.DataParallel."""

BatchNorm: type[nn.Module] = _BatchNorm
"""The base of torch's BatchNorm layers."""


def hooks_on_all_modules() -> tuple[dict[int, Any], dict[int, Any]]:
    """The hooks before, and after, the forward of every module of the process, by their keys."""
    return _module._global_forward_pre_hooks, _module._global_forward_hooks


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the result of `torch.compile(net)`, or `net.compile()` was called on it."""
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def padding_of(convolution: nn.Module) -> tuple[int, ...]:
    """The padding of an nn.Conv1d or nn.Conv2d as `torch.nn.functional.pad` takes it, that of "same" included."""
    padding: Any = convolution._reversed_padding_repeated_twice
    return tuple(padding)


# -- dispatch and the compiler ----------------------------------------------------------------------------------------

without_torch_function: Callable[[], AbstractContextManager[Any]] = torch._C.DisableTorchFunction
"""A context in which `__torch_function__` of modes and subclasses is not called."""

function_state: Callable[[], Any] = _c._get_torch_function_state
"""Whether `__torch_function__` is called in this thread, for `set_function_state`."""

set_function_state: Callable[[Any], None] = _c._set_torch_function_state
"""Set it."""

function_modes: Callable[[], int] = torch._C._len_torch_function_stack
"""How many modes of `__torch_function__` are entered in this thread."""

pop_function_mode: Callable[[], Any] = torch._C._pop_torch_function_stack
"""Take the innermost mode away."""


is_traced: Callable[[], bool] = torch._C._is_tracing
"""Whether torch.jit.trace records now."""


@contextmanager
def untraced() -> Iterator[None]:
    """Within this context torch.jit.trace does not record."""
    recording = _c._get_tracing_state()
    _c._set_tracing_state(None)
    try:
        yield
    finally:
        _c._set_tracing_state(recording)


# A mode enters in one step, between whose lines no KeyboardInterrupt can come. It leaves only if it is the innermost:
# torch takes modes off the stack for a while, and an interrupt just then would make it pop from an empty stack.


class FunctionMode(TorchFunctionMode):
    """A mode of `__torch_function__`, which sees the calls of torch's functions in this thread."""

    def __enter__(self) -> Self:
        _c._push_on_torch_function_stack(self)
        return self

    def __exit__(self, *_: object) -> None:
        depth = function_modes()
        if depth and _c._get_function_stack_at(depth - 1) is self:
            pop_function_mode()


class DispatchMode(TorchDispatchMode):
    """A mode that sees the operations of this thread below autograd, without loading the compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        _c._push_on_torch_dispatch_stack(self)
        return self

    def __exit__(self, *_: object) -> None:
        depth = count_dispatch_modes()
        if depth and _c._get_dispatch_stack_at(depth - 1) is self:
            pop_dispatch_mode()


count_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
"""How many modes see the operations of this thread below autograd."""

fake_mode: Callable[[], Any] = partial(_c._get_dispatch_mode, _c._TorchDispatchModeKey.FAKE)
"""The FakeTensorMode that is entered in this thread, or None."""


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor was made in a FakeTensorMode."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(tensor, module.FakeTensor)


pop_dispatch_mode: Callable[[], Any] = partial(_c._pop_torch_dispatch_stack, None)
"""Take the innermost of them away."""


def compiler_stance() -> Any:
    """What `torch.compiler.set_stance` has set; None as long as the compiler is not loaded."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return None if compiler is None else vars(compiler).get("_stance")


def set_compiler_stance(stance: Any) -> None:
    """Set it; None is the default stance."""
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is not None:
        compiler._stance = compiler.DynamoStance() if stance is None else stance


def argument_names(operation: Any) -> list[str]:
    """The names of the arguments of an operation that a TorchDispatchMode sees."""
    return [argument.name for argument in operation._schema.arguments]


def constant_for_compiler(function: Function) -> Function:
    """The function, of which torch.compile takes the result of one call as a constant, without tracing it.

    The same as `torch.compiler.assume_constant_result`, which loads the compiler.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
