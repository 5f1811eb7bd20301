"""What Numba leaves out when it compiles a kernel is what it does by itself."""

from numba.core import typed_passes, untyped_passes

from spikeloom.engine.jit.intrinsics import UNUSED


def test_every_pass_that_is_left_out_is_one_of_numbas():
    """A release that has renamed one would run it again, at the cost of time alone."""
    assert {name for name in UNUSED if not (hasattr(untyped_passes, name) or hasattr(typed_passes, name))} == set()
