"""A sequence that comes in chunks: each is unrolled from where the one before ended, and nothing else is kept of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..layers import SEES_TIME
from ._request import read
from ._unroll import perform


def stream(
    net: nn.Module,
    chunks: Iterable[Any],
    *,
    steps: int | None = None,
    check: bool | None = None,
    checkpoint: int | None = None,
    detach: bool = True,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a network over a sequence that comes in chunks of steps: `unroll` chunk after chunk, as they are asked for.

    The states go on from chunk to chunk, so spikes and states are those of one `unroll` over the joined sequence,
    however it is cut. Memory is that of one chunk. With a backward and a step of the optimizer after each chunk, this
    is truncated backpropagation through time.

    Args:
        net: the network, as for `unroll`. It goes on from the states that it has; `spikeloom.utils.reset` it before.
        chunks: any iterable: a list, a generator, a DataLoader. Each chunk is the input of its steps, [t, B, ...], of
            any t above zero; a tuple holds the inputs of the forward in order. Where B changes, the states that do
            not broadcast to it start afresh, with a warning.
        steps: as for `unroll`: each chunk is [B, ...] and stays the same for so many steps.
        check: as for `unroll`; True compares all steps of the first chunk.
        checkpoint: as for `unroll`, within each chunk.
        detach: whether the states are cut from their graph after each chunk, so that gradients reach back to its
            beginning and no further. Without it the graphs of all chunks are one, and their memory adds up.
        kwargs: keyword inputs of the forward, the same for every chunk.

    Returns:
        an iterator: for each chunk what `unroll` returns, every tensor [t, B, ...]. It holds no chunks and no outputs.
        The network always stands at the end of the chunk last returned, also if you leave the loop there, and also if
        the next one raises an error; go on by a new `stream` over what is left.

    Raises:
        TypeError, ValueError: for what is no network or no chunks, at once; for a chunk without steps,
            and whatever `unroll` raises, when it is its turn.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> for spk, mem in snn.stream(net, torch.rand(1000, 2, 3).split(100)):
        ...     optimizer.zero_grad()
        ...     mem.square().mean().backward()
        ...     optimizer.step()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"stream takes a network, an nn.Module; got {type(net).__name__}")
    if isinstance(chunks, Tensor):
        raise TypeError(
            "stream takes chunks of a sequence, and got a tensor; pass x.split(100) for chunks of 100 steps"
        )
    if not isinstance(chunks, Iterable):
        raise TypeError(f"stream takes an iterable of chunks; got {type(chunks).__name__}")
    # a map, unlike a generator's loop, keeps hold of neither a chunk nor its outputs while the next are made
    return map(_Stream(net, steps, check, checkpoint, detach, kwargs), chunks)


@dataclass
class _Stream:
    """Chunk after chunk.

    Args:
        net, steps, check, checkpoint, detach, kwargs: as `stream` got them.
        done: how many chunks were run.
    """

    net: nn.Module
    steps: int | None
    check: bool | None
    checkpoint: int | None
    detach: bool
    kwargs: Mapping[str, Any]
    done: int = 0

    def __call__(self, chunk: Any) -> Any:
        try:
            request = read(self.net, chunk if isinstance(chunk, tuple) else (chunk,), self.kwargs, self.steps)
            if not request.steps:
                raise ValueError("the chunk has no steps; pass chunks of one step or more")
            check = None if self.check and self.done else self.check
            after = partial(_cut, request.names) if self.detach else None
            outputs = perform(request, check, self.checkpoint, after)
        except Exception as error:
            error.add_note(f"(in chunk {self.done + 1} of the stream)")
            raise
        self.done += 1
        return outputs


def _cut(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, SEES_TIME):
            layer.detach_mem()
