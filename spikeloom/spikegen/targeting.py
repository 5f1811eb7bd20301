"""Class labels as one-hot vectors, and as target spike trains for the output neurons."""

import torch
from torch import Tensor

from ._inputs import checked, given, whole
from .latencies import latency, rate_interpolate

PATTERNS = ("regular", "uniform", "poisson")


def to_one_hot(targets: Tensor, num_classes: int) -> Tensor:
    """Convert labels to one-hot vectors: one_hot[..., c] = 1 where c is the label, else 0.

    Args:
        targets: class labels [*S], from 0 to num_classes - 1. Other labels raise a ValueError.
        num_classes: C.

    Returns:
        [*S, C] in the default dtype.

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
        raise ValueError(f"label {found} is not one of {num_classes} classes; labels are 0 to {len(classes) - 1}")
    return hits.to(torch.get_default_dtype())


def to_one_hot_inverse(one_hot_targets: Tensor) -> Tensor:
    """The complement of one-hot vectors: 1 where the input is 0, else 0; [*S] to [*S] of the same dtype.

    >>> import torch
    >>> from spikeloom import spikegen
    >>> spikegen.to_one_hot_inverse(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    tensor([[1., 1., 0.],
            [0., 1., 1.]])
    """
    one_hot_targets = checked(one_hot_targets, "to_one_hot_inverse")
    return (one_hot_targets == 0).to(one_hot_targets.dtype)


def from_one_hot(one_hot_label: Tensor) -> Tensor:
    """Convert one-hot vectors to labels. The inverse of `to_one_hot`.

    Args:
        one_hot_label: [*S, C], one-hot in the last dimension. Other vectors raise a ValueError.

    Returns:
        labels [*S], int64.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.from_one_hot(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        tensor([2, 0])
    """
    one_hot_label = checked(one_hot_label, "from_one_hot")
    if not one_hot_label.dim():
        raise ValueError("from_one_hot expects vectors of classes, [..., C], got a single number")
    ones = one_hot_label == 1
    one_hot = (ones.sum(-1) == 1) & (ones | (one_hot_label == 0)).all(-1)
    if not bool(one_hot.all()):
        row = one_hot_label[~one_hot][0].tolist()
        raise ValueError(f"the vector {row} is not one-hot; for the index of the maximum use argmax(-1)")
    return ones.int().argmax(-1)


def targets_convert(
    targets: Tensor,
    num_classes: int,
    code: str = "rate",
    num_steps: int | bool = False,
    first_spike_time: int = 0,
    correct_rate: float = 1,
    incorrect_rate: float = 0,
    on_target: float = 1,
    off_target: float = 0,
    firing_pattern: str = "regular",
    interpolate: bool = False,
    epsilon: float = 1e-7,
    threshold: float = 0.01,
    tau: float = 1,
    clip: bool = False,
    normalize: bool = False,
    linear: bool = False,
    bypass: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Convert labels to target spike trains, by `targets_rate` or `targets_latency`.

    Args:
        targets: class labels [*S], from 0 to num_classes - 1.
        num_classes: C.
        code: "rate" or "latency"; for the other arguments see `targets_rate` and `targets_latency`.

    Returns:
        [T, *S, C], or [*S, C] (see `targets_rate`).

    Raises:
        ValueError: for another code, and as `targets_rate` and `targets_latency`.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.targets_convert(torch.tensor([2, 0]), num_classes=3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
        >>> spikegen.targets_convert(torch.tensor([1]), 2, code="latency", num_steps=3, normalize=True).squeeze()
        tensor([[0., 1.],
                [0., 0.],
                [1., 0.]])
    """
    if code == "rate":
        rates = (correct_rate, incorrect_rate, on_target, off_target, firing_pattern, interpolate, epsilon)
        return targets_rate(targets, num_classes, num_steps, first_spike_time, *rates, generator=generator)
    if code == "latency":
        when = (num_steps, first_spike_time, on_target, off_target, interpolate)
        return targets_latency(
            targets, num_classes, *when, threshold, tau, clip, normalize, linear, epsilon=epsilon, bypass=bypass
        )
    raise ValueError(f"code is {code!r}; pass 'rate' or 'latency'")


def targets_rate(
    targets: Tensor,
    num_classes: int,
    num_steps: int | bool = False,
    first_spike_time: int = 0,
    correct_rate: float = 1,
    incorrect_rate: float = 0,
    on_target: float = 1,
    off_target: float = 0,
    firing_pattern: str = "regular",
    interpolate: bool = False,
    epsilon: float = 1e-7,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Convert labels to spike trains with one rate for the neuron of the correct class and another for the others.

    `target_rate_code` generates one train per rate, which all samples share:

    out[t, b, c] = on_target if the train of c (correct or incorrect for b) has a spike at t, else off_target.

    With the defaults correct_rate=1 and incorrect_rate=0, the correct neuron fires at each step from first_spike_time
    on, and the others never. firing_pattern and interpolate then have no effect. If first_spike_time is 0 too, all
    steps are equal, and the result has no time dimension.

    Args:
        targets: class labels [*S], from 0 to num_classes - 1.
        num_classes: C.
        num_steps: T; optional if the result has no time dimension.
        first_spike_time: number of silent steps at the beginning. Default: 0.
        correct_rate: spikes per step of the correct neuron, in [0, 1]. Default: 1.
        incorrect_rate: spikes per step of the others, in [0, correct_rate]. Default: 0.
        on_target: value at a spike. Default: 1.
        off_target: value elsewhere. With the default rates an incorrect neuron has max(0, off_target) if
            on_target > off_target, as in snnTorch. Default: 0.
        firing_pattern: "regular", "uniform" or "poisson", see `target_rate_code`. Default: "regular".
        interpolate: if True, a ramp precedes each spike, see `rate_interpolate`.
        epsilon: no effect; for compatibility with snnTorch.
        generator: source of random numbers. Default: PyTorch's global generator.

    Returns:
        [T, *S, C], or [*S, C] without time dimension, in the default dtype.

    Raises:
        ValueError: for a label outside of the classes, rates outside [0, 1], incorrect_rate > correct_rate, another
            firing_pattern, or a first_spike_time that is negative or after the end; if num_steps is missing.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> out = spikegen.targets_rate(torch.tensor([1]), 2, num_steps=6, correct_rate=0.5, incorrect_rate=0.2)
        >>> out.squeeze()
        tensor([[1., 1.],
                [0., 0.],
                [0., 1.],
                [0., 0.],
                [0., 1.],
                [1., 0.]])
    """
    first = whole(first_spike_time, "first_spike_time")
    if not 0 <= incorrect_rate <= correct_rate <= 1:
        raise ValueError(
            f"correct_rate is {correct_rate}, incorrect_rate {incorrect_rate}; pass 0 <= incorrect <= correct <= 1"
        )
    _check_pattern(firing_pattern)
    right = to_one_hot(targets, num_classes)
    clamped = (right * on_target).clamp(min=off_target)
    always = (correct_rate, incorrect_rate) == (1, 0)
    if always and not first:
        return clamped if on_target > off_target else _chosen(right == 1, on_target, off_target)
    steps = given(num_steps)
    if steps is None:
        raise ValueError("targets_rate needs num_steps, unless correct_rate=1, incorrect_rate=0 and first_spike_time=0")
    if always:
        out = clamped.expand(steps, *right.shape).clone()
        out[:first] = off_target
        return out

    def train(rate: float) -> Tensor:
        spk, times = target_rate_code(steps, first, rate, firing_pattern, generator=generator)
        if interpolate:
            spk = rate_interpolate(times, steps, on_target, off_target)
        else:
            spk = _chosen(spk > 0, on_target, off_target)
        return spk.to(right).reshape(-1, *[1] * right.dim())

    correct, incorrect = train(correct_rate), train(incorrect_rate)
    return torch.where(right == 1, correct, incorrect)


def targets_latency(
    targets: Tensor,
    num_classes: int,
    num_steps: int | bool = False,
    first_spike_time: int = 0,
    on_target: float = 1,
    off_target: float = 0,
    interpolate: bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    clip: bool = False,
    normalize: bool = False,
    linear: bool = False,
    epsilon: float = 1e-7,
    bypass: bool = False,
) -> Tensor:
    """Convert labels to one spike per neuron by `latency` of the one-hot labels: the correct neuron fires first.

    Args:
        targets, num_classes: see `to_one_hot`; for the others see `latency`.

    Returns:
        [T, *S, C] in the default dtype.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.targets_latency(torch.tensor([1]), 2, num_steps=3, normalize=True, clip=True).squeeze()
        tensor([[0., 1.],
                [0., 0.],
                [0., 0.]])
    """
    levels = (on_target, off_target, clip, normalize, linear, interpolate, bypass, epsilon)
    return latency(to_one_hot(targets, num_classes), num_steps, threshold, tau, first_spike_time, *levels)


def target_rate_code(
    num_steps: int,
    first_spike_time: int = 0,
    rate: float = 1,
    firing_pattern: str = "regular",
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Generate one spike train with a given rate.

    | firing_pattern | spikes                                                                              |
    | -------------- | ----------------------------------------------------------------------------------- |
    | "regular"      | at floor(first_spike_time + i / rate), i = 0, 1, ...                                |
    | "uniform"      | the same number, each at a step drawn uniformly; two may fall on the same step      |
    | "poisson"      | at each step with probability `rate`                                                |

    Args:
        num_steps: T.
        first_spike_time: step before which no spike occurs, at most num_steps (no spikes). Default: 0.
        rate: spikes per step, in [0, 1]. Default: 1.
        firing_pattern: see above. Default: "regular".
        generator: source of random numbers. Default: PyTorch's global generator.

    Returns:
        (train, times): a tensor [T] of 0 and 1 in the default dtype, and the spike times, int64, in the order drawn and
        with duplicates.

    Raises:
        ValueError: for a rate outside [0, 1], another firing_pattern, or a first_spike_time that is negative or greater
            than num_steps.

        >>> from spikeloom import spikegen
        >>> spikegen.target_rate_code(num_steps=8, first_spike_time=1, rate=0.4)
        (tensor([0., 1., 0., 1., 0., 0., 1., 0.]), tensor([1, 3, 6]))
    """
    steps, first = whole(num_steps, "num_steps"), whole(first_spike_time, "first_spike_time")
    if first > steps:
        raise ValueError(f"first_spike_time is {first}, greater than num_steps={steps}; pass at most {steps}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; pass 0 to 1 spikes per step")
    _check_pattern(firing_pattern)
    times = _drawn(firing_pattern, steps, first, rate, generator) if rate else torch.zeros(0, dtype=torch.int64)
    return torch.zeros(steps, device=times.device).index_fill_(0, times, 1), times


def _check_pattern(name: str) -> None:
    if name not in PATTERNS:
        raise ValueError(f"firing_pattern is {name!r}; pass one of {', '.join(map(repr, PATTERNS))}")


def _drawn(pattern: str, steps: int, first: int, rate: float, generator: torch.Generator | None) -> Tensor:
    """The spike times of a train."""
    regular, device = torch.arange(first, steps, 1 / rate).long(), None if generator is None else generator.device
    if pattern == "regular":
        return regular
    if pattern == "uniform":
        return (torch.rand(len(regular), generator=generator, device=device) * (steps - first) + first).long()
    fired = torch.bernoulli(torch.full((steps,), float(rate), device=device), generator=generator)
    return fired[first:].nonzero().flatten() + first


def _chosen(fired: Tensor, on: float, off: float) -> Tensor:
    return torch.where(fired, on, off).to(torch.get_default_dtype())
