"""What listens to torch: to autograd functions and to the transforms of torch.func."""

import contextlib
import warnings

import torch

from spikeloom import _torch


def test_memory_and_frames():
    x = torch.zeros(4)
    assert _torch.storage_of(x) == _torch.storage_of(x[1:]) != _torch.storage_of(x.clone())
    frames, running = [], []

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            running.append(_torch.is_running(frames[0]))
            return x * 2

    with _torch.on_function_apply(frames.append):
        Twice.apply(x)
    Twice.apply(x)
    assert len(frames) == 1
    assert running == [True, False]


def test_transforms_run_in_a_context_of_ours():
    seen = []

    @contextlib.contextmanager
    def around(level):
        seen.append("before")
        with level as entered:
            yield entered
        seen.append("after")

    x = torch.ones(3)
    before = torch._functorch.vmap.vmap_increment_nesting
    with _torch.around_transforms(around):
        torch.func.vmap(torch.sin)(x)
        torch.func.grad(torch.sum)(x)
    torch.func.vmap(torch.sin)(x)
    assert seen == ["before", "after"] * 2
    assert torch._functorch.vmap.vmap_increment_nesting is before


def test_calls_that_modes_do_not_see():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(torch.sin, torch.ones(3))
    frames, x = [], torch.ones(3)
    before = torch._C.ScriptFunction.__call__
    with _torch.on_hidden_calls(frames.append):
        script(x)
        torch.func.functionalize(torch.sin)(x)
    script(x)
    assert len(frames) == 2
    assert torch._C.ScriptFunction.__call__ is before
