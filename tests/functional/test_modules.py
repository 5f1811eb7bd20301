"""Losses and penalties as modules: printed, saved, copied, moved, stored in a network; and what they refuse."""

import copy
import pickle

import pytest
import torch
from torch import nn

from spikeloom import functional

from ..each import for_each
from ..oracle import assert_close
from .cases import CASES, DEFAULTS, LABELS, NAMES, B, C

SPIKE_TIME = functional.SpikeTime(on_target=[0, 2], off_target=[-1, -2], multi_spike=True)
PENALTIES = [
    functional.l1_rate_sparsity(0.5),
    functional.rate_lower_bound(0.3),
    functional.rate_upper_bound(0.1, 2, True),
]
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 1.0])

SHOWN = {
    "ce_rate_loss()": functional.ce_rate_loss(),
    "ce_rate_loss(reduction='sum')": functional.ce_rate_loss(reduction="sum"),
    "ce_count_loss(population_code=True, num_classes=2)": functional.ce_count_loss(True, 2),
    "ce_count_loss(weight=tensor([0.5000, 2.0000]))": functional.ce_count_loss(weight=torch.tensor([0.5, 2.0])),
    "ce_temporal_loss(inverse='reciprocal', normalize_weight=False)": functional.ce_temporal_loss(
        "reciprocal", normalize_weight=False
    ),
    "SpikeTime(on_target=[0, 2], off_target=[-1, -2], multi_spike=True)": SPIKE_TIME,
    "mse_temporal_loss(\n  reduction='sum'\n  (spk_time_fn): SpikeTime(off_target=3)\n)": functional.mse_temporal_loss(
        off_target=3, reduction="sum"
    ),
    "l1_rate_sparsity(Lambda=0.5)": PENALTIES[0],
    "rate_upper_bound(bound=0.1, Lambda=2, per_neuron=True)": PENALTIES[2],
    "LossFunctions(reduction='mean', weight=None)": functional.LossFunctions("mean", None),
}


@pytest.mark.parametrize("text", SHOWN)
def test_prints_as_the_call_that_makes_it(text):
    assert repr(SHOWN[text]) == text


@for_each("case", CASES[::5])
def test_survives_pickle_and_deepcopy(case):
    loss, x = case.make(), case.inputs()
    for twin in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert repr(twin) == repr(loss)
        assert (twin.__name__, twin.reduction) == (loss.__name__, loss.reduction)
        assert_close(twin(x, LABELS), loss(x, LABELS), str(case), exact=True)


@pytest.mark.parametrize("module", [SPIKE_TIME, *PENALTIES], ids=repr)
def test_others_survive_too(module):
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(twin) == repr(module)
        assert twin.__name__ == type(module).__name__


@pytest.mark.parametrize("name", NAMES)
def test_the_weight_follows_the_network_and_is_not_saved_with_it(name):
    net, without = nn.Linear(2, 3), nn.Linear(2, 3).state_dict()
    net.loss = getattr(functional, name)(weight=WEIGHT)
    assert list(net.state_dict()) == list(without)
    assert not list(net.loss.parameters())
    net.load_state_dict(without, strict=True)
    net.to("meta", torch.float64)
    assert (net.loss.weight.device.type, net.loss.weight.dtype) == ("meta", torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_attributes(name):
    loss = getattr(functional, name)(reduction="sum", weight=WEIGHT)
    assert isinstance(loss, nn.Module)
    assert isinstance(loss, functional.LossFunctions)
    assert (loss.__name__, loss.reduction) == (name, "sum")
    assert torch.equal(loss.weight, WEIGHT)
    assert getattr(functional, name)().weight is None


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_may_be_set_later(name):
    case = next(case for case in DEFAULTS if case.name == name)
    loss = case.make()
    loss.weight = WEIGHT
    assert_close(loss(case.inputs(), LABELS), case.make(weight=WEIGHT.tolist())(case.inputs(), LABELS), name)


def test_a_loss_of_ones_own_in_the_way_of_snntorch():
    class FirstStepLoss(functional.LossFunctions):
        def __init__(self, reduction="mean", weight=None):
            super().__init__(reduction, weight)
            self.__name__ = "mine"

        def __call__(self, spk_out, targets):
            return spk_out[0].sum()

    loss = FirstStepLoss()
    assert loss(torch.ones(2, 3, 4), LABELS) == 12
    assert loss.__name__ == "mine"
    with pytest.raises(NotImplementedError, match="has no forward; use ce_rate_loss"):
        functional.LossFunctions("mean", None)(torch.ones(2, 3, 4), LABELS)


# -- what is refused ---------------------------------------------------------------------------------------------------

POOLING = ("ce_rate_loss", "ce_count_loss", "mse_count_loss")
UNMADE = [
    *((n, {"reduction": "avg"}, ValueError, "got reduction='avg'; choose one of mean, sum, none") for n in NAMES),
    *((n, {"weight": torch.ones(2, 3)}, ValueError, r"got a weight of the shape \[2, 3\]; pass \[C\]") for n in NAMES),
    *((n, {"population_code": True}, ValueError, "and num_classes=False; set num_classes") for n in POOLING),
    ("ce_temporal_loss", {"inverse": "square"}, ValueError, "got inverse='square'; choose negate or reciprocal"),
    ("mse_count_loss", {"incorrect_rate": -0.1}, ValueError, "incorrect_rate=-0.1; pass spikes per step, 0 or more"),
    (
        "mse_temporal_loss",
        {"target_is_time": True, "weight": WEIGHT},
        ValueError,
        "got a weight and target_is_time=True",
    ),
    ("mse_membrane_loss", {"time_var_targets": True, "weight": WEIGHT}, ValueError, "and time_var_targets=True, but"),
    (
        "SpikeTime",
        {"on_target": [1, 2], "off_target": [3, 4]},
        TypeError,
        "pass one step each, or set multi_spike=True",
    ),
    ("SpikeTime", {"on_target": [1, 2]}, TypeError, r"got on_target=\[1, 2\] and off_target=-1; pass one step each"),
    ("SpikeTime", {"multi_spike": True}, TypeError, "got on_target=0 and off_target=-1; pass sequences of steps"),
    (
        "SpikeTime",
        {"on_target": [1, 2], "off_target": [3], "multi_spike": True},
        IndexError,
        "got 2 steps as on_target and 1 as off_target; pass the same number",
    ),
    ("rate_lower_bound", {"bound": 1.5}, ValueError, r"got bound=1.5; pass spikes per step, in \[0, 1\]"),
    ("rate_upper_bound", {"bound": -1}, ValueError, r"got bound=-1; pass spikes per step, in \[0, 1\]"),
    ("rate_upper_bound", {"bound": torch.nan}, ValueError, "got bound=nan"),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), UNMADE, ids=lambda value: str(value)[:60])
