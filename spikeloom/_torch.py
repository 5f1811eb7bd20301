"""Every private name of torch that the package uses, each checked by tests/test_torch_names.py."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from threading import enumerate as enumerate_threads
from threading import get_ident
from typing import Any, ClassVar, Self, TypeVar

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
_transforms: Any = torch._functorch.eager_transforms

# -- torch.func and forward-mode differentiation ----------------------------------------------------------------------

transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a torch.func transform (vmap, grad, jvp, ...) is active."""

is_wrapped: Callable[[Tensor], bool] = _functorch.is_functorch_wrapped_tensor
"""Whether a tensor is the wrapper of a torch.func transform, active or finished."""

is_batched: Callable[[Tensor], bool] = _functorch.is_batchedtensor
"""Whether a tensor is the wrapper of torch.func.vmap."""

is_batch_of_gradients: Callable[[Tensor], bool] = _functorch.is_legacy_batchedtensor
"""Whether a tensor is a gradient of a backward with `is_grads_batched=True`."""

unwrapped_if_dead: Callable[[Tensor], Tensor] = _functorch.unwrap_if_dead
"""The tensor inside the wrapper of a finished torch.func.grad; any other tensor unchanged."""


def of_running_vmap(tensor: Tensor) -> bool:
    """Whether a torch.func.vmap wrapper belongs to an active vmap, judged by its level and size."""
    for one in _functorch.get_interpreter_stack() or ():
        if one.key() == _functorch.TransformType.Vmap and one.level() == _functorch.maybe_get_level(tensor):
            size = _functorch.get_unwrapped(tensor).shape[_functorch.maybe_get_bdim(tensor)]
            return bool(size == _functorch.CVmapInterpreterPtr(one).batchSize())
    return False


def tangents_pass() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether torch must see each operation: a torch.func transform or forward-mode differentiation is active."""
    return transforms_active() or tangents_pass()


# -- autograd ---------------------------------------------------------------------------------------------------------

graph_task: Callable[[], int] = torch._C._current_graph_task_id
"""The id of the backward pass that runs in this thread; -1 outside of a backward pass."""

saved_hooks_allowed: Callable[[], bool] = _autograd._saved_tensors_hooks_is_enabled
"""Whether hooks on saved tensors may be set: not within `torch.autograd.graph.disable_saved_tensors_hooks`."""

saved_hooks: Callable[[], tuple[Callable[..., Any], Callable[..., Any]] | None] = partial(
    _autograd._top_saved_tensors_default_hooks, False
)
"""The innermost pair of hooks on saved tensors, or None."""

pop_saved_hooks: Callable[[], None] = _autograd._pop_saved_tensors_default_hooks
"""Remove the innermost pair of hooks on saved tensors."""

is_view: Callable[[Tensor], bool] = Tensor._is_view
"""Whether autograd treats a tensor as a view of another."""


class _Replaced:
    """Functions of torch that others stand in for while a block is open, for the listener of each thread."""

    def __init__(self, stand_in: Callable[[Any, ContextVar[Any]], Any], *places: tuple[Any, str]):
        self.listener: ContextVar[Any] = ContextVar("spikeloom_listener", default=None)
        self.places, self.open = places, list[Any]()
        self.functions = [getattr(*place) for place in places]
        self.others = [stand_in(function, self.listener) for function in self.functions]

    @contextmanager
    def block(self, listener: Callable[[Any], Any]) -> Iterator[None]:
        token = self.listener.set(listener)
        self.open.append(listener)
        for place, other in zip(self.places, self.others, strict=True):
            setattr(*place, other)
        try:
            yield
        finally:
            self.open.remove(listener)
            if not self.open:
                for place, function in zip(self.places, self.functions, strict=True):
                    setattr(*place, function)
            self.listener.reset(token)


def _tells_frame(function: Any, listener: ContextVar[Any]) -> Any:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        (listener.get() or id)(sys._getframe(1))
        return function(*args, **kwargs)

    return stand_in


def _passes_level(function: Any, listener: ContextVar[Any]) -> Any:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return (listener.get() or (lambda level: level))(function(*args, **kwargs))

    return stand_in


on_function_apply = _Replaced(_tells_frame, (torch._functorch.utils, "unwrap_dead_wrappers")).block
"""A context in which a function is called with the frame of each `torch.autograd.Function.apply` of this thread."""

_NESTING = ((torch._functorch.vmap, "vmap"), (_transforms, "grad"), (_transforms, "jvp"))
around_transforms = _Replaced(_passes_level, *((at, f"{name}_increment_nesting") for at, name in _NESTING)).block
"""A context in which torch.func's transforms of this thread run in what a function makes of their own context."""

