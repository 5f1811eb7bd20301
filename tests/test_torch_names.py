"""Each private name of torch that the package uses answers as `spikeloom/_torch.py` says."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeloom import _torch


def inside(transform, ask):
    """What `ask` says of the argument of a function that a transform runs."""
    said = []

    def function(x):
        said.append(ask(x))
        return x.sum()

    transform(function)(torch.ones(2))
    return said[0]


def left(transform):
    """The tensor that a transform has passed to its function, when the transform is over."""
    return inside(transform, lambda x: x)


def test_transforms_active():
    assert not _torch.transforms_active()
    assert inside(torch.func.grad, lambda x: _torch.transforms_active())


def test_is_wrapped():
    assert not _torch.is_wrapped(torch.ones(1))
    assert inside(torch.func.grad, _torch.is_wrapped)
    assert _torch.is_wrapped(left(torch.vmap))


def test_is_batch_of_gradients():
    said = []
    x = torch.ones(2, requires_grad=True)
    (y := 2 * x).register_hook(lambda grad: said.append(_torch.is_batch_of_gradients(grad)))
    torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    assert said == [True]
    assert not _torch.is_batch_of_gradients(torch.ones(1))


def test_fake_mode():
    from torch._subclasses.fake_tensor import FakeTensorMode

    assert _torch.fake_mode() is None
    with FakeTensorMode() as mode:
        assert _torch.fake_mode() is mode


def test_is_fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(1)
    assert [_torch.is_fake(fake), _torch.is_fake(torch.ones(1))] == [True, False]


def test_is_batched():
    assert not _torch.is_batched(torch.ones(1))
    assert inside(torch.vmap, _torch.is_batched)
    assert not inside(torch.func.grad, _torch.is_batched)


def test_unwrapped_if_dead():
    x = torch.ones(1)
    assert _torch.unwrapped_if_dead(x) is x
    assert inside(torch.func.grad, lambda x: _torch.unwrapped_if_dead(x) is x)
    assert not _torch.is_wrapped(_torch.unwrapped_if_dead(left(torch.func.grad)))
    assert _torch.is_batched(_torch.unwrapped_if_dead(left(torch.vmap)))


def test_of_running_vmap():
    assert inside(torch.vmap, _torch.of_running_vmap)
    of_two = left(torch.vmap)
    assert not _torch.of_running_vmap(of_two)
    assert not inside(torch.func.grad, lambda x: _torch.of_running_vmap(of_two))
    assert not inside(lambda f: lambda x: torch.vmap(f)(torch.ones(3)), lambda x: _torch.of_running_vmap(of_two))


def test_tangents_pass():
    assert not _torch.tangents_pass()
    with torch.autograd.forward_ad.dual_level():
        assert _torch.tangents_pass()
    assert not _torch.tangents_pass()


def test_transformed():
    assert not _torch.transformed()
    assert inside(torch.func.grad, lambda x: _torch.transformed())
    with torch.autograd.forward_ad.dual_level():
        assert _torch.transformed()


def test_graph_task():
    tasks = []
    x = torch.ones(1, requires_grad=True)
    y = x * 1
    y.register_hook(lambda grad: tasks.append(_torch.graph_task()))
    assert _torch.graph_task() == -1
    y.backward()
    assert tasks[0] >= 0


def test_saved_hooks():
    assert _torch.saved_hooks() is None
    assert _torch.saved_hooks_allowed()
    pack, unpack = (lambda x: x), (lambda x: x)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        assert _torch.saved_hooks() == (pack, unpack)
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
        assert not _torch.saved_hooks_allowed()
    assert _torch.saved_hooks_allowed()


def test_pop_saved_hooks():
    torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x).__enter__()
    _torch.pop_saved_hooks()
    assert _torch.saved_hooks() is None


def test_hooks_on_all_modules():
    before, after = _torch.hooks_on_all_modules()
    with torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: None) as hook:
        assert (hook.id in before, hook.id in after) == (True, False)
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: None) as hook:
        assert (hook.id in before, hook.id in after) == (False, True)


def test_function_state_and_set_function_state():
    enabled = _torch.function_state()
    with _torch.without_torch_function():
        assert _torch.function_state() != enabled
        _torch.set_function_state(enabled)
        assert _torch.function_state() == enabled


def test_function_modes_and_pop_function_mode():
    mode = _torch.FunctionMode()
    mode.__enter__()
    assert _torch.function_modes() == 1
    assert _torch.pop_function_mode() is mode
    assert _torch.function_modes() == 0


@pytest.mark.parametrize("kind", [_torch.FunctionMode, _torch.DispatchMode])
def test_a_mode_that_was_taken_away_leaves_without_an_error(kind):
    pop = {_torch.FunctionMode: _torch.pop_function_mode, _torch.DispatchMode: _torch.pop_dispatch_mode}[kind]
    with kind() as outer:
        with kind() as inner:
            assert pop() is inner
        assert pop() is outer


def test_is_view():
    x = torch.ones(2, requires_grad=True).clone()
    assert [_torch.is_view(each) for each in (x, x[:1])] == [False, True]


def test_is_replica():
    assert _torch.IS_REPLICA in vars(nn.Linear(1, 1)._replicate_for_data_parallel())


def test_batch_norm():
    assert isinstance(nn.BatchNorm2d(1), _torch.BatchNorm)
    assert not isinstance(nn.InstanceNorm2d(1), _torch.BatchNorm)


def test_is_compiled():
    net = nn.Linear(1, 1)
    assert not _torch.is_compiled(net)
    compiled = torch.compile(net, backend="eager")
    assert _torch.is_compiled(compiled)
    assert _torch.uncompiled(compiled) is _torch.uncompiled(net) is net
    net.compile(backend="eager")
    assert _torch.is_compiled(net)


@pytest.mark.parametrize("padding", [0, 2, "same", "valid"])
def test_padding_of(padding: int | str):
    convolution = nn.Conv2d(1, 1, 3, padding=padding)
    x = torch.rand(1, 1, 8, 8)
    padded = nn.functional.pad(x, _torch.padding_of(convolution))
    assert torch.equal(nn.functional.conv2d(padded, convolution.weight, convolution.bias), convolution(x))


def test_without_torch_function():
    class Seen(torch.overrides.TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    with Seen() as seen:
        torch.ones(1).add(1)
        before = seen.calls
        with _torch.without_torch_function():
            torch.ones(1).add(1)
    assert before == seen.calls > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_is_traced():
    said = []

    def function(x):
        said.append(_torch.is_traced())
        return x + 1

    torch.jit.trace(function, torch.ones(1), check_trace=False)
    assert said == [True]
    assert not _torch.is_traced()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_untraced():
    def function(x):
        with _torch.untraced():
            assert not _torch.is_traced()
            torch.ones(3) * 2
        assert _torch.is_traced()
        return x + 1

    traced = torch.jit.trace(function, torch.ones(1), check_trace=False)
    assert "mul" not in str(traced.graph)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_trace_in_progress():
    said = []

    def function(x):
        said.extend([_torch.trace_in_progress(), _torch.trace_in_progress()])
        return x + 1

    torch.jit.trace(function, torch.ones(1), check_trace=False)
    assert said[0] is said[1] is not None
    assert _torch.trace_in_progress() is None


class Recorded(nn.Module):
    """A running sum, by the operation for a loop; notes what holds while torch.export records it."""

    def forward(self, x):
        assert _torch.exporting()
        with _torch.unrecorded():
            x.sin()
        with _torch.unrecorded(), _torch.real_tensors():
            assert float(torch.ones(2).sum()) == 2.0
        assert _torch.storage_of(x) == _torch.storage_of(x[1:]) != _torch.storage_of(x.clone())
        (last, every) = _torch.scan_operator()(lambda total, x_t: [total + x_t, total + x_t * 2], [x[0] * 0], [x], ())
        return last, every


def test_what_holds_while_torch_exports():
    assert not _torch.exporting()
    with torch.no_grad():
        program = torch.export.export(Recorded(), (torch.ones(3, 2),))
    assert "sin" not in program.graph_module.code
    last, every = program.module()(torch.tensor([[1.0, 2.0]] * 3))
    assert last.tolist() == [3.0, 6.0]
    assert every.tolist() == [[2.0, 4.0], [3.0, 6.0], [4.0, 8.0]]


def test_dispatch_modes():
    seen = []

    class Mode(_torch.DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(_torch.argument_names(func))
            return func(*args, **(kwargs or {}))

    assert Mode.__torch_dispatch__.__name__ == "__torch_dispatch__"  # as written, not behind the compiler
    assert not _torch.count_dispatch_modes()
    with Mode():
        assert _torch.count_dispatch_modes() == 1
        torch.ones(1).neg()
    assert seen[-1] == ["self"]
    assert not _torch.count_dispatch_modes()
    mode = Mode().__enter__()
    assert _torch.pop_dispatch_mode() is mode
    assert not _torch.count_dispatch_modes()


def test_compiler_stance():
    import torch._dynamo.eval_frame

    before = _torch.compiler_stance()
    with torch.compiler.set_stance("force_eager"):
        assert _torch.compiler_stance().stance == "force_eager"
        _torch.set_compiler_stance(before)
        assert _torch.compiler_stance() is before
        _torch.set_compiler_stance(None)
        assert _torch.compiler_stance() == before
    _torch.set_compiler_stance(before)
    with _torch.CompiledInEager():
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"


def test_constant_for_compiler():
    calls = []

    @_torch.constant_for_compiler
    def constant():
        calls.append(1)
        return 3

    @torch.compile(backend="eager", fullgraph=True)
    def function(x):
        return x * constant()

    assert [function(torch.ones(1)).item() for _ in range(3)] == [3, 3, 3]
    assert len(calls) == 1


def test_trees():
    tree = {"a": [torch.ones(1), 2], "b": (3,)}
    leaves, spec = _torch.tree_flatten(tree)
    assert isinstance(spec, _torch.TreeSpec)
    assert leaves == _torch.tree_leaves(tree) == [leaf for _, leaf in _torch.tree_flatten_with_path(tree)[0]]
    assert _torch.tree_unflatten(leaves, spec) == tree
    assert _torch.tree_map(type, tree) == {"a": [torch.Tensor, int], "b": (int,)}
    assert _torch.tree_map_only(int, lambda n: -n, tree) == {"a": [tree["a"][0], -2], "b": (-3,)}


def test_a_tensor_becomes_another_in_place():
    class Empty(torch.Tensor):
        __torch_function__ = _torch.no_torch_function

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise AssertionError(func)

    weight = torch.ones(3, requires_grad=True)
    value, empty = weight * 2, _torch.new_wrapper(Empty, (3,), requires_grad=True)
    assert empty.shape == (3,)
    _torch.swap_tensors(empty, value)
    empty.__class__ = torch.Tensor
    del value
    empty.sum().backward()
    assert type(empty) is torch.Tensor
    assert weight.grad.tolist() == [2, 2, 2]


def test_modes_of_this_thread():
    class Mode(_torch.FunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    assert not _torch.is_any_autocast_enabled()
    with torch.autocast("cpu"):
        assert _torch.is_any_autocast_enabled()
    with Mode() as mode:
        assert _torch.topmost_function_mode() is mode
    assert _torch.topmost_function_mode() is None
    with torch.enable_grad():
        _torch.set_grad_enabled(False)
        assert not torch.is_grad_enabled()


def test_each_name_has_a_test():
    tree = ast.parse(Path(_torch.__file__).read_text())
    defined = {n.target.id for n in tree.body if isinstance(n, ast.AnnAssign)}
    defined |= {n.targets[0].id for n in tree.body if isinstance(n, ast.Assign)} - {"Function"}
    defined |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    defined = {name for name in defined if not name.startswith("_")}
    trees = [ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_torch_*.py")]
    asked = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not defined - asked


def test_autograd_on():
    with torch._C._AutoDispatchBelowAutograd(), _torch.autograd_on():
        assert (torch.ones(2, requires_grad=True) * 2).requires_grad
