"""The tuned limits of the package: at which size or share one implementation replaces another.

No limit changes a spike; `spikeloom.tuning` overrides them. Unless stated otherwise, they were measured with `python -m
benchmarks` in float32 on two cores of an AMD EPYC of 2021 (512 KB of L2 cache per core).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

ENVIRONMENT = "SPIKELOOM_TUNING"


@dataclass(frozen=True)
class Tuning:
    """The limits, by name."""

    # -- threads and memory -------------------------------------------------------------------------------------------

    serial_below: int = 200_000
    """Element-steps (T * B * prod(N)) up to which a kernel runs on the calling thread only. Two threads are faster from
    60,000 if they are awake, from 200,000 if they sleep; see the table in docs/engine.md."""

    pool_from: int = 1 << 20
    """Bytes from which the memory of a result is pooled for reuse; below, the C library's reuse is as fast."""

    pool_most: int = 1 << 30
    """Maximum bytes of unused memory in the pool; the oldest blocks are released first."""

    pool_spare: int = 256 << 20
    """Bytes of unused memory that stay in the pool when new memory is allocated because no pooled block fits."""

    trim_share: int = 20
    """Returning the C library's free memory to the system takes at most 1 / trim_share of the time."""

    constants_most: int = 64
    """Sets of parameters whose constants a program caches, for example if a threshold is assigned at every step."""

    cache_megabytes: int = 512
    """Megabytes of kernels on disk; the least recently used are deleted. SPIKELOOM_CACHE_MB takes precedence."""

    pack_after: int = 32 << 20
    """Bytes of large tensors that a run saves unchanged before it starts to save spike tensors as bits."""

    # -- the scan on the CPU ------------------------------------------------------------------------------------------

    stream_stores_from: int = 12 << 20
    """Bytes of a sequence from which the forward of a static input writes with streaming stores, which bypass the
    caches. A smaller sequence is still in the cache when it is read."""

    long_blocks_from: int = 2 << 20
    """Bytes of a sequence from which blocks of elements are long, since it exceeds the L2 cache."""

    recompute_elements: int = 256
    """Elements of a block per state from which the backward recomputes the states of a static input; for smaller
    blocks, saving them is cheaper."""

    # -- layers that skip zeros ---------------------------------------------------------------------------------------

    linear_dense_above: float = 0.27
    """Share of nonzero inputs from which a Linear uses torch's product (measured in docs/linear.md). 0: always."""

    linear_listing: int = 5
    """Cost of testing whether an input is zero, in outputs: it lowers `linear_dense_above` by
    linear_listing / out_features."""

    linear_least_work: int = 1 << 26
    """Multiplications below which a Linear uses torch's product: at 390 GFLOP/s it takes 0.4 ms, as long as the
    overhead of calling four kernels, forward and backward."""

    linear_least_rows: int = 512
    """Rows below which a Linear uses torch's product: packing the weight would cost more than skipping zeros saves."""

    delayed_cost: int = 16
    """Cost of adding a delayed weight for a nonzero input, in multiplications of torch's convolution over time; twice
    as much if the delay is learned through a window."""

    narrow_from: int = 4 << 20
    """Bytes of the input from which a Linear with few outputs uses the narrow product. For an input that fits the L2
    cache, torch is as fast."""

    counting_from: int = 1 << 16
    """Values of a sequence from which a kernel counts the activity that `metrics.measure` reports: it takes 0.2 ns a
    value, a tenth of the time of torch's operations, and half a second to compile, once per computer."""

    conv_dense_above: float = 0.2
    """Share of nonzero inputs from which a Conv2d uses torch's convolution (measured in docs/linear.md). 0: always."""

    conv_dense_weight_above: float = 0.15
    """Share of nonzero inputs from which torch computes the gradient of its weight."""

    conv_dense_input_above: float = 0.3
    """Share of nonzero output gradients from which torch computes the gradient of its input. If 2 x 2 max pooling
    follows, a quarter is nonzero."""

    conv_least_work: int = 1 << 27
    """Multiplications below which a Conv2d uses torch's convolution: calling kernels takes as long as they save."""

    conv_least_channels: int = 64
    """Output channels below which a Conv2d uses torch's convolution: the rows that kernels add would be too short."""

    conv_least_inputs: int = 256
    """Inputs per output value below which a Conv2d uses torch's convolution: writing takes longer than computing."""

    conv_sampled: int = 16
    """Number of images, evenly spaced, in which nonzero inputs are counted."""

    chunk_images_from: int = 32 << 20
    """Bytes of images from which torch's convolution runs in chunks: the largest block that glibc reuses."""

    chunk_bytes: int = 2 << 20
    """Bytes of a chunk, of its images or its result, per thread."""

    pooling_least_values: int = 1 << 16
    """Values of the input below which torch's pooling is used: it takes less time than calling a kernel."""

    pooling_largest_window: int = 64
    """Values of a window above which torch's pooling is used: the kernels' source names each value of a window."""

    # -- GPU (not measured on a device) -------------------------------------------------------------------------------

    graph_steps: int = 32
    """Steps of a CUDA graph, a power of two: a hundred kernels then share the cost of one launch."""

    gpu_recurrent_most: int = 1024
    """Maximum neurons of the recurrent kernel: a program reads the whole matrix, then 4 MB, at every step."""

    gpu_parallel_most: int = 65536
    """Elements up to which the parallel scan over time is used: with 512 elements per program, the sequential scan
    would run 128 programs, about one per multiprocessor of a large device."""