_HIDDEN = ((_c.ScriptMethod, "__call__"), (_c.ScriptFunction, "__call__"), (_transforms, "_func_increment_nesting"))
on_hidden_calls = _Replaced(_tells_frame, *_HIDDEN).block
"""The same for calls whose operations function modes do not see: of TorchScript and torch.func.functionalize."""

# -- modules ----------------------------------------------------------------------------------------------------------

IS_REPLICA = "_is_replica"
"""The attribute that marks a module as a replica made by nn.DataParallel."""

BatchNorm: type[nn.Module] = _BatchNorm
"""The base of torch's BatchNorm layers."""


def hooks_on_all_modules() -> tuple[dict[int, Any], dict[int, Any]]:
    """The global forward pre-hooks and forward hooks of all modules, by their keys."""
    return _module._global_forward_pre_hooks, _module._global_forward_hooks


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the result of `torch.compile(net)`, or `net.compile()` was called on it."""
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was called on; any other module itself."""
    return module._modules.get("_orig_mod") or module


def padding_of(convolution: nn.Module) -> tuple[int, ...]:
    """The padding of an nn.Conv1d or nn.Conv2d (also "same") in the format of `torch.nn.functional.pad`."""
    padding: Any = convolution._reversed_padding_repeated_twice
    return tuple(padding)


# -- dispatch and the compiler ----------------------------------------------------------------------------------------

without_torch_function: Callable[[], AbstractContextManager[Any]] = torch._C.DisableTorchFunction
"""A context in which `__torch_function__` of modes and subclasses is not called."""

function_state: Callable[[], Any] = _c._get_torch_function_state
"""Whether `__torch_function__` is called in this thread, for `set_function_state`."""

set_function_state: Callable[[Any], None] = _c._set_torch_function_state
"""Restore a state returned by `function_state`."""

function_modes: Callable[[], int] = torch._C._len_torch_function_stack
"""The number of `__torch_function__` modes entered in this thread."""

pop_function_mode: Callable[[], Any] = torch._C._pop_torch_function_stack
"""Remove the innermost `__torch_function__` mode."""


def topmost_function_mode() -> Any:
    """The innermost `__torch_function__` mode, or None."""
    depth = function_modes()
    return _c._get_function_stack_at(depth - 1) if depth else None


set_grad_enabled: Callable[[bool], None] = _c._set_grad_enabled
"""Turn gradients on or off in this thread."""


def storage_of(tensor: Tensor) -> int:
    """A number of the memory of a tensor, equal for its views."""
    number: int = tensor.untyped_storage()._cdata
    return number


def is_running(frame: Any) -> bool:
    """Whether a frame is among the callers."""
    caller: Any = sys._getframe(1)
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None


no_torch_function: Any = _c._disabled_torch_function_impl
"""The `__torch_function__` of a subclass of Tensor that handles no calls."""

is_any_autocast_enabled: Callable[[], bool] = _c._is_any_autocast_enabled
"""Whether autocast is enabled for any device."""

new_wrapper: Callable[..., Any] = _c.TensorBase._make_wrapper_subclass
"""Make a tensor of a subclass, with a shape and without memory."""

swap_tensors: Callable[[Tensor, Tensor], None] = _c._swap_tensor_impl
"""Exchange two tensors, with their values and graphs, while the Python objects stay."""


@contextmanager
def autograd_on() -> Iterator[None]:
    """A context in which autograd sees operations, also within a `__torch_dispatch__`, which it calls."""
    excluded: Any = _c._dispatch_tls_local_exclude_set()
    for name in ("Functionality", "Other", "CPU", "CUDA", "NestedTensor"):
        excluded = excluded.remove(getattr(_c.DispatchKey, f"Autograd{name}"))
    excluded = excluded.remove(_c.DispatchKey.ADInplaceOrView)
    with _c._ForceDispatchKeyGuard(_c._dispatch_tls_local_include_set(), excluded):
        yield


is_traced: Callable[[], bool] = torch._C._is_tracing
"""Whether torch.jit.trace is recording."""


trace_in_progress: Callable[[], Any] = _c._get_tracing_state
"""The recording of torch.jit.trace in this thread; None outside of one. The same object throughout a recording."""


