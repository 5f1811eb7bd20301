"""Sequences of different lengths: each sample as if it were alone, whatever stands in the steps that do not count."""

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeloom import functional

from ..each import for_each
from ..oracle import assert_close
from . import plain
from .cases import CASES, DEFAULTS, LABELS, B, Case, T

LENGTHS = [T, 3, 1, 6, T - 1]
MASK = torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS)
PENALTIES = [
    functional.l1_rate_sparsity(0.1),
    functional.rate_lower_bound(0.9),
    functional.rate_upper_bound(0.1),
    functional.rate_upper_bound(0.1, per_neuron=True),
]
BY_DEFAULTS = for_each("case", DEFAULTS)
BY_PADDING = for_each("padding", [0.0, 1.0, torch.nan, torch.inf])


def padded(x: Tensor, padding: float) -> Tensor:
    return x.masked_fill(~MASK.unsqueeze(2), padding)


@for_each("case", CASES)
def test_a_padded_batch_is_that_of_plain_python_on_the_samples_alone(case):
    x = case.inputs()
    samples = [x[:length, b].tolist() for b, length in enumerate(LENGTHS)]
    wanted = torch.tensor(plain.loss(case.name, samples, LABELS.tolist(), **case.options), dtype=torch.float64)
    got = case.make()(padded(x, 1.0), LABELS, lengths=LENGTHS)
    assert_close(got.squeeze() if got.numel() == 1 else got, wanted, str(case))


@pytest.mark.parametrize("rate", [0.1, 0.29, 0.57, 0.7])
def test_counts_that_are_wanted_are_rounded_as_without_padding(rate):
    """At every length: where the product of rate and length is all but whole, the order of the factors tells."""
    loss, number = functional.mse_count_loss(rate, 0, True, 2, reduction="none"), 60
    labels = torch.zeros(number, dtype=torch.long)
    got = loss(torch.zeros(number, number, 14), labels, lengths=range(1, number + 1))
    alone = [loss(torch.zeros(length, 1, 14), labels[:1]) for length in range(1, number + 1)]
    assert_close(got, torch.cat(alone), "loss")


@BY_DEFAULTS
@BY_PADDING
def test_what_stands_in_the_padding_has_no_effect_and_gets_no_gradient(case, padding):
    loss, clean = case.make(), padded(case.inputs(), 0.0).requires_grad_()
    x = padded(case.inputs(), padding).requires_grad_()
    got, wanted = (loss(value, LABELS, mask=MASK) for value in (x, clean))
    assert_close(got, wanted, "loss", exact=True)
    of_x, of_clean = (torch.autograd.grad(value, of)[0] for value, of in ((got, x), (wanted, clean)))
    assert_close(of_x, of_clean, "gradient", exact=True)
    assert not of_x[~MASK].any()


@BY_DEFAULTS
@pytest.mark.parametrize(
    "lengths",
    [LENGTHS, tuple(LENGTHS), np.array(LENGTHS), torch.tensor(LENGTHS), torch.tensor(LENGTHS).byte()],
    ids=type,
)
def test_lengths_and_their_mask_are_one(case, lengths):
    by_lengths, by_mask = (case.make()(case.inputs(), LABELS, **o) for o in ({"lengths": lengths}, {"mask": MASK}))
    assert_close(by_lengths, by_mask, str(case), exact=True)


@BY_DEFAULTS
def test_when_all_steps_count_nothing_changes(case):
    wanted = case.make()(case.inputs(), LABELS)
    assert_close(case.make()(case.inputs(), LABELS, lengths=[T] * B), wanted, "lengths")
    assert_close(case.make()(case.inputs(), LABELS, mask=torch.ones(T, B, dtype=torch.bool)), wanted, "mask")


@BY_DEFAULTS
def test_a_mask_may_leave_out_the_first_steps(case):
    """As in a network that needs some steps to settle. Times still count from the first step."""
    x, mask = case.inputs(), torch.ones(T, B, dtype=torch.bool)
    mask[:2] = False
    got = case.make()(x, LABELS, mask=mask)
    if case.name.endswith("temporal_loss"):
        silent = x.clone()
        silent[:2] = 0
        assert_close(got, case.make()(silent, LABELS), str(case))
    else:
        assert_close(got, case.make()(x[2:], LABELS), str(case))


