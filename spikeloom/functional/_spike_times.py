"""When neurons fire: their first spike, or their first few, with a gradient, and when they should."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._inputs import Labels, Lengths, Optioned, Steps, as_tensor, chosen, labels_of, read

Target = float | Sequence[float] | Tensor
"""A step; or several, for the first spikes of a neuron. Negative ones count from the end."""


def spike_times(spk: Tensor, steps: Steps, number: int = 1) -> Tensor:
    """The steps of the first spikes of every neuron, [number, B, C], from spk [T, B, C] that `read` has read.

    A spike is what is not zero. A neuron that fires fewer times has the last step for the spikes that it lacks. The
    gradient for a time goes, with its sign turned, to the spike at that step: a larger one would have come earlier.
    """
    last = len(spk) - 1
    dtype = next(kind for kind in (torch.uint8, torch.int16, torch.int32) if last <= torch.iinfo(kind).max)
    countdown = torch.arange(last, -1, -1, dtype=dtype, device=spk.device).view(-1, 1, 1)
    left = spk.bool() * countdown  # steps after each spike; none after the last step, nor where it is silent
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
    """The steps at which output neurons fire first, and the steps at which they should.

    Steps are counted from 0. A neuron that fires too few times has the last step for each spike that it lacks. What is
    not zero is a spike, whatever its size. The gradient for a time goes, with its sign turned, to the spike at that
    step: a larger one would have come earlier.

    Args:
        target_is_time: if True, targets are the steps themselves; if False, class labels.
        on_target: the step at which the neuron of the class is to fire; negative ones count from the end.
        off_target: the same for the other neurons; -1 is the last step.
        tolerance: a time less than this away from its target is taken to be the target.
        multi_spike: if True, on_target and off_target are sequences of F steps, for the first F spikes.

    Call:
        spk_out [T, B, C]; targets [B], labels (-100: all neurons as off_target says), or with target_is_time [B, C],
        with multi_spike [F, B, C]; mask [T, B] or lengths [B]. Returns the times and the wanted times, each [B, C], or
        [F, B, C].

    Raises:
        TypeError: if multi_spike does not go with what on_target and off_target are.
        ValueError: for shapes that do not fit.
        IndexError: if on_target and off_target differ in length, or for a label that is no class.

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
        """The times of the spikes in spk_out [T, B, C], and those that targets want."""
        times, wanted, _ = self.compare(*read(spk_out, self.__name__, "spk_out", mask, lengths), targets)
        return times, wanted

    def compare(self, spk: Tensor, steps: Steps, targets: Labels) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same for spikes that are read already, and the labels [B], if targets are labels."""
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
    """Steps counted from the start, where negative ones count from the end; a number stays one if it can."""
    if isinstance(step, (int, float)) and isinstance(steps.end, int):
        return step + steps.end if step < 0 else step
    step = torch.as_tensor(step)
    step = step if step.is_floating_point() else step.long()  # a narrow integer could not hold the sum
    return torch.where(step < 0, step + steps.end, step)


def _check_targets(owner: str, on_target: Target, off_target: Target, multi_spike: bool) -> None:
    """One step each, or with `multi_spike` equally many."""
    on, off = torch.as_tensor(on_target), torch.as_tensor(off_target)
    if {on.dim(), off.dim()} != {int(multi_spike)}:
        wanted = "sequences of steps, one for each spike" if multi_spike else "one step each, or set multi_spike=True"
        raise TypeError(f"{owner} got on_target={on_target!r} and off_target={off_target!r}; pass {wanted}")
    if on.shape != off.shape:
        raise IndexError(f"{owner} got {len(on)} steps as on_target and {len(off)} as off_target; pass equally many")
