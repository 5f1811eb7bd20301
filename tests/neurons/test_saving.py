"""Saving, loading, copying, moving: what goes along, and what a copy shares with its original."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import spikeloom as snn

from .running import WAYS, at_once, started, unchanged

X = torch.full((3, 4), 0.5)


def saved_and_loaded(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda lif: pickle.loads(pickle.dumps(lif)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("learned", [False, True], ids=["no graph", "state with a graph"])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_goes_on_where_the_original_stands(way, learned):
    lif = started(learn_beta=learned, init_hidden=True, output=True, reset_mechanism="zero", reset_delay=False)
    twin = COPIES[way](lif)
    assert not twin.mem.requires_grad
    assert torch.equal(twin.reset, lif.reset)
    assert any(twin is other for other in snn.Leaky.instances)
    for x in 2 * torch.rand(3, 3, 4):
        for got, wanted in zip(twin(x), lif(x), strict=True):
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_and_its_original_do_not_share_their_state(way):
    lif = started(init_hidden=True)
    twin = COPIES[way](lif)
    with unchanged(lif):
        twin(X)
        snn.utils.detach(twin)
        snn.utils.reset(twin)
        if way != "copy":  # a shallow one shares its buffers, as with every module of torch's
            twin.reset_mechanism = "none"


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_network_is_copied_whole(way):
    net = nn.Sequential(nn.Linear(4, 5), snn.Leaky(0.9, init_hidden=True, learn_threshold=True))
    net(X).sum().backward()
    twin = COPIES[way](net)
    snn.utils.reset(nn.ModuleList([net, twin]))
    assert torch.equal(twin(X), net(X))
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in net.named_parameters()]


class Positive(nn.Module):
    """A parametrization: values above zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x


LEARN = {"learn_beta": True, "learn_threshold": True, "init_hidden": True}
PARAMETRIZED = {
    "Leaky": (lambda: snn.Leaky(0.9, **LEARN), ("beta", "threshold")),
    "Leaky by sigmoid": (lambda: snn.Leaky(0.9, decay="sigmoid", **LEARN), ("beta_logit",)),
    "RLeaky": (lambda: snn.RLeaky(0.9, linear_features=4, **LEARN), ("threshold",)),
    "one to one": (lambda: snn.RSynaptic(0.5, 0.9, all_to_all=False, **LEARN), ("V", "beta")),
    "Alpha": (lambda: snn.Alpha(0.9, 0.5, **LEARN), ("threshold",)),
    "SLSTM": (lambda: snn.SLSTM(4, 4, threshold=0.1, learn_threshold=True, init_hidden=True), ("threshold",)),
    "ALIF": (lambda: snn.ALIF(0.9, learn=("beta", "threshold"), init_hidden=True), ("beta", "threshold")),
    "SynapticDelay": (lambda: snn.SynapticDelay(4, 3), ("delay",)),
}


def parametrized(name: str) -> nn.Sequential:
    make, values = PARAMETRIZED[name]
    layer = make()
    for value in values:
        parametrize.register_parametrization(layer, value, Positive())
    return nn.Sequential(nn.Linear(4, 4), layer)


@pytest.mark.parametrize("way", ["by steps", "at once"])
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_a_parametrized_layer_is_copied_with_its_state(name, way):
    net, xs = parametrized(name), 2 * torch.rand(3, 2, 4)
    WAYS[way](net, xs)
    twin = copy.deepcopy(net)
    assert type(twin[1]) is type(net[1])
    assert parametrize.is_parametrized(twin[1])
    with torch.no_grad():
        assert torch.equal(WAYS[way](twin, xs), WAYS[way](net, xs))
        next(twin[1].parametrizations.children()).original.fill_(0.5)
    assert next(net[1].parametrizations.children()).original.ne(0.5).any()
    assert name == "SynapticDelay" or any(twin[1] is other for other in snn.SpikingNeuron.instances)


@pytest.mark.parametrize("name", PARAMETRIZED)
def test_an_average_of_a_parametrized_network_is_kept(name):
    net = parametrized(name)
    net(torch.rand(2, 4))
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    snn.utils.reset(nn.ModuleList([net, mean]))
    for _ in range(2):
        mean.update_parameters(net)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(0.5)
    before = next(net.parameters()) * 4
    torch.testing.assert_close(next(mean.parameters()), 0.75 * before)
    assert mean(torch.rand(2, 4)).shape == (2, 4)


def test_a_class_of_its_own_way_of_saving_is_copied_by_it():
    class Forgetting(snn.Leaky):
        def __getstate__(self):
            return super().__getstate__() | {"mem": torch.zeros(0)}

    lif = Forgetting(0.9)
    lif(X)
    assert copy.deepcopy(lif).mem.shape == (0,)


def test_states_are_not_in_the_state_dict_nor_among_parameters_or_buffers():
    lif = started()
    assert list(lif.state_dict()) == ["threshold", "graded_spikes_factor", "reset_mechanism_val", "beta"]
    assert "mem" not in dict(lif.named_buffers())
    assert "mem" not in dict(lif.named_parameters())