def test_labels_over_time_may_be_anything_in_the_padding():
    loss = functional.mse_membrane_loss(time_var_targets=True)
    x = DEFAULTS[0].inputs()
    labels = LABELS.repeat(T, 1)
    levels = torch.rand(T, B, x.shape[2])
    for targets, anything in ((labels, -1), (levels, torch.nan)):
        wanted = loss(x, targets, mask=MASK)
        spoilt = torch.where(MASK if targets.dim() == 2 else MASK.unsqueeze(2), targets, anything)
        assert_close(loss(x, spoilt, mask=MASK), wanted, "loss")


@BY_PADDING
def test_accuracies(padding):
    x = padded(DEFAULTS[0].inputs(), padding)
    for accuracy in (functional.accuracy_rate, functional.accuracy_temporal):
        alone = [accuracy(x[:length, b : b + 1], LABELS[b : b + 1]) for b, length in enumerate(LENGTHS)]
        assert accuracy(x, LABELS, lengths=LENGTHS) == accuracy(x, LABELS, mask=MASK) == pytest.approx(np.mean(alone))


def test_a_wrong_neuron_that_fires_in_the_padding_alone_does_not_win():
    lengths, labels = [3, 5], torch.tensor([1, 1])
    spk = torch.zeros(8, 2, 2)
    spk[3:, 0, 0] = spk[5:, 1, 0] = 1
    spk[1, :, 1] = 1
    assert functional.accuracy_rate(spk, labels) == 0
    assert functional.accuracy_rate(spk, labels, lengths=lengths) == 1
    backwards = spk.flip(0)  # so that the padding comes first
    assert functional.accuracy_temporal(backwards, labels) == 0
    mask = torch.arange(8).flip(0).unsqueeze(1) < torch.tensor(lengths)
    assert functional.accuracy_temporal(backwards, labels, mask=mask) == 1


@for_each("penalty", PENALTIES)
@BY_PADDING
def test_penalties(penalty, padding):
    x = padded(DEFAULTS[0].inputs(), padding)
    alone = torch.stack([penalty(x[:length, b : b + 1]) for b, length in enumerate(LENGTHS)])
    wanted = alone.sum() if isinstance(penalty, functional.l1_rate_sparsity) else alone.mean()
    assert_close(penalty(x, lengths=LENGTHS), wanted, repr(penalty))
    assert_close(penalty(x.view(T, B, 2, 3), mask=MASK), wanted, "more axes")


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "both": ({"mask": MASK, "lengths": LENGTHS}, "got both mask and lengths; pass one of them"),
    "a mask of numbers": (
        {"mask": MASK.float()},
        r"got a mask of torch.float32 .*pass torch.bool and \[9, 5\], \[T, B\]",
    ),
    "batch first": ({"mask": MASK.T}, r"got a mask of torch.bool and the shape \[5, 9\]; pass torch.bool and \[9, 5\]"),
    "no step": (
        {"mask": MASK & (torch.arange(B) > 0)},
        "got a mask in which a sample has no step that counts; remove that sample",
    ),
    "a length of zero": ({"lengths": [9, 0, 1, 1, 1]}, "got lengths that are not all in 1 to T = 9"),
    "too long": ({"lengths": [9, 10, 1, 1, 1]}, "got lengths that are not all in 1 to T = 9"),
    "too few": ({"lengths": [9, 1]}, r"got lengths of torch.int64 and the shape \[2\]; pass integers .*\[5\]"),
    "shares": ({"lengths": torch.rand(B)}, r"got lengths of torch.float32 and the shape \[5\]; pass integers"),
}


@for_each("which", REFUSED)
@for_each("case", [*DEFAULTS, "accuracy_rate", "accuracy_temporal", "rate_upper_bound"])
def test_refused_by_a_sentence(case, which):
    options, message = REFUSED[which]
    name = case.name if isinstance(case, Case) else case
    calls = {
        "accuracy_rate": functional.accuracy_rate,
        "accuracy_temporal": functional.accuracy_temporal,
        "rate_upper_bound": lambda x, labels, **o: functional.rate_upper_bound()(x, **o),
    }
    call = case.make() if isinstance(case, Case) else calls[name]
    with pytest.raises(ValueError, match=f"{name} {message}"):
        call(DEFAULTS[0].inputs(), LABELS, **options)
