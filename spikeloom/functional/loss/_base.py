"""What all losses are: modules of a sequence and targets, with a reduction and class weights."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .._inputs import Labels, Lengths, Optioned, Steps, read

REDUCTIONS = ("mean", "sum", "none")


class LossFunctions(Optioned):
    """Base of the losses, for one of your own too: an nn.Module with `reduction`, `weight` and `__name__`.

    Args:
        reduction: "mean", "sum" or "none", over the samples, or over what the loss says.
        weight: [C], a factor for the samples of each class, or None. It follows ``.to(device)``, and never enters a
            state_dict: neither the loss's own nor that of a network that holds the loss.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does;
            if False by the number of samples, as snnTorch does.

    Call of every loss: ``loss(x, targets, *, mask=None, lengths=None)``, where
        x is the sequence, [T, B, C]: spikes, or membranes,
        targets are class labels [B], a tensor, an array or a list; -100 leaves a sample out,
        mask [T, B], True where a step counts, or lengths [B] are for sequences of different lengths: T is then the
        number of a sample's steps.
        It returns [], or [B] for "none", unless it says otherwise; float64 of float64, else float32.

    Raises:
        ValueError: for another reduction, a weight that is not one-dimensional, and for options or shapes that do not
            fit.
        IndexError: for a label that is no class.

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
        """Without weights two losses return one number in the shape [1], as snnTorch does."""
        return loss.reshape(1) if self.weight is None and loss.dim() == 0 else loss


class OfSequence(LossFunctions):
    """A loss of a sequence, which messages call `_reads`."""

    _reads: ClassVar[str] = "spk_out"

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of spikes, or membranes, [T, B, C] for the labels, or whatever the loss takes as targets."""
        return self._loss(*read(spk_out, self.__name__, self._reads, mask, lengths), targets)

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        raise NotImplementedError


class OfRecording(OfSequence):
    """A loss whose sequence is called spk_rec, as in snnTorch."""

    _reads = "spk_rec"

    def forward(
        self, spk_rec: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of spikes [T, B, C] for the labels, or times, targets."""
        return super().forward(spk_rec, targets, mask=mask, lengths=lengths)
