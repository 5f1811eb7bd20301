"""Class labels: integers of any kind; samples with the label -100 are ignored; other labels raise an error."""

import numpy as np
import pytest
import torch

from spikeloom import functional

from ..each import for_each

T, B, C = 6, 5, 3
LABELS = torch.tensor([2, 0, 1, 1, 2])
KEPT = torch.tensor([0, 2, 3])
LEFT_OUT = torch.tensor([2, -100, 1, 1, -100])

ACCURACIES = {name: getattr(functional, name) for name in ("accuracy_rate", "accuracy_temporal")}
LOSSES = {
    name: getattr(functional, name)
    for name in (
        "ce_rate_loss",
        "ce_count_loss",
        "ce_max_membrane_loss",
        "ce_temporal_loss",
        "mse_count_loss",
        "mse_membrane_loss",
        "mse_temporal_loss",
    )
}
ALL = {**ACCURACIES, **{name: make() for name, make in LOSSES.items()}}
KINDS = {
    **{str(d): LABELS.to(d) for d in (torch.uint8, torch.int8, torch.int32, torch.uint16, torch.float32)},
    "array": LABELS.numpy(),
    "array of int32": LABELS.numpy().astype(np.int32),
    "reversed array": LABELS.flip(0).numpy()[::-1],
    "list": LABELS.tolist(),
    "tuple": tuple(LABELS.tolist()),
    "list of tensors": list(LABELS),
    "list of arrays": list(LABELS.numpy()),
}


def spikes(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(T, B, C, generator=torch.Generator().manual_seed(3)) < 0.4).to(dtype)


@for_each("kind", KINDS)
@for_each("name", ALL)
def test_labels_may_come_as_any_whole_numbers(name, kind):
    assert np.array_equal(np.asarray(ALL[name](spikes(), KINDS[kind])), np.asarray(ALL[name](spikes(), LABELS)))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int64, torch.uint16, torch.float16], ids=str
)
@pytest.mark.parametrize("name", ALL)
def test_spikes_may_come_as_any_numbers(name, dtype):
    assert np.array_equal(np.asarray(ALL[name](spikes(dtype), LABELS)), np.asarray(ALL[name](spikes(), LABELS)))


@for_each("labels", [LABELS, LABELS.tolist(), LABELS.numpy()])
@for_each("name", ALL)
def test_time_and_batch_in_the_other_order_are_recognized_by_the_number_of_labels(name, labels):
    message = r"of the shape \[5, 6, 3\], which is T = 5 steps of B = 6 samples, and 5 targets.*transpose\(0, 1\)"
    with pytest.raises(ValueError, match=message):
        ALL[name](spikes().transpose(0, 1), labels)


@for_each("label", [3, 7, -1, -99])
@for_each("name", ALL)
def test_a_label_of_no_class_is_refused(name, label):
    with pytest.raises(IndexError, match=rf"got the target {label}; pass labels of its 3 classes, 0 to 2"):
        ALL[name](spikes(), torch.tensor([0, 1, label, 1, 2]))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("01210", TypeError, "got targets of type str"),
        (["a", "b", "c", "a", "b"], TypeError, "got targets of type list"),
        (None, TypeError, "got targets of type NoneType"),
        ([0, 1], ValueError, r"targets of the shape \[2\]; pass class labels, \[5\]"),
        ([0.5, 1, 1, 1, 1], ValueError, "not integers"),
        (torch.full((B,), torch.nan), ValueError, "not integers"),
        (torch.zeros(B, dtype=torch.complex64), ValueError, "complex64"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_what_are_no_labels_is_refused(name, targets, error, message):
    with pytest.raises(error, match=message):
        ALL[name](spikes(), targets)


@for_each("x", [[[[1.0]]], np.zeros((T, B, C)), [torch.zeros(B, C)] * T, torch.zeros(T, B, C).cfloat()])
@for_each("name", ALL)
def test_what_is_no_tensor_of_spikes_is_refused(name, x):
    with pytest.raises(TypeError, match="pass a tensor of real numbers"):
        ALL[name](x, LABELS)


@pytest.mark.parametrize("name", ACCURACIES)
def test_accuracies_leave_out_ignored_samples(name):
    accuracy, x = ACCURACIES[name], spikes()
    assert accuracy(x, LEFT_OUT) == accuracy(x[:, KEPT], LABELS[KEPT])
    assert accuracy(x, LEFT_OUT.numpy()) == accuracy(x, LEFT_OUT)
    assert np.isnan(accuracy(x, torch.full((B,), -100)))
    assert np.isnan(accuracy(x[:, :0], LABELS[:0]))


@for_each("reduction", ["mean", "sum", "none"])
@for_each("name", LOSSES)
def test_losses_leave_out_ignored_samples(name, reduction):
    loss = LOSSES[name](reduction=reduction)
    x, alone = spikes().requires_grad_(), spikes()[:, KEPT].requires_grad_()
    got, wanted = loss(x, LEFT_OUT), loss(alone, LABELS[KEPT])
    if reduction == "none":
        got, rest = got[..., KEPT, :] if got.dim() > 1 else got[KEPT], got.sum() - wanted.sum()
        assert rest.abs() < 1e-6
    assert torch.allclose(got, wanted)
    (grad,), (grad_alone,) = torch.autograd.grad(got.sum(), x), torch.autograd.grad(wanted.sum(), alone)
    assert torch.allclose(grad[:, KEPT], grad_alone)
    assert not grad[:, [1, 4]].any()


def test_ignored_samples_may_hold_anything():
    x = spikes()
    x[:, [1, 4]] = torch.nan
    for name in ("mse_count_loss", "mse_membrane_loss"):
        assert LOSSES[name]()(x, LEFT_OUT).isfinite().all()


@pytest.mark.parametrize("normalize", [True, False])
def test_weighted_squared_errors_leave_out_ignored_samples(normalize):
    loss = functional.mse_count_loss(weight=torch.tensor([0.5, 2.0, 3.0]), normalize_weight=normalize)
    assert torch.allclose(loss(spikes(), LEFT_OUT), loss(spikes()[:, KEPT], LABELS[KEPT]))


def test_labels_over_time_leave_out_steps():
    mem = torch.rand(T, B, C, generator=torch.Generator().manual_seed(0))
    labels = LABELS.repeat(T, 1)
    loss = functional.mse_membrane_loss(time_var_targets=True, reduction="none")
    counts = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.6
    counts[0], counts[:, 2] = True, False
    got = loss(mem, torch.where(counts, labels, -100))
    counts[:, 2] = True
    wanted = loss(mem, labels, mask=counts)
    wanted[2] = 0
    assert torch.allclose(got, wanted)
    mean = functional.mse_membrane_loss(time_var_targets=True)
    counts[:, 2] = False
    assert torch.allclose(mean(mem, torch.where(counts, labels, -100)), wanted.sum().reshape(1) / (4 * C))


def test_narrow_integers_as_wanted_steps_count_from_the_end():
    x = torch.zeros(200, 1, 2)
    x[:3, 0, 0] = 1
    on = torch.tensor([-1, -2], dtype=torch.int8)
    times = [functional.SpikeTime(on_target=o, off_target=o, multi_spike=True)(x, [0])[1] for o in (on, on.tolist())]
    assert torch.equal(*times)
    assert times[0].flatten().tolist() == [199, 199, 198, 198]
