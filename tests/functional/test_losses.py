"""Every loss against plain Python, over the product of its options; gradients; what comes in and what goes out."""

import pytest
import torch

from spikeloom import functional

from ..each import for_each
from ..oracle import assert_close
from . import plain
from .cases import CASES, DEFAULTS, LABELS, NAMES, ON_MEMBRANES, B, C, Case, T

TEMPORAL = ("ce_temporal_loss", "mse_temporal_loss")


@for_each("case", CASES)
def test_a_loss_is_that_of_plain_python(case):
    x = case.inputs()
    samples = [x[:, b].tolist() for b in range(B)]
    wanted = torch.tensor(plain.loss(case.name, samples, LABELS.tolist(), **case.options), dtype=torch.float64)
    got = case.make()(x, LABELS)
    assert_close(got.squeeze() if got.numel() == 1 else got, wanted, str(case))


@for_each("case", [case for case in CASES if case.name not in TEMPORAL])
def test_gradients_are_those_of_the_value(case):
    loss = case.make()
    x = torch.rand(2, B, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), x)


@for_each("case", [case for case in CASES if case.name in TEMPORAL])
def test_gradients_of_times_go_to_the_spikes_with_their_sign_turned(case):
    """The loss as a function of times alone tells what the spikes at these times must get."""
    loss, x = case.make(), case.inputs().requires_grad_()
    (got,) = torch.autograd.grad(loss(x, LABELS).sum(), x)
    number = len(case.options["on_target"]) if case.options.get("multi_spike") else 1
    fired = [[plain.times_of(x[:, b].tolist(), c, number) for c in range(C)] for b in range(B)]
    times = torch.tensor(fired, dtype=torch.float64, requires_grad=True)
    (of_times,) = torch.autograd.grad(by_times(case, times).sum(), times)
    wanted = torch.zeros_like(x)
    for b in range(B):
        for c in range(C):
            for k in range(number):
                wanted[fired[b][c][k], b, c] -= of_times[b, c, k]
    assert_close(got, wanted, str(case))
    assert got.any()


def by_times(case: Case, times: torch.Tensor) -> torch.Tensor:
    """A temporal loss of times [B, C, F], from the functions of PyTorch."""
    options = {"on_target": 0, "off_target": -1, "tolerance": 0, "inverse": "negate", **case.options}
    weight = torch.tensor(options.get("weight") or [1.0] * C, dtype=torch.float64)
    if case.name == "ce_temporal_loss":
        scores = (-times if options["inverse"] == "negate" else 1 / (times + 1))[:, :, 0]
        losses, share = torch.nn.functional.cross_entropy(scores, LABELS, weight, reduction="none"), 1
        normalize = options.get("normalize_weight", True)
    else:
        hot = (LABELS.unsqueeze(1) == torch.arange(C)).unsqueeze(2)
        on, off = (torch.tensor(options[key]).view(-1) for key in ("on_target", "off_target"))
        wanted = torch.where(hot, on, off) % T
        away = torch.where((times - wanted).abs() < options["tolerance"], 0.0, times - wanted)
        losses, share = (away / T) ** 2 * weight[LABELS].view(-1, 1, 1), C * times.shape[2]
        normalize = options.get("normalize_weight", False)
    if options["reduction"] != "mean":
        return losses
    return losses.sum() / (weight[LABELS].sum() if normalize else B) / share


# -- times that are given ----------------------------------------------------------------------------------------------

GIVEN = torch.tensor([[0, 3, -1, 2, 2, -9]] * B)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64], ids=str)
def test_given_times_count_from_the_end_if_negative_and_are_left_alone(dtype):
    case, given = Case("mse_temporal_loss", {"target_is_time": True, "reduction": "none"}), GIVEN.to(dtype)
    times, wanted = functional.SpikeTime(target_is_time=True)(case.inputs(), given)
    assert wanted.tolist() == [[0, 3, T - 1, 2, 2, 0]] * B
    assert_close(case.make()(case.inputs(), given), ((times - wanted) / T) ** 2, "loss")
    assert torch.equal(given, GIVEN.to(dtype))


def test_given_times_of_several_spikes():
    given = torch.stack([GIVEN, GIVEN.abs()])
    times, wanted = functional.SpikeTime(target_is_time=True, multi_spike=True)(DEFAULTS[0].inputs(), given)
    assert times.shape == wanted.shape == (2, B, C)
    assert wanted[1].tolist() == [[0, 3, 1, 2, 2, 9]] * B