def test_loading_leaves_the_state_alone():
    lif = started()
    before = lif.mem
    lif.load_state_dict(snn.Leaky(0.3).state_dict())
    assert lif.mem is before


@pytest.mark.parametrize("mem", [torch.zeros(0), torch.rand(7, 9)], ids=["empty", "of a batch"])
def test_old_checkpoints_that_hold_the_state_load_strictly(mem):
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(snn.Leaky(0.9)))
    checkpoint = net.state_dict() | {"1.0.mem": mem}
    keys = list(checkpoint)
    net.load_state_dict(checkpoint, strict=True)
    assert net[1][0].mem.shape == (0,)
    assert list(checkpoint) == keys, "the checkpoint itself is left as it was"
    snn.Leaky(0.9).load_state_dict(snn.Leaky(0.5).state_dict() | {"mem": mem}, strict=True)


@pytest.mark.parametrize("keys", ["missing", "unexpected"])
def test_strict_loading_is_strict(keys):
    checkpoint = snn.Leaky(0.9).state_dict()
    if keys == "missing":
        del checkpoint["beta"]
    else:
        checkpoint["syn"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=keys.capitalize()):
        snn.Leaky(0.9).load_state_dict(checkpoint)
    snn.Leaky(0.9).load_state_dict(checkpoint, strict=False)


def test_the_state_follows_to():
    lif = started(learn_beta=True).to(torch.float64)
    assert (lif.beta.dtype, lif.threshold.dtype, lif.mem.dtype) == (torch.float64,) * 3
    assert lif.reset_mechanism_val.dtype == torch.int64
    assert lif.reset.dtype == torch.float64
    _, mem = lif(X.double())
    assert mem.dtype == torch.float64
    assert lif.half().mem.dtype == torch.float16
    assert lif(X.half())[1].dtype == torch.float32


def test_a_dry_run_on_the_meta_device_gives_shapes_and_leaves_no_state_behind():
    lif = snn.Leaky(torch.full((4,), 0.5))
    twin = copy.deepcopy(lif).to("meta")
    spk, mem = twin(X.to("meta"))
    assert spk.is_meta
    assert mem.shape == (3, 4)
    numbers = snn.Leaky(0.5)
    numbers(X.to("meta"))
    assert torch.equal(numbers(X)[1], X)


def test_a_layer_made_on_the_meta_device_comes_to_life_by_loading():
    lif = snn.Leaky(0.5, reset_mechanism="zero", learn_beta=True)
    with torch.device("meta"):
        twin = snn.Leaky(0.9, reset_mechanism="none", learn_beta=True)
    assert twin.beta.is_meta
    twin(X.to("meta"))
    twin = twin.to_empty(device="cpu")
    assert (twin.reset_mechanism, twin.reset_mechanism_val.item()) == ("none", 2)
    assert not twin.mem.any(), "what had no values starts at zero"
    twin.load_state_dict(lif.state_dict())
    assert twin.reset_mechanism == "zero"
    assert torch.equal(twin(X)[1], lif(X)[1])


def test_replicas_have_parameters_a_reset_and_a_state_of_their_own():
    lif = started(init_hidden=True, output=True)
    replica = lif._replicate_for_data_parallel()
    with unchanged(lif):
        _, mem = replica(X)
        _, mem = replica(X)
    assert torch.equal(mem, 0.9 * X + X)


def test_functional_call_uses_the_parameters_it_is_given():
    lif = snn.Leaky(0.9, learn_beta=True)
    beta = torch.tensor(0.25, requires_grad=True)
    _, mem = torch.func.functional_call(lif, {"beta": beta}, (X, torch.ones(3, 4)))
    mem.sum().backward()
    assert beta.grad.item() == 12.0
    assert lif.beta.grad is None


def test_torch_func_sees_through_a_layer():
    lif = snn.Leaky(0.9, spike_grad=snn.surrogate.fast_sigmoid(5))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return sum(out.sum() for out in lif(x, torch.zeros(4)))

    x = torch.rand(3, 4, requires_grad=True)
    (wanted,) = torch.autograd.grad(sum(loss(row) for row in x), x)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x.detach()), wanted)


def test_train_and_eval_give_the_same():
    xs = torch.rand(4, 3, 4)
    train, evaluate = at_once(snn.Leaky(0.5), xs), at_once(snn.Leaky(0.5).eval(), xs)
    assert torch.equal(train[1], evaluate[1])


def test_a_subclass_may_load_by_the_names_of_torchs_arguments():
    class Own(snn.Leaky):
        def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
            super()._load_from_state_dict(
                state_dict,
                prefix,
                local_metadata=local_metadata,
                strict=strict,
                missing_keys=missing,
                unexpected_keys=unexpected,
                error_msgs=errors,
            )

    lif = Own(beta=0.25)
    lif.load_state_dict(snn.Leaky(beta=0.5).state_dict())
    assert lif.beta.item() == 0.5
