"""The stance of the compiler during a comparison, and after it."""

import threading

import torch

from spikeloom import _torch


def test_the_compiler_has_its_stance_again_when_the_last_thread_leaves_a_comparison():
    import torch._dynamo.eval_frame as compiler

    def work():
        with _torch.CompiledInEager():
            inside.wait(10)
            leave.wait(10)

    inside, leave = threading.Barrier(2), threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    before = _torch.compiler_stance()
    with _torch.CompiledInEager():
        thread.start()
        inside.wait(10)
        assert _torch.CompiledInEager.depth() == 1
    assert compiler._stance.stance == "force_eager"
    assert _torch.compiler_stance() is before  # the user's
    assert not _torch.CompiledInEager.depth()
    leave.set()
    thread.join()
    assert compiler._stance is before


def test_a_stance_that_was_set_during_a_comparison_ends_in_that_of_before():
    import torch._dynamo.eval_frame as compiler

    before = _torch.compiler_stance()
    with _torch.CompiledInEager():
        theirs = torch.compiler.set_stance("eager_on_recompile")  # of another thread
        with _torch.CompiledInEager():
            assert compiler._stance.stance == "force_eager"
        assert _torch.CompiledInEager.depth() == 1
        assert compiler._stance.stance == "force_eager"
    assert compiler._stance.stance == "eager_on_recompile"
    theirs.__exit__(None, None, None)
    assert compiler._stance == before
    _torch.set_compiler_stance(before)


def test_comparisons_nest():
    import torch._dynamo.eval_frame as compiler

    before = _torch.compiler_stance()
    with _torch.CompiledInEager():
        with _torch.CompiledInEager():
            pass
        assert compiler._stance.stance == "force_eager"
    assert compiler._stance is before