def test_more_spikes_may_be_asked_for_than_there_are_steps():
    spk = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1).requires_grad_()
    times, _ = functional.SpikeTime(multi_spike=True, on_target=[0] * 5, off_target=[0] * 5)(spk, torch.tensor([0]))
    assert times.flatten().tolist() == [0, 2, 2, 2, 2]
    times.sum().backward()
    assert spk.grad.flatten().tolist() == [-1, 0, -4]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ce_")])
def test_many_classes(name):
    x, labels = torch.rand(T, B, 40, dtype=torch.float64).gt(0.8).double(), torch.tensor([39, 0, 7, 20, 16])
    wanted = plain.loss(name, [x[:, b].tolist() for b in range(B)], labels.tolist())
    assert_close(getattr(functional, name)()(x, labels).squeeze(), torch.tensor(wanted, dtype=torch.float64), name)


@pytest.mark.parametrize("steps", [255, 256, 257, 2**15, 2**15 + 1, 40_000])
def test_long_sequences(steps):
    """Up to and beyond what 8 and 16 bits count."""
    spk = torch.zeros(steps, 1, 2)
    spk[[steps - 3, steps - 2], 0, 0] = 1
    times, wanted = functional.SpikeTime(multi_spike=True, on_target=[0, -2], off_target=[1, -1])(
        spk, torch.tensor([0])
    )
    assert times.flatten().tolist() == [steps - 3, steps - 1, steps - 2, steps - 1]
    assert wanted.flatten().tolist() == [0, 1, steps - 2, steps - 1]


def test_a_time_within_tolerance_is_its_target_and_still_has_a_gradient():
    spk = torch.eye(5).view(5, 1, 5).requires_grad_()
    times, _ = functional.SpikeTime(on_target=2, off_target=2, tolerance=1.5)(spk, torch.tensor([0]))
    assert times.tolist() == [[0, 2, 2, 2, 4]]
    times.sum().backward()
    assert torch.equal(spk.grad, -torch.eye(5).view(5, 1, 5))


def test_a_spike_is_what_is_not_zero_and_its_size_does_not_matter():
    spk = torch.tensor([[0.0, 0.0, 0.3], [0.0, 2.0, 1.0], [-1.0, 1.0, 0.0]]).unsqueeze(1)
    times, _ = functional.SpikeTime()(spk, torch.tensor([0]))
    assert times.tolist() == [[2, 1, 0]]


# -- targets that change over time -------------------------------------------------------------------------------------


def test_membranes_may_be_wanted_at_each_step():
    case = Case("mse_membrane_loss", {"time_var_targets": True, "reduction": "none"})
    mem, wanted = case.inputs(), torch.rand(T, B, C)
    assert_close(case.make()(mem, wanted), ((mem - wanted) ** 2).mean(0), "loss")


def test_labels_may_change_over_time():
    case = Case("mse_membrane_loss", {"time_var_targets": True, "on_target": 2, "off_target": -1})
    mem, labels = case.inputs(), torch.randint(0, C, (T, B))
    wanted = torch.where(torch.nn.functional.one_hot(labels, C) == 1, 2.0, -1.0)
    assert_close(case.make()(mem, labels), ((mem - wanted) ** 2).mean().reshape(1), "loss")
    same = LABELS.expand(T, B)
    fixed = Case("mse_membrane_loss", {"on_target": 2, "off_target": -1})
    assert_close(case.make()(mem, same), fixed.make()(mem, LABELS), "labels that stay")


# -- class weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ce_count_loss", "ce_rate_loss"])
def test_weights_divide_by_the_batch_or_as_torch_does(name):
    weight, x = torch.tensor([0.25, 2.0, 5.0, 1, 1, 1]), DEFAULTS[0].inputs()
    if name == "ce_count_loss":
        wanted = torch.nn.functional.cross_entropy(x.sum(0), LABELS, weight.double())
    else:
        wanted = torch.stack([torch.nn.functional.cross_entropy(row, LABELS, weight.double()) for row in x]).mean()
    loss = getattr(functional, name)
    assert_close(loss(weight=weight, normalize_weight=True)(x, LABELS), wanted, "as torch does")
    assert_close(loss(weight=weight)(x, LABELS), wanted * weight[LABELS].sum() / B, "by the batch")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ce_")])
def test_a_left_out_sample_changes_no_other(name, normalize):
    """Beside its share in the mean, which has the number of samples below it unless weights are normalized."""
    case = Case(name, {"weight": [0.5, 2.0, 1.0, 1.0, 1.0, 1.0], "normalize_weight": normalize})
    x, labels, kept = case.inputs(), LABELS.clone(), torch.tensor([0, 1, 3])
    labels[[2, 4]] = -100
    got, wanted = case.make()(x, labels), case.make()(x[:, kept], LABELS[kept])
    assert_close(got, wanted if normalize else wanted * 3 / 5, name)


