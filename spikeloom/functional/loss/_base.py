"""What all losses are: modules with a reduction and class weights."""

from typing import Any

import torch
from torch import Tensor

from .._options import Optioned

REDUCTIONS = ("mean", "sum", "none")


class LossFunctions(Optioned):
    """Base of the losses, for one of your own too: an nn.Module with `reduction`, `weight` and `__name__`.

    Args:
        reduction: "mean", "sum" or "none".
        weight: [C], a factor for the samples of each class, or None. It follows ``.to(device)``, and never enters a
            state_dict: neither the loss's own nor that of a network that holds the loss.

    Raises:
        ValueError: for another reduction, or a weight that is not one-dimensional.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> class silence_loss(SF.LossFunctions):
        ...     def forward(self, spk_out, targets):
        ...         return (1 - spk_out.amax(0)).mean()
        >>> silence_loss("mean", None)(torch.zeros(5, 2, 3), torch.tensor([0, 1]))
        tensor(1.)
    """

    weight: Tensor | None

    def __init__(self, reduction: str, weight: Tensor | None):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"{self.__name__} got reduction={reduction!r}; choose one of {', '.join(REDUCTIONS)}")
        weight = None if weight is None else torch.as_tensor(weight)
        if weight is not None and weight.dim() != 1:
            raise ValueError(f"{self.__name__} got a weight of the shape {list(weight.shape)}; pass [C], one per class")
        self.reduction = reduction
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
