"""Every tuned limit of the package: from where on which way is taken. `spikeloom.tuning` overrides them.

None of them changes a spike. Unless a line says otherwise, they were measured in float32 on two cores of an AMD EPYC of
2021 (512 KB of second-level cache for each core) with `python -m benchmarks`.
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
    """Element-steps (T * B * prod(N)) up to which the calling thread works alone. Two threads win from 60,000 if they
    are awake, from 200,000 if they sleep; the table is in docs/engine.md."""

    pool_from: int = 1 << 20
    """Bytes of a result from which its memory is kept for the next; below, the C library's own reuse is as good."""

    pool_most: int = 1 << 30
    """Bytes of unused memory that are kept at most; the oldest go first."""

    pool_spare: int = 256 << 20
    """Bytes of unused memory that are kept when new memory is taken, since none of it fits."""

    trim_share: int = 20
    """Returning the C library's free memory to the system takes at most one part in so many of the time."""

    constants_most: int = 64
    """Sets of parameters for which a program keeps its constants, as of a threshold that is assigned at every step."""

    cache_megabytes: int = 512
    """Megabytes of kernels on disk; those that were not used for the longest are deleted. SPIKELOOM_CACHE_MB comes
    first."""

    pack_after: int = 32 << 20
    """Bytes of large tensors that a run saves as they are, before it looks for spikes, to save them as bits."""

    # -- the scan on the CPU ------------------------------------------------------------------------------------------

    stream_stores_from: int = 12 << 20
    """Bytes of a sequence from which the forward of a static input writes past the caches: a smaller one is still there
    when it is read."""

    long_blocks_from: int = 2 << 20
    """Bytes of a sequence from which blocks of elements are long, since it lies beyond the second-level cache."""

    recompute_elements: int = 256
    """Elements of a block for each state, from which the states of a static input are recomputed in the backward; with
    fewer a saved sequence costs less."""

    # -- layers that skip zeros ---------------------------------------------------------------------------------------

    linear_dense_above: float = 0.27
    """Share of nonzero inputs from which a Linear takes torch's product (the measurements are in docs/linear.md). With
    0 it always does."""

    linear_listing: int = 5
    """How many outputs cost as much as looking whether an input is zero: `linear_dense_above` sinks by this over the
    outputs."""

    linear_least_work: int = 1 << 26
    """Multiplications below which a Linear takes torch's product: at 390 GFLOP/s it is over in 0.4 ms, which is what
    calling four kernels, forward and backward, costs beyond their work."""

    linear_least_rows: int = 512
    """Rows below which a Linear takes torch's product: packing the weight would cost more than zeros save."""

    narrow_from: int = 4 << 20
    """Bytes of the input from which a Linear of few outputs has a product of its own. What fits the second-level cache,
    torch reads as fast."""

    conv_dense_above: float = 0.2
    """Share of nonzero inputs from which a Conv2d takes torch's convolution (the measurements are in docs/linear.md).
    With 0 it always does."""

    conv_dense_weight_above: float = 0.15
    """Share of nonzero inputs from which torch computes the gradient of its weight."""

    conv_dense_input_above: float = 0.3
    """Share of nonzero gradients of the result from which torch computes the gradient of its input. Behind max pooling
    of 2 x 2 a quarter is nonzero."""

    conv_least_work: int = 1 << 27
    """Multiplications below which a Conv2d takes torch's convolution: calling kernels takes as long as they save."""

    conv_least_channels: int = 64
    """Channels of the result below which it does: the rows that kernels add up would be too short."""

    conv_least_inputs: int = 256
    """Inputs of each result below which it does: the results take longer to write than to compute."""

    conv_sampled: int = 16
    """Images in which nonzero inputs are counted, spread evenly over all."""

    chunk_images_from: int = 32 << 20
    """Bytes of images from which torch's convolution goes through them in chunks: what glibc keeps at most."""

    chunk_bytes: int = 2 << 20
    """Bytes of a chunk, of its images or its result, for each thread."""

    pooling_least_values: int = 1 << 16
    """Values of the input below which torch's pooling is taken: it is over before a kernel is called."""

    pooling_largest_window: int = 64
    """Values of a window above which torch's pooling is taken: the kernels name each."""

    # -- a GPU: choices that no device has confirmed ------------------------------------------------------------------

    graph_steps: int = 32
    """Steps of a CUDA graph, a power of two: what it takes to start one is then shared by a hundred kernels."""

    gpu_recurrent_most: int = 1024
    """Neurons of the recurrent kernel at most: a program reads all of the matrix at every step, 4 MB then."""

    gpu_parallel_most: int = 65536
    """Elements up to which steps are joined in parallel: with 512 for each program, 128 programs would be at work
    otherwise, about one for each processor of a large device."""


