"""Run a network over all steps in one call of its forward, with time folded into dimension 0.

`unroll` runs a whole sequence; `stream` runs a sequence that arrives in chunks, one chunk in memory at a time.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from ._check import run_checked
from ._checkpoint import checked_length
from ._run import is_recorded, run_traced
from ._time_folding import read, too_many_inputs


def unroll(
    net: nn.Module,
    x: Any,
    *inputs: Any,
    steps: int | None = None,
    num_steps: int | None = None,
    check: bool | None = None,
    checkpoint: int | None = None,
    **kwargs: Any,
) -> Any:
    """Run a network over all steps at once, layer by layer instead of step by step.

    Equal to the loop ``for t in range(T): out = net(x[t])`` with its outputs stacked over time. The forward of `net` is
    called once. Stateless layers receive time folded into dimension 0, [T*B, ...]. Each spiking neuron scans its whole
    sequence, starting from its stored state. `net` may also be a single neuron, with or without init_hidden.

    Args:
        net: the network. Its neurons store their states (init_hidden=True).
        x: input, [T, B, ...]; or [B, ...] with `steps`.
        inputs: further inputs of the forward. Every tensor in `inputs` and `kwargs` has the same leading dimensions,
            [T, B], or [B] with `steps`; numbers and 0-dimensional tensors are constant over time.
        steps: T, for a static input (the same at every step). The input is not repeated in memory: the layers before
            the first neuron run on it once.
        num_steps: another name of `steps`; an input of the forward, if that has an argument of this name.
        check: whether to also run the network step by step and raise an error if the results differ. The check finds
            values that a forward stores between steps, and operations that mix the rows of a batch. None: check three
            steps at the first call for each combination of network, mode and kind of inputs; a `Sequential` of known
            layers is not checked. True: check all steps of this call. False: never check. Default: None.
        checkpoint: K, to run in chunks of K steps, save only the states at chunk borders, and recompute each chunk in
            the backward pass. Memory: the activations of K steps, the states at T / K borders, inputs and outputs. A
            training step takes 1.5 to 1.7 times as long. A good first choice is K near the square root of T.
        kwargs: keyword inputs of the forward.

    Returns:
        the outputs of the forward, every tensor [T, B, ...]. They are neither copies nor views: `detach_()` works.

    Raises:
        TypeError: if `net` is not a module, no input is a tensor, `steps` is not an integer, there are more inputs than
            the forward takes, or a neuron is passed its states as arguments; if check=True and a neuron accepts whole
            sequences only.
        ValueError: if a sequence does not start with [T, B], or if dimension 0 of a neuron's input or of an output of
            the network is not T*B.
        RuntimeError: if a neuron is called twice in one forward, is not a submodule of the network, or has its state
            read or written during the call; if the check finds a difference.
        After an error, states and running statistics are restored.

    Warns:
        UserWarning: if `steps` is passed with an input that may be a sequence of that length, or is missing for one
            that may be a batch of images, [B, 1, H, W].

    BatchNorm in training mode sees T*B samples and updates its statistics once; Dropout draws for all steps at once.
    With `checkpoint`, both happen once per chunk.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> spk, mem = snn.unroll(net, torch.rand(25, 2, 3))
        >>> spk.shape, mem.shape
        (torch.Size([25, 2, 4]), torch.Size([25, 2, 4]))
        >>> snn.utils.reset(net)
        >>> spk, mem = snn.unroll(net, torch.rand(2, 3), steps=25)
    """
    request = read(net, (x, *inputs), kwargs, steps, num_steps)
    if checkpoint is not None:
        checked_length(checkpoint)
    if is_recorded():
        return run_traced(request)
    return run_checked(request, check, checkpoint, counts=True).outputs


def stream(
    net: nn.Module,
    chunks: Iterable[Any],
    *,
    steps: int | None = None,
    num_steps: int | None = None,
    check: bool | None = None,
    checkpoint: int | None = None,
    detach: bool = True,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a network over a sequence that arrives in chunks: a lazy iterator that calls `unroll` on each chunk.

    The states carry over from chunk to chunk, so spikes and states equal those of one `unroll` over the joined
    sequence, for any chunk lengths. Memory is that of one chunk. With a backward pass and an optimizer step after each
    chunk, this is truncated backpropagation through time.

    Args:
        net: the network, as for `unroll`. It starts from its stored states; call `spikeloom.utils.reset` to clear them.
        chunks: any iterable: a list, a generator, a DataLoader. Each chunk is a tensor [t, B, ...] with t > 0, or a
            tuple of the forward's positional inputs. If B changes, states that do not broadcast to the new B are
            reinitialized, with a warning.
        steps: as for `unroll`: each chunk is a static input, [B, ...], for this many steps.
        num_steps: another name of `steps`, as for `unroll`.
        check: as for `unroll`; True compares all steps of the first chunk.
        checkpoint: as for `unroll`, within each chunk.
        detach: whether to detach the states after each chunk, so that gradients stop at its start. If False, the
            autograd graph spans all chunks, and so does its memory. Default: True.
        kwargs: keyword inputs of the forward, the same for every chunk.

    Returns:
        an iterator over the outputs of `unroll`, every tensor [t, B, ...]. It holds no chunks and no outputs. The
        network's states are those after the chunk last returned, also if you leave the loop or the next chunk raises
        an error; to continue, call `stream` on the remaining chunks.

    Raises:
        TypeError: if `net` is not a module or `chunks` is not an iterable of chunks (at the call).
        ValueError: if a chunk has no steps (when it is reached). Errors of `unroll` are raised for each chunk, too.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> for spk, mem in snn.stream(net, torch.rand(1000, 2, 3).split(100)):
        ...     optimizer.zero_grad()
        ...     mem.square().mean().backward()
        ...     optimizer.step()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"stream requires a network, an nn.Module; got {type(net).__name__}")
    if isinstance(chunks, Tensor):
        raise TypeError(
            "stream requires an iterable of chunks and got a tensor; pass x.split(100) for chunks of 100 steps"
        )
    if not isinstance(chunks, Iterable):
        raise TypeError(f"stream requires an iterable of chunks; got {type(chunks).__name__}")
    done = 0

    def run(chunk: Any) -> Any:
        nonlocal done
        try:
            counted = isinstance(chunk, tuple) and chunk and type(chunk[-1]) is int
            if counted and (advice := too_many_inputs(net, chunk)):
                raise TypeError(advice)  # a target, which `read` would take for the number of steps
            request = read(net, chunk if isinstance(chunk, tuple) else (chunk,), kwargs, steps, num_steps)
            if not request.steps:
                raise ValueError("the chunk has no steps; pass chunks with at least one step")
            if checkpoint is not None:
                checked_length(checkpoint)
            if is_recorded():
                outputs = run_traced(request)
            else:
                first = None if check and done else check
                outputs = run_checked(request, first, checkpoint, counts=True, detach=detach).outputs
        except Exception as error:
            error.add_note(f"(in chunk {done + 1} of the stream)")
            if isinstance(chunk, list):  # as a DataLoader with targets yields
                error.add_note("(The chunk is a list, which is one input of the forward; pass a tensor or a tuple)")
            raise
        done += 1
        return outputs

    # unlike a generator's loop, a map holds no reference to a chunk or its outputs while it computes the next
    return map(run, chunks)
