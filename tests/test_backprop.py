"""One epoch in one call: for every way of giving the data, what a loop written by hand gives."""

import copy
import sys

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import backprop
from spikeloom.network import why_by_steps

from .oracle import assert_close

T, IN, OUT = 6, 4, 3
SIZES = (5, 5, 2)
"""The rows of each batch; the last one is smaller, as a DataLoader's is."""


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(IN, 8),
        snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, learn_beta=True),
        nn.Linear(8, OUT),
        snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=True),
    )


def batches(time_var: bool, time_first: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    made = []
    for size in SIZES:
        x = torch.rand((T, size, IN) if time_var else (size, IN), generator=draw)
        labels = torch.randint(OUT, (size,), generator=draw)
        made.append((x if time_first or not time_var else x.transpose(0, 1), labels))
    return made


def rate_loss(spk, labels):
    return nn.functional.cross_entropy(spk.mean(0), labels)


def max_membrane_loss(mem, labels):
    return nn.functional.cross_entropy(mem.max(0).values, labels)


def sparsity(spk):
    return 0.05 * spk.sum()


LOSSES = {"spikes": (rate_loss, 0), "membranes": (max_membrane_loss, 1)}
WAYS = {
    "BPTT": (backprop.BPTT, {}, T),
    "TBPTT": (backprop.TBPTT, {}, 1),
    **{f"TBPTT, K={K}": (backprop.TBPTT, {"K": K}, K) for K in (2, 4, T)},
    "RTRL": (backprop.RTRL, {}, 1),
}


def by_hand(net, data, chunk, loss_of, output, regularization, time_var=True):
    """The loop that the functions stand for, step by step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    means = []
    for x, labels in data:
        snn.utils.reset(net)
        mean = 0.0
        for begin in range(0, T, chunk):
            steps = range(begin, min(begin + chunk, T))
            outs = [net(x[t] if time_var else x) for t in steps]
            both = [torch.stack(each) for each in zip(*outs, strict=True)]
            loss = loss_of(both[output], labels) + (sparsity(both[0]) if regularization else 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            snn.utils.detach(net)
            mean += loss.item() * len(steps) / T
        means.append(mean)
    return torch.tensor(means).mean()


@pytest.mark.parametrize("regularization", [sparsity, False], ids=["regularized", "plain"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("time_first", [True, False], ids=["time first", "batch first"])
@pytest.mark.parametrize("time_var", [True, False], ids=["varying", "static"])
@pytest.mark.parametrize("way", WAYS)
def test_trains_as_the_loop_by_hand_does(way, time_var, time_first, loss, regularization):
    train, options, chunk = WAYS[way]
    loss_of, output = LOSSES[loss]
    net, twin = network(), network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    options = options if time_var else {"num_steps": T, **options}
    data = batches(time_var, time_first)
    options = {"time_var": time_var, "time_first": time_first, "regularization": regularization, **options}
    got = train(net, data, optimizer, loss_of, **options)
    wanted = by_hand(twin, batches(time_var), chunk, loss_of, output, regularization, time_var)
    assert_close(got, wanted, "the loss")
    assert not got.requires_grad
    for (name, ours), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert_close(ours.detach(), theirs.detach(), name)
    assert not torch.equal(net[0].weight, network()[0].weight), "nothing was learned"


# -- unrolled or step by step ------------------------------------------------------------------------------------------


class Feedback(nn.Module):
    """Sees its own last spikes, through an attribute."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(IN, OUT)
        self.lif = snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=True)
        self.last = 0.0

    def forward(self, x):
        spk, mem = self.lif(self.fc(x) + self.last)
        self.last = spk.detach().mean()
        return spk, mem


