"""Labels as one-hot rows, and back."""

import torch
from torch import Tensor

from ._inputs import checked, whole


def to_one_hot(targets: Tensor, num_classes: int) -> Tensor:
    """Labels as rows with a single 1: one_hot[..., c] = 1 where c is the label, else 0.

    Args:
        targets: class labels [*S], from 0 to num_classes - 1.
        num_classes: C.

    Returns:
        [*S, C] in the default dtype, on the device of the targets.

    Raises:
        TypeError: for targets that are no tensor.
        ValueError: for a label that is no class.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.to_one_hot(torch.tensor([2, 0]), num_classes=3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    targets = checked(targets, "to_one_hot")
    classes = torch.arange(whole(num_classes, "num_classes"), device=targets.device)
    labels = targets if targets.is_floating_point() else targets.long()
    hits = labels.unsqueeze(-1) == classes
    if not bool(hits.any(-1).all()):
        found = targets[~hits.any(-1)].flatten()[0].item()
        raise ValueError(f"{found} is none of {num_classes} classes; labels are 0 to {len(classes) - 1}")
    return hits.to(torch.get_default_dtype())


def to_one_hot_inverse(one_hot_targets: Tensor) -> Tensor:
    """The complement of one-hot rows: 1 where there is 0, else 0.

    Args:
        one_hot_targets: [*S].

    Returns:
        [*S], in the dtype of the input.

    Raises:
        TypeError: for what is no tensor.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.to_one_hot_inverse(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        tensor([[1., 1., 0.],
                [0., 1., 1.]])
    """
    one_hot_targets = checked(one_hot_targets, "to_one_hot_inverse")
    return (one_hot_targets == 0).to(one_hot_targets.dtype)


def from_one_hot(one_hot_label: Tensor) -> Tensor:
    """The labels of one-hot rows: where in each row the 1 stands. Undoes `to_one_hot`.

    Args:
        one_hot_label: [*S, C], each row with a single 1 among zeros.

    Returns:
        labels [*S], int64.

    Raises:
        TypeError: for what is no tensor.
        ValueError: for a row that is not one-hot.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.from_one_hot(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        tensor([2, 0])
    """
    one_hot_label = checked(one_hot_label, "from_one_hot")
    if not one_hot_label.dim():
        raise ValueError("from_one_hot takes rows of classes, [..., C]; got a single number")
    ones = one_hot_label == 1
    one_hot = (ones.sum(-1) == 1) & (ones | (one_hot_label == 0)).all(-1)
    if not bool(one_hot.all()):
        row = one_hot_label[~one_hot][0].tolist()
        raise ValueError(f"the row {row} is not one-hot; for the largest of each row use argmax(-1)")
    return ones.int().argmax(-1)
