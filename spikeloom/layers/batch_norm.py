"""Batch normalization through time: one norm per step."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._torch import exporting
from ..neurons._state import refuse_misplaced, restarted
from ._over_time import OverTime


class _BatchNormTT(OverTime, nn.ModuleList):
    kind: ClassVar[type[nn.Module]]
    step: int

    def __init__(
        self,
        input_features: int,
        time_steps: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ):
        if isinstance(time_steps, bool) or not hasattr(time_steps, "__index__"):
            raise TypeError(f"{self._label()} got time_steps={time_steps!r}; pass a whole number of time steps")
        super().__init__(self.kind(input_features, eps, momentum, affine) for _ in range(time_steps))
        for norm in self:
            norm.register_parameter("bias", None)
        self.step = 0

    def over_time(self, x: Tensor) -> Tensor:
        """Normalize each step of [T, B, C, ...] with its own norm; returns the same shape."""
        if exporting():
            return self._recorded(x)
        refuse_misplaced(self, begun=self.step > 0)
        first, last = self.step, self.step + len(x)
        if last > len(self):
            raise IndexError(
                f"{self._label()} has {len(self)} norms, one per time step, and was called for step {last}; make it "
                "with more time_steps, or call spikeloom.utils.reset(net) before each sequence"
            )
        if not len(x):
            return x
        out = torch.stack([self[first + t](x_t) for t, x_t in enumerate(x.unbind(0))])
        self.step = last
        return out

    def _recorded(self, x: Tensor) -> Tensor:
        """The same while torch exports, for any number of steps: the statistics are gathered by step."""
        norms: list[Any] = list(self)
        if self.training or any(norm.running_mean is None for norm in norms):
            raise RuntimeError(
                f"{self._label()} normalizes by the statistics of a batch, which an exported network cannot; "
                "call net.eval() first"
            )
        scales = [torch.rsqrt(n.running_var + n.eps) * (1 if n.weight is None else n.weight) for n in norms]
        shifts = [-n.running_mean * scale for n, scale in zip(norms, scales, strict=True)]
        steps = torch.arange(x.shape[0], device=x.device) + self.step
        shape = (-1, 1, len(scales[0]), *[1] * (x.dim() - 3))
        scale, shift = (torch.stack(every)[steps].view(shape).to(x.dtype) for every in (scales, shifts))
        self.step = self.step + x.shape[0]
        return x * scale + shift

    def _carried(self) -> tuple[str, ...]:
        return ("step",)

    def reset_mem(self) -> None:
        """Restart at the norm of the first step; the running statistics are preserved."""
        restarted(self)
        self.step = 0

    def __getitem__(self, index: Any) -> Any:
        # a slice is a plain list, as in snnTorch: it would not know its first step
        return nn.ModuleList(list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)


class BatchNormTT1d(_BatchNormTT):
    """Batch normalization through time of features: a list of `time_steps` BatchNorm1d without bias, one per step.

    ``bntt[t](x)`` normalizes with the norm of step t. ``bntt(x)`` normalizes with the norm of the next step and
    advances a step counter, which `spikeloom.utils.reset` sets back to 0. The layer can therefore be part of an
    ``nn.Sequential``; each step has its own statistics, in a loop over steps and under `spikeloom.unroll`.

    Args:
        input_features: C, the number of features.
        time_steps: number of steps, each with a norm.
        eps: value added to the variance.
        momentum: momentum of the running statistics.
        affine: if True, each norm learns a weight per feature.

    Shapes:
        x, one step, [B, C] or [B, C, L]; returns the same shape. For a sequence [T, B, C], use ``unroll(bntt, x)``.

    Raises:
        IndexError: at a step beyond `time_steps`; the layer is left unchanged.

    Source: Kim and Panda, "Revisiting batch normalization for training low-latency deep spiking neural networks from
    scratch", 2021.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.BatchNormTT1d(4, time_steps=25), snn.Leaky(
        ...     beta=0.9, init_hidden=True))
        >>> snn.unroll(net, torch.rand(25, 8, 3)).shape
        torch.Size([25, 8, 4])
        >>> net[1].step
        25
    """

    kind = nn.BatchNorm1d


class BatchNormTT2d(_BatchNormTT):
    """Batch normalization through time of images: a list of `time_steps` BatchNorm2d without bias, one per step.

    Arguments, errors and source are those of `BatchNormTT1d`; input_features is the number of channels.

    Shapes:
        x, one step, [B, C, H, W]; returns the same shape. For a sequence [T, B, C, H, W], use ``unroll(bntt, x)``.

        >>> import torch, spikeloom as snn
        >>> bntt = snn.BatchNormTT2d(2, time_steps=25)
        >>> torch.equal(bntt(torch.ones(8, 2, 5, 5)), bntt[0](torch.ones(8, 2, 5, 5)))
        True
    """

    kind = nn.BatchNorm2d