class ByHand(nn.Module):
    """Gives its neuron the state itself, within a step."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(IN, OUT), snn.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        return self.lif(self.fc(x), self.lif.mem[: len(x)])


def with_layer(layer: nn.Module) -> nn.Sequential:
    """After the first neuron, where nothing is static."""
    net = network()
    return nn.Sequential(*net[:2], layer, *net[2:])


STEPPED = {
    "batch norm": (lambda: with_layer(nn.BatchNorm1d(8)), "writes to a buffer"),
    "batch norm without statistics": (lambda: with_layer(nn.BatchNorm1d(8, track_running_stats=False)), "mix the rows"),
    "dropout": (lambda: with_layer(nn.Dropout(0.3)), "random numbers"),
    "feedback": (Feedback, "a step reads self.last"),
    "states by hand": (ByHand, "its mem is read while the network is unrolled"),
}


@pytest.mark.parametrize("time_var", [True, False])
@pytest.mark.parametrize("name", STEPPED)
def test_a_network_that_unrolls_to_something_else_goes_step_by_step(name, time_var, monkeypatch):
    make, why = STEPPED[name]
    data = batches(time_var)
    torch.manual_seed(5)
    net, twin = (copy.deepcopy(make()) for _ in range(2))
    assert why in why_by_steps(net.train(), data[0][0], None if time_var else T)
    monkeypatch.setattr(backprop, "unroll", None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    options = {} if time_var else {"num_steps": T, "time_var": False}
    torch.manual_seed(6)
    twin.load_state_dict(net.state_dict())
    got = backprop.TBPTT(net, data, optimizer, rate_loss, K=3, **options)
    torch.manual_seed(6)
    assert_close(got, by_hand(twin, data, 3, rate_loss, 0, False, time_var), "the loss")
    for key, value in net.state_dict().items():
        assert_close(value.float(), twin.state_dict()[key].float(), key)


@pytest.mark.parametrize("time_var", [True, False])
def test_a_plain_network_is_unrolled_once_per_chunk(time_var, monkeypatch):
    asked = []
    monkeypatch.setattr(
        backprop, "unroll", lambda net, x, steps, check: asked.append(steps) or snn.unroll(net, x, steps=steps)
    )
    options = {} if time_var else {"num_steps": T, "time_var": False}
    net = network()
    backprop.TBPTT(net, batches(time_var), torch.optim.SGD(net.parameters()), rate_loss, K=4, **options)
    assert asked == ([None, None] if time_var else [4, 2]) * len(SIZES)


def test_the_trial_leaves_no_trace():
    net = with_layer(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout()))
    net(torch.rand(5, IN))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    mem, drawn = net[1].mem, torch.get_rng_state()
    why_by_steps(net, torch.rand(T, 5, IN, generator=torch.Generator().manual_seed(0)), None)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert net[1].mem is mem
    assert torch.equal(torch.get_rng_state(), drawn)


# -- data, criteria, networks ------------------------------------------------------------------------------------------


def trained(data, loss=rate_loss, train=backprop.BPTT, net=None, **options):
    net = net or network()
    return train(net, data, torch.optim.SGD(net.parameters(), lr=0.1), loss, **options)


def test_every_chunk_sees_its_own_steps_of_targets_that_vary():
    seen = []

    def membrane_loss(mem, targets):
        seen.append(targets)
        return (mem - targets).square().mean()

    membrane_loss.time_var_targets = True
    targets = torch.rand(T, 5, OUT)
    trained([(torch.rand(T, 5, IN), targets)], membrane_loss, backprop.TBPTT, K=4)
    assert [len(part) for part in seen] == [4, 2]
    assert torch.equal(torch.cat(seen), targets)


class OfSpikes(nn.Module):
    def forward(self, spk, labels):
        return nn.functional.cross_entropy(spk.max(0).values, labels)


class OfMembranes(OfSpikes):
    pass


def test_a_criterion_without_a_name_goes_by_the_name_of_its_class():
    data = batches(True)
    assert_close(trained(data, OfMembranes()), trained(data, max_membrane_loss), "the loss")
    assert not torch.equal(trained(data, OfSpikes()), trained(data, OfMembranes()))


def test_a_network_that_returns_spikes_alone_suits_a_loss_of_spikes():
    net = network()
    net[3].output = False
    assert_close(trained(batches(True), net=net), trained(batches(True)), "the loss")
    with pytest.raises(TypeError, match="max_membrane_loss uses membranes"):
        trained(batches(True), max_membrane_loss, net=net)


def test_the_loss_keeps_its_shape():
    assert trained(batches(True), lambda spk, labels: rate_loss(spk, labels).view(1)).shape == (1,)


def test_sequences_may_differ_in_length_and_be_shorter_than_a_chunk():
    data = [(torch.rand(steps, 5, IN), torch.zeros(5, dtype=torch.long)) for steps in (7, 3)]
    assert trained(data, train=backprop.TBPTT, K=4) > 0


def test_the_network_is_moved_and_set_to_training_mode():
    net = network().eval()
    assert trained(batches(True), device="meta", net=net).is_meta
    assert net.training
    assert net[0].weight.is_meta


def test_other_networks_are_left_alone():
    other = network()
    other(torch.rand(5, IN))
    mem = other[1].mem.clone()
    trained(batches(True))
    assert torch.equal(other[1].mem, mem)


def test_float64_stays_float64():
    data = [(x.double(), labels) for x, labels in batches(True)]
    assert trained(data, net=network().double()).dtype is torch.float64


@pytest.mark.parametrize("train", [backprop.BPTT, backprop.TBPTT, backprop.RTRL], ids=lambda train: train.__name__)
def test_progress_draws_a_bar_and_changes_nothing(train, capsys):
    assert_close(trained(batches(True), train=train, progress=True), trained(batches(True), train=train), "the loss")
    assert "training" in capsys.readouterr().err


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install tqdm"):
        trained(batches(True), progress=True)


REFUSED = {
    "no batches": ([], {}, "yielded no batch"),
    "no pair": ([torch.rand(T, 5, IN)], {}, "yielded a Tensor"),
    "a triple": ([(1, 2, 3)], {}, "yielded a tuple"),
    "no steps": ([(torch.rand(0, 5, IN), torch.zeros(5))], {}, "without steps"),
    "steps twice": (batches(True), {"num_steps": T}, "omit num_steps"),
    "no number of steps": (batches(False), {"time_var": False}, "pass the number of steps"),
    "True steps": (batches(False), {"time_var": False, "num_steps": True}, "pass the number of steps"),
    "negative steps": (batches(False), {"time_var": False, "num_steps": -1}, "pass the number of steps"),
    "K above num_steps": (batches(False), {"time_var": False, "num_steps": T, "K": T + 1}, "pass at most num_steps"),
    "half a step": (batches(False), {"time_var": False, "num_steps": 2.5}, "num_steps is 2.5"),
    "steps in words": (batches(False), {"time_var": False, "num_steps": "two"}, "num_steps is 'two'"),
    **{f"K={K}": (batches(True), {"K": K}, f"K is {K!r}") for K in (0, -1, 1.5, "1", True)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_on_is_reported_in_a_sentence_and_changes_no_weight(name):
    data, options, message = REFUSED[name]
    net = network()
    with pytest.raises(ValueError, match=message):
        trained(data, train=backprop.TBPTT if "K" in options else backprop.BPTT, net=net, **options)
    assert torch.equal(net[0].weight, network()[0].weight)


@pytest.mark.parametrize("options", [{}, {"time_var": False, "num_steps": 4}], ids=["sequence", "static"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64], ids=str)
def test_spikes_as_integers_train_as_floats_do(dtype, options):
    data = (torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(0)) < 0.5).to(dtype)
    data = data[0] if options else data
    losses = []
    for x in (data, data.float()):
        net = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True, output=True))
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        criterion = snn.functional.mse_membrane_loss()
        losses.append(backprop.BPTT(net, [(x, torch.tensor([0, 1, 0]))], optimizer, criterion, **options))
    assert torch.equal(*losses)


def test_what_is_no_network_or_no_criterion_is_refused_in_a_sentence():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(TypeError, match="net is a list"):
        backprop.BPTT([net], batches(True), optimizer, snn.functional.ce_rate_loss())
    with pytest.raises(TypeError, match="criterion is a str"):
        backprop.BPTT(net, batches(True), optimizer, "ce_rate_loss")
