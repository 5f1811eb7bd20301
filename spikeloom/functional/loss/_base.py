"""Base classes of the losses: modules with a reduction and class weights."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .._inputs import Labels, Lengths, Optioned, Steps, read

REDUCTIONS = ("mean", "sum", "none")


class LossFunctions(Optioned):
    """Base class of the losses, also for custom ones: an nn.Module with `reduction`, `weight` and `__name__`.

    Args:
        reduction: "mean", "sum" or "none", over samples unless the loss states otherwise.
        weight: [C], a factor for the samples of each class, or None. It follows ``.to(device)``, and is not part of any
            state_dict.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does;
            if False, by the number of samples, as snnTorch does.

    Call of every loss: ``loss(x, targets, *, mask=None, lengths=None)``, where
        x is the sequence, [T, B, C]: spikes, or membranes,
        targets are class labels [B], a tensor, an array or a list; samples with the label -100 are ignored,
        mask [T, B], True where a step counts, or lengths [B] are for sequences of different lengths: T in an equation
        is then the number of steps of the sample.
        Returns [], or [B] for "none", unless stated otherwise; float64 for float64 inputs, else float32.

    Raises:
        ValueError: for another reduction, a weight that is not one-dimensional, or options or shapes that do not match.
        IndexError: for a label outside of the classes.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> class silence_loss(SF.LossFunctions):
        ...     def forward(self, spk_out, targets):
        ...         return (1 - spk_out.amax(0)).mean()
        >>> silence_loss("mean", None)(torch.zeros(5, 2, 3), torch.tensor([0, 1]))
        tensor(1.)
    """

    weight: Tensor | None

    def __init__(self, reduction: str, weight: Tensor | None, *, normalize_weight: bool = False):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"{self.__name__} got reduction={reduction!r}; choose one of {', '.join(REDUCTIONS)}")
        weight = None if weight is None else torch.as_tensor(weight)
        if weight is not None and weight.dim() != 1:
            raise ValueError(f"{self.__name__} got a weight of the shape {list(weight.shape)}; pass [C], one per class")
        self.reduction, self.normalize_weight = reduction, normalize_weight
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("LossFunctions is the base of the losses and has no forward; use ce_rate_loss")

    def _weights(self, like: Tensor, classes: int) -> Tensor | None:
        """The class weights in the dtype and on the device of a tensor."""
        if self.weight is None:
            return None
        if len(self.weight) != classes:
            raise ValueError(f"{self.__name__} got {len(self.weight)} class weights for {classes} classes; pass [C]")
        return self.weight.to(like)

    def _as_one_element(self, loss: Tensor) -> Tensor:
        """Reshape a scalar loss without weights to [1], for two losses that do so in snnTorch."""
        return loss.reshape(1) if self.weight is None and loss.dim() == 0 else loss


class OfSequence(LossFunctions):
    """A loss of a sequence, whose name in messages is `_reads`."""

    _reads: ClassVar[str] = "spk_out"

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """Return the loss of spikes or membranes [T, B, C] for class labels, or the targets that the loss defines."""
        return self._loss(*read(spk_out, self.__name__, self._reads, mask, lengths, targets=targets), targets)

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        raise NotImplementedError


class OfRecording(OfSequence):
    """A loss whose sequence is called spk_rec, as in snnTorch."""

    _reads = "spk_rec"

    def forward(
        self, spk_rec: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """Return the loss of spikes [T, B, C] for targets, which are class labels or times."""
        return super().forward(spk_rec, targets, mask=mask, lengths=lengths)