@dataclass(frozen=True)
class Shapes:
    """How kernels on the CPU cut their work: blocks of elements, panels of columns, tiles of a panel, chunks of rows.

    They are compiled in, so that nobody overrides them.
    """

    block: int = 2048
    """Elements of a block: three to four rows of 8 KB fit the first-level cache."""

    long_block: int = 16384
    """The same where sequences lie beyond the second-level cache. It is then not so much the state that counts as that
    the processor sees long runs of addresses, and reads ahead (Leaky at [25, 64, 1000]: 0.86 ns an element for both
    scans, with short blocks 0.99)."""

    recomputed_bytes: int = 512 << 10
    """Bytes of states that a block recomputes: a part of the second-level cache of one core."""

    line: int = 64
    """Bytes of a line of the cache: what memory is read and written by, and a row of a slim panel, for matrices of few
    columns."""

    tile_height: int = 4
    """Rows of a tall tile."""

    sparse_below: float = 0.4
    """Share of nonzero values below which a kernel adds up the rows that belong to them, since a row alone takes 2.0
    times its part of a dense tile. Both give the same bits."""

    recurrent_rows: int = 16
    """Rows of a recurrent layer that go through time, and through a product, together: each panel of the matrix is read
    once for all of them."""

    product_rows: int = 1024
    """The same for a sparse product by itself."""

    outer_rows: int = 256
    """Rows of which an outer product turns the lists of nonzero values into lists of columns, and whose gradients, a
    block of two panels, it then picks from the second-level cache. It takes as long with twice and four times as many.
    """

    gradient_chunk_bytes: int = 1 << 18
    """Bytes of an output gradient that the gradient of a convolution's weight goes through together, so that they stay
    in the cache."""

    matrix_span: int = 32
    """Steps of which one matrix of an `AssociativeLeaky` is saved; the backward recomputes the others."""

    matrix_lanes: int = 8
    """Partial sums of a gradient of that: one chain of additions would wait for itself, and a sum in another order than
    that which is written is not allowed."""

    @property
    def strip(self) -> int:
        """Elements from one strip to the next, by way of which a forward writes past the caches: what is a multiple of
        4 KB apart would look alike to the processor."""
        return self.block + 16


@dataclass(frozen=True)
class TritonShapes:
    """The same of kernels on a GPU. Not tuned: no choice has been measured on one."""

    block_bytes: int = 2048
    """Of a sequence, for each program of the grid: 512 floats, sixteen bytes for each thread of its four warps, which
    are read and written at once."""

    span: int = 8
    """Of so many steps one leaves its states, where the backward rebuilds those between from the input, in registers.
    A neuron of one state moves 21 bytes per step then, where it would be 24 with its state kept at every step. With 16
    it would be half a byte less, for twice the registers, compiled for sm_90."""

    span_bytes: int = 1024
    """`block_bytes` of a program that holds the states of a span. With twice as many, compiled for sm_90, registers ran
    out: in float64 for half of the neurons, in float32 for all that were tried."""

    ahead: int = 4
    """How many steps ahead of its use something is asked for: the more, the more registers are taken."""

    ahead_backwards: int = 2
    """The same in the backward."""

    joined_steps: int = 64
    """Steps that a program takes at once where steps can be joined, and the fewest for which they are."""

    joined_elements: int = 16
    """Elements of such a program: eight values for each thread. With twice as many, compiled for sm_80, registers ran
    out in float64."""

    recurrent_rows: int = 16
    """Rows of the batch for each program of a recurrent kernel: the fewest that a product of tiles takes."""

    tile: int = 32
    """Rows and columns of the tile of the matrix that such a product takes at once."""

    graphs: int = 32
    """CUDA graphs whose memory is kept; of more, the one that was not used for the longest goes."""


shapes, triton_shapes = Shapes(), TritonShapes()


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    known = {field.name: type(field.default) for field in fields(Tuning)}
    for name, value in changes.items():
        if name not in known:
            raise TypeError(f"tuning got {name}={value!r}, which is no limit; the limits are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"tuning got {name}={value!r}; give a number")
        if not value >= 0:
            raise ValueError(f"tuning got {name}={value!r}; give a number from 0 on")
    return changes


def _from_environment(text: str) -> Tuning:
    """The limits that "serial_below=0,linear_dense_above=0.1" asks for."""
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
"""The limits in force, for the whole process; read as `tuning.limits.serial_below`: a `with` block replaces them."""


@contextmanager
def tuning(**changes: float) -> Iterator[Tuning]:
    """Override tuned limits within a block, for the whole process: those of `spikeloom.engine.tuning.Tuning`.

    A limit says from where on a faster way is taken, such as the share of nonzero inputs above which an accelerated
    nn.Linear takes torch's product. It never changes a spike. The environment variable SPIKELOOM_TUNING sets limits for
    a process, as in SPIKELOOM_TUNING="serial_below=0,linear_dense_above=0.1".

    Args:
        changes: limits by name, each a number from 0 on.

    Raises:
        TypeError: for a name that is no limit, or a value that is no number; the message names the limits.
        ValueError: for a number below 0.

    Example:
        >>> import torch
        >>> import spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(784, 100), snn.Leaky(beta=0.9, init_hidden=True))
        >>> net = snn.accelerate(net)
        >>> with snn.tuning(linear_dense_above=0) as limits:  # torch's products alone
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
