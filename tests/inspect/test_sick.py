"""diagnose names the problem of each sick network, its cure works, and healthy networks have no finding."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import spikeloom as snn
from spikeloom.inspect import PROBLEMS

from .sick import SICK, Sick
from .small import CLASSES, HIDDEN, PIXELS, STEPS, Setup, leaky, linear, readout, sequence, task, usual

DOCS = Path(__file__).parents[2] / "docs" / "debugging.md"

LEARNED, NOT_LEARNED, MOST_ROUNDS = 0.95, 0.86, 120


def infected(sick: Sick) -> Setup:
    torch.manual_seed(0)
    setup = Setup()
    sick.infect(setup)
    return setup


@pytest.mark.parametrize("name", SICK)
def test_the_problem_is_named_and_the_advised_cure_works(name):
    sick, setup = SICK[name], infected(SICK[name])
    findings = setup.diagnose().findings
    found = next((f for f in findings if f.problem == sick.problem), None)
    assert found is not None, findings
    assert found.layers == sick.layers
    assert [message for message in sick.message if message not in found] == [], found
    assert max(map(len, findings)) <= 200, "one sentence that fits two lines"

    cured = infected(sick)
    sick.cure(cured)
    assert cured.diagnose().findings == ()
    accuracy, rounds = cured.learn(MOST_ROUNDS, enough=LEARNED)
    assert accuracy >= LEARNED
    if sick.fails:
        assert setup.learn(rounds)[0] < NOT_LEARNED


def test_the_first_finding_is_the_cause():
    """What follows from a silent or saturated layer, or from NaN, is no finding of its own, or refers to it."""
    later = {"batch before time", "exploding recurrence", "exploding weights"}  # two views of one cause
    for name in SICK.keys() - later:
        first, *others = infected(SICK[name]).diagnose().findings
        assert first.problem == SICK[name].problem, name
        followed = ("zero gradient", "unused parameters", "exploding gradient")
        assert all("first" in other or other.problem in followed for other in others), (name, others)


def test_every_problem_has_a_sick_network_and_every_finding_is_a_problem():
    assert {sick.problem for sick in SICK.values()} == PROBLEMS.keys()
    assert len(SICK) >= 25


def test_the_page_has_the_table_of_problems():
    rows = [f"| {name} | {problem.sign} | {problem.cure} |" for name, problem in PROBLEMS.items()]
    assert "\n".join(rows) in DOCS.read_text(), "update the table in docs/debugging.md:\n" + "\n".join(rows)


def test_a_finding_is_a_sentence_with_its_problem_and_layers():
    (finding, *_) = infected(SICK["a dead class"]).diagnose().findings
    assert isinstance(finding, str)
    again = pickle.loads(pickle.dumps(finding))
    assert (again, again.problem, again.layers) == (finding, "dead output neuron", ("3",))


# -- healthy networks --------------------------------------------------------------------------------------------------


def fired(kind: str) -> tuple[nn.Module, float]:
    """A hidden layer of each kind of neuron, and the scale of the input that lets it fire."""
    n = HIDDEN
    one, all_ = {"V": 0.2, "all_to_all": False}, {"linear_features": n}
    hidden = {"init_hidden": True}
    return {
        "Leaky": lambda: (snn.Leaky(beta=0.9, **hidden), 1.0),
        "Leaky, reset to zero": lambda: (snn.Leaky(beta=0.9, reset_mechanism="zero", **hidden), 1.0),
        "Synaptic": lambda: (snn.Synaptic(alpha=0.5, beta=0.8, **hidden), 1.0),
        "RLeaky": lambda: (snn.RLeaky(beta=0.8, **one, **hidden), 1.0),
        "RLeaky through a Linear": lambda: (snn.RLeaky(beta=0.8, **all_, **hidden), 1.0),
        "RSynaptic": lambda: (snn.RSynaptic(alpha=0.4, beta=0.7, **one, **hidden), 1.0),
        "Lapicque": lambda: (snn.Lapicque(R=5.0, C=1.0, **hidden), 2.0),
        "Alpha": lambda: (snn.Alpha(alpha=0.9, beta=0.6, threshold=0.3, **hidden), 2.0),
        "IF": lambda: (snn.IF(**hidden), 0.5),
        "ParametricLIF": lambda: (snn.ParametricLIF(threshold=0.4, **hidden), 2.0),
        "NoisyLeaky": lambda: (snn.NoisyLeaky(beta=0.8, sigma=0.2, **hidden), 1.0),
        "ALIF": lambda: (snn.ALIF(beta=0.8, **hidden), 1.0),
        "AdLIF": lambda: (snn.AdLIF(beta=0.5, threshold=0.4, **hidden), 2.0),
        "QIF": lambda: (snn.QIF(**hidden), 3.0),
        "EIF": lambda: (snn.EIF(**hidden), 3.0),
        "Izhikevich": lambda: (snn.Izhikevich(**hidden), 60.0),
        "ResonateFire": lambda: (snn.ResonateFire(**hidden), 2.0),
        "CuBaLIF": lambda: (snn.CuBaLIF(**hidden), 1.0),
    }[kind]()


KINDS = (
    *(
        "Leaky",
        "Leaky, reset to zero",
        "Synaptic",
        "RLeaky",
        "RLeaky through a Linear",
        "RSynaptic",
        "Lapicque",
        "Alpha",
    ),
    *("IF", "ParametricLIF", "NoisyLeaky", "ALIF", "AdLIF", "QIF", "EIF", "Izhikevich", "ResonateFire", "CuBaLIF"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_finding_on_a_healthy_network_of_every_kind(kind):
    torch.manual_seed(1)
    middle, scale = fired(kind)
    net = usual(middle)
    y = task()[1]
    for x, steps in ((scale * sequence(), None), (scale * task()[0], STEPS)):
        with snn.backend("loop"):  # so that no kernels are compiled
            diagnosis = snn.diagnose(net, x, steps=steps, loss=lambda out: F.cross_entropy(out.sum(0), y))
        assert diagnosis.findings == (), diagnosis
        assert diagnosis.rows[0].rate > 0


def test_no_finding_on_other_healthy_networks():
    torch.manual_seed(1)
    x, y = task()
    images = nn.Sequential(
        *(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), leaky(threshold=0.3), nn.Flatten()),
        *(linear(64, CLASSES, 4.0), leaky()),
    )
    normalized = usual(None, None, nn.BatchNorm1d(HIDDEN))
    delayed = usual(None, None, snn.SynapticDelay(HIDDEN, 5))
    steep = usual(leaky(spike_grad=snn.surrogate.fast_sigmoid(slope=25)))
    transferred = usual()
    transferred[0].requires_grad_(False)
    for name, net in {
        "images": images,
        "normalized": normalized,
        "in eval mode": usual().eval(),
        "delayed": delayed,
        "fast_sigmoid(25)": steep,
        "a frozen layer": transferred,
        "a readout": readout(),
        "a list of numbers": _with(usual(), sizes=[1, 2], names={"a": "b"}),
    }.items():
        scores = (lambda out: out.mean(0)) if name == "a readout" else (lambda out: out.sum(0))
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-3)
        diagnosis = snn.diagnose(
            net, x, steps=STEPS, loss=lambda out, s=scores: F.cross_entropy(s(out), y), optimizer=optimizer
        )
        assert diagnosis.findings == (), name
        assert snn.diagnose(net, x, steps=STEPS).findings == (), name
    equal = snn.diagnose(net, x[:1].expand(8, -1), steps=STEPS)
    assert not {f.problem for f in equal.findings} & {"constant output", "swapped axes"}


def _with(net: nn.Module, **attributes: object) -> nn.Module:
    vars(net).update(attributes)
    return net


# -- readouts ----------------------------------------------------------------------------------------------------------

READOUTS = {
    "LI": lambda: snn.LI(beta=0.9, init_hidden=True),
    "no reset": lambda: leaky(output=True, reset_mechanism="none"),
    "a threshold out of reach": lambda: leaky(output=True, threshold=1e9),
}


@pytest.mark.parametrize("name", READOUTS)
def test_a_readout_is_recognized_everywhere(name):
    torch.manual_seed(0)
    net, x = usual(None, READOUTS[name]()), task()[0]
    for row in (snn.summary(net, x, steps=STEPS).layers[3], snn.explain(net, x, steps=STEPS).rows[3]):
        assert row.readout
        assert row.rate != row.rate
    summary = snn.summary(net, x, steps=STEPS)
    assert str(summary).splitlines()[-1].split()[-1] == f"{summary.layers[1].rate:.1%}", (
        "the total is of spiking layers"
    )
    assert "readout" in str(snn.explain(net, x, steps=STEPS)).splitlines()[-1]
    diagnosis = snn.diagnose(net, x, steps=STEPS)
    assert diagnosis.findings == ()
    assert diagnosis.rows[1].readout
    assert not diagnosis.rows[0].readout
    assert str(diagnosis).splitlines()[2].split()[:6] == ["3", diagnosis.rows[1].kind, "4", "readout", "-", "-"]
    assert diagnosis.rows[0].gradient_norm > 0
    assert diagnosis.plot() is not None


def test_a_layer_of_which_the_loss_reads_the_membranes_is_a_readout():
    torch.manual_seed(0)
    net, (x, y) = usual(None, leaky(output=True)), task()
    with torch.no_grad():
        net[2].bias -= 5  # it never fires
    by_mem = snn.diagnose(net, x, steps=STEPS, loss=lambda out: F.cross_entropy(out[1].mean(0), y))
    assert (by_mem.rows[1].readout, by_mem.findings) == (True, ())
    by_spk = snn.diagnose(net, x, steps=STEPS, loss=lambda out: F.cross_entropy(out[0].sum(0), y))
    assert (by_spk.rows[1].readout, by_spk.findings[0].problem) == (False, "dead layer")

    def by_steps(net, x):
        outs = [net(x) for _ in range(STEPS)]
        return tuple(map(torch.stack, zip(*outs, strict=True)))

    looped = snn.diagnose(net, x, forward=by_steps, loss=lambda out: F.cross_entropy(out[1].mean(0), y))
    assert looped.rows[1].readout
    assert looped.findings == ()


def test_a_hidden_layer_without_reset_is_no_readout():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = linear(PIXELS, HIDDEN), leaky(output=True, reset_mechanism="none", beta=1.0)
            self.rest = nn.Sequential(linear(HIDDEN, CLASSES), leaky())

        def forward(self, x):
            return self.rest(self.lif(self.fc(x))[0])

    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.fc.bias += 1.0
    diagnosis = snn.diagnose(net, task()[0], steps=STEPS)
    assert not diagnosis.rows[0].readout
    assert diagnosis.findings[0].problem == "saturated layer"


# -- the run -----------------------------------------------------------------------------------------------------------


def test_delays_start_empty_and_the_optimizer_is_not_changed():
    torch.manual_seed(0)
    net, x = usual(None, None, snn.SynapticDelay(HIDDEN, 5)), task()[0]
    fresh = snn.diagnose(net, x, steps=STEPS)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    out = snn.unroll(net, x, steps=STEPS)
    out.sum().backward()
    optimizer.step()
    state = {k: v["exp_avg"].clone() for k, v in optimizer.state_dict()["state"].items()}
    weights = [p.detach().clone() for p in net.parameters()]
    snn.diagnose(net, x, steps=STEPS, optimizer=optimizer)  # the delays hold a graph that is freed
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert all(torch.equal(v, optimizer.state_dict()["state"][k]["exp_avg"]) for k, v in state.items())
    assert fresh.findings == ()


def test_odd_networks_and_inputs():
    torch.manual_seed(0)
    net, x = usual(), task()[0]
    assert snn.diagnose(snn.Leaky(beta=0.9), torch.rand(5, 3)).rows[0].neurons == 1
    spikes = (torch.rand(STEPS, 8, 6) < 0.5).int()
    assert snn.diagnose(nn.Sequential(leaky()), spikes).findings == (), "no weights, no gradient"
    head = readout()
    nn.init.zeros_(head[2].weight)  # a common start
    assert snn.diagnose(head, x, steps=STEPS, loss=lambda o: F.cross_entropy(o.mean(0), task()[1])).findings == ()
    (bad,) = snn.diagnose(usual(leaky(beta=torch.nan)), x, steps=STEPS).findings
    assert (bad.problem, bad[:6]) == ("not finite", "1.beta")
    with pytest.raises(TypeError, match=r"pass a torch.optim.Optimizer"):
        snn.diagnose(net, x, steps=STEPS, optimizer=1e-3)
    with pytest.raises(ValueError, match=r"rows|batch") as raised:
        snn.diagnose(net, x, steps=STEPS, loss=lambda out: F.cross_entropy(out.sum(1), task()[1]))
    assert "the network returned [16, 64, 4], time first" in raised.value.__notes__[0]

    class AllInALists(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [linear(PIXELS, 4), leaky()]

        def forward(self, x):
            return self.layers[1](self.layers[0](x))

    with pytest.raises(ValueError, match=r"layers is a list .*use an nn.ModuleList"):
        snn.diagnose(AllInALists(), x, steps=STEPS)


def test_an_optimizer_that_calls_the_network_is_not_judged():
    torch.manual_seed(0)
    net = usual()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1e6)
    assert snn.diagnose(net, task()[0], steps=STEPS, optimizer=optimizer).findings == ()


def test_deep_layers_that_are_silent_before_training_are_not_reported():
    torch.manual_seed(0)

    def leaky(**options):
        return snn.Leaky(beta=0.5, spike_grad=snn.surrogate.fast_sigmoid(slope=25), init_hidden=True, **options)

    net = nn.Sequential(
        *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 12, 3), nn.MaxPool2d(2), leaky(), nn.Conv2d(12, 32, 2), leaky()),
        *(nn.Flatten(), nn.Linear(128, 10), leaky(output=True)),
    )
    diagnosis = snn.diagnose(net, 1.5 * torch.rand(32, 64), steps=20, loss=lambda out: out[0].sum())
    assert diagnosis.rows[2].rate == 0
    assert diagnosis.findings == ()