def test_options_that_make_no_sense_are_refused_at_once(name, options, error, message):
    with pytest.raises(error, match=f"^{name} .*{message}"):
        getattr(functional, name)(**options)


SPK = torch.zeros(4, B, C)
UNCALLED = {
    "no time": (SPK[0], LABELS, ValueError, r"got .* of the shape \[5, 6\]; pass \[T, B, C\], time first"),
    "images": (SPK.view(4, B, 2, 3), LABELS, ValueError, r"of the shape \[4, 5, 2, 3\]; pass \[T, B, C\]"),
    "no step": (SPK[:0], LABELS, ValueError, r"of the shape \[0, 5, 6\]; pass .*at least one step"),
    "a number": (SPK[0, 0, 0], LABELS, ValueError, r"of the shape \[\]; pass \[T, B, C\]"),
    "few labels": (SPK, LABELS[:3], ValueError, r"got targets of the shape \[3\]; pass class labels, \[5\]"),
    "labels of a column": (SPK, LABELS.view(B, 1), ValueError, r"got targets of the shape \[5, 1\]; pass class labels"),
    "shares": (SPK, LABELS + 0.5, ValueError, "got targets that are not integers; pass class labels"),
    "above": (SPK, LABELS + 4, IndexError, "got the target 6; pass labels of its 6 classes, 0 to 5"),
    "below": (SPK, LABELS - 1, IndexError, "got the target -1; pass labels of its 6 classes, 0 to 5"),
}


@for_each("which", UNCALLED)
@for_each("name", NAMES)
def test_calls_that_make_no_sense_are_refused(name, which):
    x, labels, error, message = UNCALLED[which]
    owner = "(SpikeTime|mse_temporal_loss)" if name == "mse_temporal_loss" else name
    with pytest.raises(error, match=f"{owner} {message}" if message.startswith("got") else message):
        getattr(functional, name)()(x, labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_another_number_of_classes_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} got 3 class weights for 6 classes"):
        getattr(functional, name)(weight=torch.ones(3))(SPK, LABELS)


@pytest.mark.parametrize("name", POOLING)
def test_neurons_that_cannot_be_shared_out_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} got 6 output neurons for 4 classes; pass a multiple of 4"):
        getattr(functional, name)(population_code=True, num_classes=4)(SPK, LABELS)


@pytest.mark.parametrize("shape", [(B,), (B, 3), (2, B, C)], ids=str)
def test_times_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=rf"SpikeTime got times of the shape .*; pass \[{B}, {C}\]"):
        functional.mse_temporal_loss(target_is_time=True)(SPK, torch.zeros(shape))
    with pytest.raises(ValueError, match=rf"SpikeTime got times of the shape .*; pass \[F, {B}, {C}\]"):
        functional.mse_temporal_loss(target_is_time=True, multi_spike=True)(SPK, torch.zeros(shape[1:]))