@contextmanager
def untraced() -> Iterator[None]:
    """A context in which torch.jit.trace does not record."""
    recording = _c._get_tracing_state()
    _c._set_tracing_state(None)
    try:
        yield
    finally:
        _c._set_tracing_state(recording)


# A mode is entered in one call, which a KeyboardInterrupt cannot split. It is removed only if it is the innermost:
# torch temporarily takes modes off the stack, and after an interrupt at that moment the stack may be empty.


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
"""The number of dispatch modes entered in this thread."""

fake_mode: Callable[[], Any] = partial(_c._get_dispatch_mode, _c._TorchDispatchModeKey.FAKE)
"""The FakeTensorMode that is entered in this thread, or None."""


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor was made in a FakeTensorMode."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(tensor, module.FakeTensor)


pop_dispatch_mode: Callable[[], Any] = partial(_c._pop_torch_dispatch_stack, None)
"""Remove the innermost dispatch mode."""

_compiler: Callable[[], Any] = partial(sys.modules.get, "torch._dynamo.eval_frame")


class CompiledInEager:
    """A context of eager mode for compiled code. A stance is the process's: the last thread to leave restores it."""

    entered: ClassVar[list[int]] = []  # the thread of each entry
    stances: ClassVar[list[tuple[Any, Any]]] = []  # ours, and the user's that each replaces

    @staticmethod
    def __enter__() -> None:
        CompiledInEager.entered.append(get_ident())
        user = compiler_stance()
        if user is _compiler()._stance:  # none of ours
            CompiledInEager.stances.append((_compiler().DynamoStance("force_eager"), user))
            _compiler()._stance = CompiledInEager.stances[-1][0]

    @staticmethod
    def __exit__(*_: object) -> None:
        alive = {thread.ident for thread in enumerate_threads()}  # a fork ends all others
        for thread in (get_ident(), *{*CompiledInEager.entered} - alive - {get_ident()}):
            with suppress(ValueError):
                CompiledInEager.entered.remove(thread)
        if not CompiledInEager.entered and _compiler() is not None:
            _compiler()._stance = compiler_stance()
            for ours, user in CompiledInEager.stances:
                vars(ours).update(vars(user))  # a `set_stance` entered meanwhile, which restores ours, is harmless
            CompiledInEager.stances.clear()

    @staticmethod
    def depth() -> int:
        """How often this thread is within."""
        return CompiledInEager.entered.count(get_ident())


def compiler_stance() -> Any:
    """The stance that the user set by `torch.compiler.set_stance`; None while the compiler is not loaded."""
    stance = getattr(_compiler(), "_stance", None)
    return next((user for ours, user in CompiledInEager.stances if ours is stance), stance)


def set_compiler_stance(stance: Any) -> None:
    """Set the user's stance; None is the default stance."""
    if _compiler() is not None:
        _compiler()._stance = _compiler().DynamoStance() if stance is None else stance


def exporting() -> bool:
    """Whether torch.export records, with tensors and not with the symbols of torch.compile (`strict=True`)."""
    return not torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting()


def scan_operator() -> Callable[..., Any]:
    """The operation for a loop over time: (body, states, sequences, further arguments) -> states and sequences."""
    from torch._higher_order_ops.scan import scan_op  # loads the compiler

    operator: Callable[..., Any] = scan_op
    return operator


def unrecorded() -> AbstractContextManager[Any]:
    """A context in which torch.export does not record operations."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    context: AbstractContextManager[Any] = disable_proxy_modes_tracing()
    return context


def real_tensors() -> AbstractContextManager[Any]:
    """A context in which tensors have values while torch.export records."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    context: AbstractContextManager[Any] = unset_fake_temporarily()
    return context


def argument_names(operation: Any) -> list[str]:
    """The names of the arguments of an operation that a TorchDispatchMode sees."""
    return [argument.name for argument in operation._schema.arguments]


def constant_for_compiler(function: Function) -> Function:
    """Mark a function, as `torch.compiler.assume_constant_result` does, without loading the compiler."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


def compiles_dict(getter: Any) -> bool:
    """Whether torch.compile reads `__dict__`, not a property of that name; if not (2.9), no call of it is compiled."""
    reads = hasattr(sys.modules["torch._dynamo.variables.user_defined"].UserDefinedObjectVariable, "get_dict_vt")
    if not reads:
        _compiler().skip_code(getter.__code__)
    return reads
