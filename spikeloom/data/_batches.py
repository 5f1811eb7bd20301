"""Batches of sequences of different lengths: padding, lengths, masks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Batch(NamedTuple):
    """A padded batch: ``x, y, lengths = batch``."""

    x: Tensor
    """Sequences ``[T, B, ...]``, zero after their ends."""
    y: Tensor
    """Targets, ``[B]``, or ``[B, ...]``."""
    lengths: Tensor
    """Number of steps of each sequence, ``[B]``."""

    @property
    def mask(self) -> Tensor:
        """True at the steps that count, ``[T, B]``: the argument of the losses."""
        return mask_of(self.lengths, len(self.x))


def mask_of(lengths: Tensor, steps: int | None = None) -> Tensor:
    """Return a mask that is True at the steps of each sequence and False after its end.

    Args:
        lengths: number of steps of each sequence, ``[B]``.
        steps: T. Default: the longest.

    Returns:
        ``[T, B]``, bool.

        >>> from spikeloom import data
        >>> import torch
        >>> data.mask_of(torch.tensor([1, 2]), steps=3).int()
        tensor([[1, 1],
                [0, 1],
                [0, 0]], dtype=torch.int32)
    """
    lengths = torch.as_tensor(lengths)
    if lengths.ndim != 1 or lengths.is_floating_point():
        raise ValueError(f"lengths has shape {tuple(lengths.shape)} and {lengths.dtype}; pass integers [B]")
    longest = int(lengths.max()) if len(lengths) else 0
    return torch.arange(longest if steps is None else steps, device=lengths.device)[:, None] < lengths


def collate(samples: Sequence[tuple[Any, Any]], steps: int | None = None) -> Batch:
    """Collate (sequence, target) samples of different lengths into one batch, time first.

    For a DataLoader: ``DataLoader(dataset, batch_size=32, collate_fn=snn.data.collate)``.

    Args:
        samples: pairs of a sequence ``[T_i, ...]``, tensor or array, and a target.
        steps: cut or pad to this length. Default: the longest of the batch.

    Returns:
        `Batch` of ``x [T, B, ...]``, ``y [B]`` and ``lengths [B]``; ``batch.mask`` is ``[T, B]``.

    Raises:
        ValueError: if there are no samples, if steps is below 1, if the sequences differ in dtype, or if their shapes
            differ in another dimension than time.

        >>> from spikeloom import data
        >>> import torch
        >>> batch = data.collate([(torch.ones(2, 4), 0), (torch.ones(3, 4), 1)])
        >>> batch.x.shape, batch.y, batch.lengths
        (torch.Size([3, 2, 4]), tensor([0, 1]), tensor([2, 3]))
    """
    if not samples:
        raise ValueError("collate needs at least one sample")
    if not all(isinstance(sample, tuple | list) and len(sample) == 2 for sample in samples):
        raise ValueError(f"collate takes pairs of a sequence and a target, got {type(samples[0]).__name__}")
    if steps is not None and not steps >= 1:
        raise ValueError(f"steps is {steps}; pass 1 or more")
    sequences = [torch.as_tensor(sequence)[:steps] for sequence, _ in samples]
    if len({sequence.shape[1:] for sequence in sequences}) > 1 or not sequences[0].ndim:
        shapes = sorted({tuple(sequence.shape) for sequence in sequences})
        raise ValueError(f"the sequences have the shapes {shapes}; they may differ in dimension 0, time, alone")
    if len({sequence.dtype for sequence in sequences}) > 1:
        dtypes = sorted({str(sequence.dtype) for sequence in sequences})
        raise ValueError(f"the sequences have the dtypes {', '.join(dtypes)}; they must be equal")
    x = pad_sequence(sequences)
    if steps is not None and len(x) < steps:
        x = torch.cat([x, x.new_zeros(steps - len(x), *x.shape[1:])])
    targets = [torch.as_tensor(target) for _, target in samples]
    if len({target.shape for target in targets}) > 1:
        raise ValueError(f"the targets have the shapes {sorted({tuple(t.shape) for t in targets})}; they must be equal")
    y = torch.stack(targets)
    return Batch(x, y, torch.tensor([len(sequence) for sequence in sequences]))
