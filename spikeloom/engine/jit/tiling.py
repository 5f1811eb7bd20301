"""How matrix products are cut: into panels of columns, tiles of a panel, and chunks of rows."""

from functools import cache

HEIGHT = 4
"""Rows of a tall tile."""

LINE = 64
"""Bytes of a line of the cache: what memory is read and written by, and a row of a slim panel, for matrices of few
columns."""

ROWS = 16
"""Rows of a recurrent layer that go through time, and through a product, together: each panel of the matrix is read
once for all of them."""

CHUNK = 1024
"""The same for a product of lists by itself."""

TURNED = 256
"""Rows of which an outer product turns the lists into lists of columns, and whose gradients, a block of two panels, it
then picks from the second-level cache. It takes as long with twice and four times as many."""


@cache
def panel_bytes() -> int:
    """Bytes of a row of a panel: 16 sums in a tall tile, as many registers as leave room for the operands."""
    import llvmlite.binding  # with Numba, which is not loaded before a kernel is needed

    return 256 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 64


@cache
def slim_height() -> int:
    """Rows of a slim tile, whose panel is a line: sums enough to hide how long one takes."""
    return 8 if panel_bytes() == 256 else 4
