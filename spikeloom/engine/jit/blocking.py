"""How kernels on the CPU cut their work: blocks of elements, panels of columns, tiles of a panel, chunks of rows."""

from functools import cache

from .. import tuning

BLOCK = 2048
"""Elements of a block: three to four rows of 8 KB fit the first-level cache."""

LONG_BLOCK = 16384
"""The same where sequences lie beyond the second-level cache. It is then not so much the state that counts as that the
processor sees long runs of addresses, and reads ahead (Leaky at [25, 64, 1000]: 0.86 ns an element for both scans, with
short blocks 0.99)."""


STRIP = BLOCK + 16
"""Elements from one strip to the next: what is a multiple of 4 KB apart would look alike to the processor."""

ROOM = 512 << 10
"""Bytes of states that a block makes again: a part of the second-level cache of one core."""


def block_for(sequence: int) -> int:
    """How many elements a block has, where a sequence takes so many bytes."""
    return LONG_BLOCK if sequence >= tuning.limits.long_blocks_from else BLOCK


def room_for(steps: int, states: int, size: int) -> int:
    """How many elements of so many bytes have room for their states of all steps: those of a block that makes them
    again."""
    return min(2 * BLOCK, ROOM // (steps * states * size) // 64 * 64)


HEIGHT = 4
"""Rows of a tall tile."""

SPARSE_BELOW = 0.4
"""Share of nonzero values below which a kernel adds up the rows that belong to them, since a row alone takes 2.0 times
its part of a dense tile. Both give the same bits."""

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
