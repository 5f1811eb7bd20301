"""Spike times: the first spikes of each neuron, with a gradient, and their targets."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._inputs import Labels, Lengths, Optioned, Steps, as_tensor, chosen, labels_of, read

Target = float | Sequence[float] | Tensor
"""One step, or several for the first spikes of a neuron. Negative steps count from the end."""


def spike_times(spk: Tensor, steps: Steps, number: int = 1) -> Tensor:
    """The steps of the first spikes of every neuron, [number, B, C], from spk [T, B, C] as returned by `read`.

    Any nonzero value is a spike. Missing spikes have the last step as their time. The gradient of a time is passed to
    the spike at that step with opposite sign, because a larger membrane would have fired earlier.
    """
    last = len(spk) - 1
    dtype = next(kind for kind in (torch.uint8, torch.int16, torch.int32) if last <= torch.iinfo(kind).max)
    countdown = torch.arange(last, -1, -1, dtype=dtype, device=spk.device).view(-1, 1, 1)
    left = spk.bool() * countdown  # steps left after each spike; 0 at the last step and where there is no spike
    found: list[Tensor] = []
    for _ in range(number):
        if found:
            left.scatter_(0, found[-1], 0)
        found.append((last - left.amax(0, keepdim=True)).long())
    at = torch.cat(found) if number > 1 else found[0]
    if steps.mask is not None:
        at = at.clamp(max=steps.end - 1)
    spike = spk.gather(0, at)
    return at.to(spk.dtype) - (spike - spike.detach())


class SpikeTime(Optioned):
    """The times of the first spikes of the output neurons, and their target times.

    Times are steps, counted from 0. Any nonzero value is a spike. Missing spikes have the last step as their time. The
    gradient of a time is passed to the spike at that step with opposite sign, because a larger membrane would have
    fired earlier.

    Args:
        target_is_time: if True, targets are steps; if False, class labels. Default: False.
        on_target: target step of the neuron of the class; negative steps count from the end. Default: 0.
        off_target: target step of the other neurons. Default: -1, the last step.
        tolerance: times closer than this to their target are replaced by the target. Default: 0.
        multi_spike: if True, on_target and off_target are sequences of F steps, for the first F spikes.

    Call:
        spk_out [T, B, C]; targets [B], labels (-100: off_target for all neurons), or with target_is_time [B, C], with
        multi_spike [F, B, C]; mask [T, B] or lengths [B]. Returns the times and the target times, each [B, C], or
        [F, B, C].

    Raises:
        TypeError: if on_target and off_target are not sequences with multi_spike, or not numbers without.
        ValueError: for shapes that do not match.
        IndexError: if on_target and off_target differ in length, or for a label outside of the classes.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(6, 1, 3)
        >>> spk[[1, 3], 0, 0] = 1
        >>> spk[2, 0, 1] = 1
        >>> SF.SpikeTime(on_target=0, off_target=-1)(spk, torch.tensor([0]))
        (tensor([[1., 2., 5.]]), tensor([[0., 5., 5.]]))
    """

    def __init__(
        self,
        target_is_time: bool = False,
        on_target: Target = 0,
        off_target: Target = -1,
        tolerance: float = 0,
        multi_spike: bool = False,
    ):
        super().__init__()
        if not target_is_time:
            _check_targets(self.__name__, on_target, off_target, multi_spike)
        self.target_is_time, self.tolerance, self.multi_spike = target_is_time, tolerance, multi_spike
        self.on_target, self.off_target = on_target, off_target

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the times of the spikes in spk_out [T, B, C] and the target times."""
        times, wanted, _ = self.compare(*read(spk_out, self.__name__, "spk_out", mask, lengths), targets)
        return times, wanted

    def compare(self, spk: Tensor, steps: Steps, targets: Labels) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return spike times, target times, and the labels [B] if targets are labels, for spikes already converted."""
        labels = None
        if self.target_is_time:
            given = as_tensor(targets, spk, self.__name__)
            if given.shape[-2:] != spk.shape[1:] or given.dim() != 2 + self.multi_spike or not len(given):
                shape = f"{'F, ' if self.multi_spike else ''}{spk.shape[1]}, {spk.shape[2]}"
                raise ValueError(f"{self.__name__} got times of the shape {list(given.shape)}; pass [{shape}]")
            wanted = _from_start(given.to(spk), steps)
        else:
            labels = labels_of(targets, (spk.shape[1],), spk.shape[2], spk, self.__name__)
            on, off = self.on_target, self.off_target
            if self.multi_spike:
                on, off = (torch.as_tensor(train).view(-1, 1, 1) for train in (on, off))
            wanted = chosen(labels, spk.shape[2], _from_start(on, steps), _from_start(off, steps), spk)
        times = spike_times(spk, steps, len(wanted)) if self.multi_spike else spike_times(spk, steps).squeeze(0)
        if self.tolerance:
            near = (times - wanted).abs() < self.tolerance
            times = torch.where(near, times - times.detach() + wanted, times)
        return times, wanted, labels


def _from_start(step: Any, steps: Steps) -> Any:
    """Convert negative steps, which count from the end, to steps from the start; keeps numbers if possible."""
    if isinstance(step, (int, float)) and isinstance(steps.end, int):
        return step + steps.end if step < 0 else step
    step = torch.as_tensor(step)
    step = step if step.is_floating_point() else step.long()  # narrow integers could overflow in the sum
    return torch.where(step < 0, step + steps.end, step)


def _check_targets(owner: str, on_target: Target, off_target: Target, multi_spike: bool) -> None:
    """Check that the targets are one step each, or with `multi_spike` sequences of equal length."""
    on, off = torch.as_tensor(on_target), torch.as_tensor(off_target)
    if {on.dim(), off.dim()} != {int(multi_spike)}:
        wanted = "sequences of steps, one for each spike" if multi_spike else "one step each, or set multi_spike=True"
        raise TypeError(f"{owner} got on_target={on_target!r} and off_target={off_target!r}; pass {wanted}")
    if on.shape != off.shape:
        raise IndexError(f"{owner} got {len(on)} steps as on_target and {len(off)} as off_target; pass the same number")
