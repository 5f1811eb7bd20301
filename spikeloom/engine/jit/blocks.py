"""How the elements of a scan on the CPU are cut into blocks, each of which is run over all time."""

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