# -- what comes in, what goes out --------------------------------------------------------------------------------------


@for_each("case", DEFAULTS)
@for_each("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(case, dtype):
    """What comes in float64 is computed in it, also with weights of another dtype; half precision in float32."""
    x = case.inputs(dtype=dtype).requires_grad_()
    wider = torch.promote_types(dtype, torch.float32)
    for weight in (None, [1.0] * C):
        loss = case.make(weight=weight)(x, LABELS)
        assert loss.dtype == wider
        assert_close(loss, case.make(weight=weight)(x.to(wider), LABELS), str(dtype), exact=True)
        (grad,) = torch.autograd.grad(loss.sum(), x)
        assert grad.dtype == dtype
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["ce_count_loss", "mse_count_loss"])
def test_long_trains_in_half_precision_are_counted_to_the_spike(name):
    """float16 has no 2049, and the square of 4096 is beyond it."""
    spk, label = torch.zeros(4097, 1, 2), torch.tensor([0])
    spk[:, 0, 0] = spk[:4096, 0, 1] = 1
    loss = getattr(functional, name)()
    assert_close(loss(spk.half(), label), loss(spk, label), name, exact=True)


@for_each("case", DEFAULTS)
def test_spikes_and_labels_may_be_of_any_whole_number(case):
    x = (case.inputs() > 0.5).double()
    wanted = case.make()(x, LABELS)
    for spk in (x.bool(), x.long(), x.byte()):
        for labels in (LABELS, LABELS.int(), LABELS.byte(), LABELS.double()):
            assert_close(case.make()(spk, labels), wanted.float(), str(spk.dtype))


@for_each("case", DEFAULTS)
def test_strides_do_not_matter(case):
    x = case.inputs()
    batch_first = x.transpose(0, 1).contiguous().transpose(0, 1)
    backwards = x.flip(2).contiguous().flip(2)
    for view in (batch_first, backwards):
        assert_close(case.make()(view, LABELS), case.make()(x, LABELS), str(case))


@for_each("case", DEFAULTS)
@for_each("value", [torch.nan, torch.inf])
def test_nan_and_infinity_are_not_hidden(case, value):
    x = case.inputs()
    x[0, 3, 2] = value
    losses = case.make(reduction="none")(x, LABELS).view(B, -1)
    assert not losses[3].isfinite().all()
    assert losses[[0, 1, 2, 4]].isfinite().all()


@for_each("case", DEFAULTS)
def test_inputs_are_left_alone(case):
    x, labels = case.inputs(), LABELS.clone()
    case.make()(x, labels)
    assert torch.equal(x, case.inputs())
    assert torch.equal(labels, LABELS)


@for_each("case", DEFAULTS)
def test_one_number_is_of_shape_one_in_two_losses_without_a_weight(case):
    odd = case.name in ("ce_rate_loss", "mse_membrane_loss")
    for reduction in ("mean", "sum"):
        assert case.make(reduction=reduction)(case.inputs(), LABELS).shape == ((1,) if odd else ())
        assert case.make(reduction=reduction, weight=[1.0] * C)(case.inputs(), LABELS).shape == ()


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_double_backward_and_function_transforms(case):
    loss, x = case.make(), case.inputs().requires_grad_()
    (grad,) = torch.autograd.grad(loss(x, LABELS).sum(), x, create_graph=True)
    assert_close(torch.func.grad(lambda x: loss(x, LABELS).sum())(x), grad, "torch.func.grad")
    (second,) = torch.autograd.grad(grad.square().sum(), x, allow_unused=True, materialize_grads=True)
    assert second.isfinite().all()


@pytest.mark.compile
@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_compiles_as_one_graph(case):
    torch._dynamo.reset()
    loss, x = case.make(weight=[1.0] * C), case.inputs().requires_grad_()
    lengths = torch.tensor([9, 3, 5, 1, 8])
    compiled = torch.compile(lambda x: loss(x, LABELS, lengths=lengths), backend="aot_eager", fullgraph=True)
    got, wanted = compiled(x), loss(x, LABELS, lengths=lengths)
    assert_close(got, wanted, "loss")
    assert_close(*(torch.autograd.grad(value, x)[0] for value in (got, wanted)), "gradient")


def test_losses_on_membranes_name_them_in_errors():
    for name in NAMES:
        message = "mem_out" if name in ON_MEMBRANES else "spk_rec" if name in TEMPORAL else "spk_out"
        with pytest.raises(
            ValueError, match=rf"{name} got {message} of the shape \[2, 3\]; pass \[T, B, C\], time first"
        ):
            getattr(functional, name)()(torch.ones(2, 3), LABELS)