@dataclass(frozen=True)
class Shapes:
    """Block sizes of CPU kernels: blocks of elements, panels of columns, tiles of a panel, chunks of rows.

    They are compiled into the kernels and cannot be overridden.
    """

    block: int = 2048
    """Elements of a block: three to four rows of 8 KB fit the L1 cache."""

    long_block: int = 16384
    """Elements of a block for sequences that exceed the L2 cache. Long runs of addresses let the processor prefetch,
    which then matters more than keeping the state in the L1 cache (Leaky at [25, 64, 1000]: 0.86 ns per element for
    both scans, with short blocks 0.99)."""

    recomputed_bytes: int = 512 << 10
    """Bytes of states that a block recomputes: a part of one core's L2 cache."""

    line: int = 64
    """Bytes of a cache line: the unit of memory reads and writes, and a row of a slim panel (for matrices with few
    columns)."""

    tile_height: int = 4
    """Rows of a tall tile."""

    sparse_below: float = 0.4
    """Share of nonzero values below which a kernel adds the rows of these values instead of computing a dense tile: a
    single row takes 2.0 times as long as its part of a tile. Both are bit-identical."""

    recurrent_rows: int = 16
    """Batch rows that a recurrent kernel processes together, in time and in the product: each panel of the matrix is
    read once for all of them."""

    product_rows: int = 1024
    """Rows that a sparse product processes together."""

    outer_rows: int = 256
    """Rows whose CSR an outer product transposes at once, and whose gradients, a block of two panels, it then reads
    from the L2 cache. Two and four times as many rows take as long."""

    gradient_chunk_bytes: int = 1 << 18
    """Bytes of an output gradient that the weight gradient of a convolution processes together, so that they stay in
    the cache."""

    matrix_span: int = 32
    """Steps per saved matrix of an `AssociativeLeaky`; the backward recomputes the others."""

    matrix_lanes: int = 8
    """Partial sums of a gradient of an `AssociativeLeaky`: a single chain of additions is bound by latency, and the
    compiler must not reassociate the sum."""

    @property
    def strip(self) -> int:
        """Elements between two strips, through which a forward writes with streaming stores. Not a multiple of 4 KB, at
        which addresses alias."""
        return self.block + 16


@dataclass(frozen=True)
class TritonShapes:
    """Block sizes of GPU kernels. Not tuned: none was measured on a GPU."""

    block_bytes: int = 2048
    """Bytes of a sequence per program of the grid: 512 floats, so that each thread of its four warps reads and writes
    16 bytes at once."""

    span: int = 8
    """Steps per saved state, if the backward recomputes the states between from the input, in registers. A neuron with
    one state then moves 21 bytes per step, instead of 24 with every state saved. A span of 16 would save half a byte
    more, for twice the registers (compiled for sm_90)."""

    span_bytes: int = 1024
    """`block_bytes` of a program that holds the states of a span. With twice as many, compiled for sm_90, registers ran
    out: in float64 for half of the neurons, in float32 for all that were tried."""

    ahead: int = 4
    """Depth of software pipelining, in steps: how far ahead loads are issued. Deeper pipelines use more registers."""

    ahead_backwards: int = 2
    """Depth of software pipelining in the backward."""

    joined_steps: int = 64
    """Steps that a program of the parallel scan processes at once, and the fewest steps for which it is used."""

    joined_elements: int = 16
    """Elements of a program of the parallel scan: eight values per thread. With twice as many, compiled for sm_80,
    registers ran out in float64."""

    recurrent_rows: int = 16
    """Batch rows per program of a recurrent kernel: the fewest that a tile product accepts."""

    tile: int = 32
    """Rows and columns of the matrix tile of a recurrent kernel."""

    graphs: int = 128
    """Maximum number of cached CUDA graphs; the least recently used is released first."""


shapes, triton_shapes = Shapes(), TritonShapes()


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    known = {field.name: type(field.default) for field in fields(Tuning)}
    for name, value in changes.items():
        if name not in known:
            raise TypeError(f"tuning got {name}={value!r}, which is not a limit; the limits are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"tuning got {name}={value!r}; give a number")
        if not value >= 0:
            raise ValueError(f"tuning got {name}={value!r}; give a number >= 0")
    return changes


def _from_environment(text: str) -> Tuning:
    """The limits of a text such as "serial_below=0,linear_dense_above=0.1"."""
    changes: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            changes[name.strip()] = int(value) if value.strip().lstrip("-").isdecimal() else float(value)
        except ValueError:
            raise ValueError(
                f"{ENVIRONMENT} holds {part!r}; write limits as in serial_below=0,pool_from=4096"
            ) from None
    return replace(Tuning(), **_checked(changes))


limits = _from_environment(os.environ.get(ENVIRONMENT, ""))
"""The current limits of the process. Read them as `tuning.limits.serial_below`: a `with` block rebinds this name."""


@contextmanager
def tuning(**changes: float) -> Iterator[Tuning]:
    """Override tuned limits within a ``with`` block, for the whole process.

    A limit is a size or share at which one implementation replaces another, such as the share of nonzero inputs above
    which an accelerated nn.Linear uses torch's product. It never changes a spike. `spikeloom.engine.tuning.Tuning`
    lists the limits. SPIKELOOM_TUNING="serial_below=0,pool_from=4096" in the environment sets them for a process.

    Args:
        changes: limits by name, each a number >= 0.

    Raises:
        TypeError: if a name is not a limit (the message lists all limits), or a value is not a number.
        ValueError: if a number is negative.

    Example:
        >>> import torch
        >>> import spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(784, 100), snn.Leaky(beta=0.9, init_hidden=True))
        >>> net = snn.accelerate(net)
        >>> with snn.tuning(linear_dense_above=0) as limits:  # always torch's product
        ...     spk = snn.unroll(net, torch.rand(8, 784), steps=5)
        >>> limits.linear_dense_above
        0
    """
    global limits
    before = limits
    try:
        limits = replace(before, **_checked(changes))
        yield limits
    finally:
        limits = before
