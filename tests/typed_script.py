"""A user's script that calls every public name, for `mypy --strict`: see tests/test_types.py.

Each line with `type: ignore` is a mistake that mypy must report: an ignore that nothing needs is an error, too.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import backprop, distributed, functional, ops, spikegen, spikeplot, surrogate, utils
from spikeloom.functional import probe, quant, stdp_learner

STEPS, BATCH, WIDTH = 4, 3, 6
x = torch.rand(BATCH, WIDTH)
x_seq = torch.rand(STEPS, BATCH, WIDTH)
images = torch.rand(BATCH, 1, 8, 8)
labels = torch.tensor([0, 1, 2])


# -- neurons and layers ------------------------------------------------------------------------------------------------


def neurons() -> list[snn.SpikingNeuron]:
    return [
        snn.Leaky(beta=0.9, threshold=0.5, spike_grad=surrogate.atan(), init_hidden=True, learn_beta=True),
        snn.Leaky(torch.rand(WIDTH), reset_mechanism="zero", reset_delay=False, output=True, decay="tau"),
        snn.Synaptic(alpha=0.9, beta=0.8, learn_alpha=True),
        snn.RLeaky(beta=0.9, linear_features=WIDTH, learn_recurrent=False),
        snn.RSynaptic(alpha=0.9, beta=0.8, V=0.5, all_to_all=False),
        snn.Lapicque(R=5.0, C=1.0, time_step=0.1),
        snn.Alpha(alpha=0.9, beta=0.8),
        snn.DeltaLeaky(0.3, beta=0.9),
        snn.SLSTM(input_size=WIDTH, hidden_size=5, threshold=0.1),
        snn.SConv2dLSTM(in_channels=1, out_channels=2, kernel_size=3, threshold=0.1, max_pool=2),
        snn.StateLeaky(beta=0.9, channels=WIDTH),
        snn.LinearLeaky(beta=0.9, in_features=WIDTH, out_features=5),
        snn.AssociativeLeaky(in_dim=WIDTH, d_value=2, d_key=2, num_spiking_neurons=4),
        snn.ALIF(beta=0.9, rho=0.97, kappa=0.1, learn=("beta", "rho"), init_hidden=True),
        snn.RALIF(kappa=torch.zeros(WIDTH), linear_features=WIDTH, learn="beta"),
        snn.AdLIF(a=0.5, b=0.5),
        snn.CuBaLIF(alpha=0.8, period=2.0),
        snn.EIF(tau=2.0, sharpness=0.2),
        snn.IF(threshold=1.0, reset_mechanism="zero", graded_spikes_factor=2.0),
        snn.Izhikevich(a=0.02, dt=0.5),
        snn.LI(beta=0.9, output=True),
        snn.NoisyLeaky(beta=0.9, sigma=0.1, learn_sigma=True),
        snn.ParametricLIF(beta=0.5, decay="sigmoid"),
        snn.QIF(gain=1.0, v_reset=0.0),
        snn.ResonateFire(omega=0.5, spike_grad=surrogate.gaussian(0.4)),
    ]


def layers() -> list[nn.Module]:
    delayed = snn.DelayedLinear(WIDTH, 5, max_delay=3)
    return [
        snn.LeakyParallel(input_size=WIDTH, hidden_size=5, beta=0.9),
        snn.BatchNormTT1d(WIDTH, time_steps=STEPS),
        snn.BatchNormTT2d(2, time_steps=STEPS),
        snn.GradedSpikes(size=WIDTH, constant_factor=0.5),
        snn.SynapticDelay(WIDTH, max_delay=3),
        delayed,
        snn.accelerate(nn.Sequential(nn.Linear(WIDTH, 5), snn.Leaky(beta=0.9, init_hidden=True))),
    ]


class Difference(snn.layers.OverTime):
    before = torch.zeros(1)

    def over_time(self, x: Tensor) -> Tensor:
        return x - self.before


class TwiceLeaky(snn.LIF):
    """A neuron with its own forward."""

    def forward(self, input_: Tensor) -> Tensor:
        return self.fire(self.beta * input_)


@snn.cell(decays="beta", recurrent=True)
def Soft(x, mem, *, beta=0.9, threshold=1.0):  # type: ignore[no-untyped-def]
    mem = beta * mem + ops.clamp(x, -1.0, 1.0)
    spk = ops.spike(mem - threshold)
    return spk, ops.where(ops.detach(spk) > 0, ops.full_like(mem, 0), mem)


@snn.charge
def Rough(x: ops.Value, mem: ops.Value, *, beta: ops.Value = 0.9) -> tuple[ops.Value, ...]:
    grown = ops.maximum(ops.minimum(x, 2.0), ops.abs(x)) + ops.sqrt(ops.exp(x)) + ops.log(1 + ops.sigmoid(x))
    return (beta * mem + 0.1 * (grown + ops.tanh(x) + ops.sin(x) * ops.cos(x)),)


def custom() -> list[snn.EquationNeuron]:
    with ops.spiking_with(ops.heaviside):
        return [Soft(linear_features=WIDTH, learn="beta"), Rough(reset_mechanism="none")]


def surrogates() -> list[surrogate.Spike]:
    def height(u: ops.Value, width: float) -> ops.Value:
        return width / (width + u**2)

    found = surrogate.as_spike(surrogate.ATan.apply)
    assert found is not None
    return [
        *(found, surrogate.boxcar(), surrogate.exponential(), surrogate.fast_sigmoid(slope=10), surrogate.heaviside()),
        *(surrogate.LSO(), surrogate.no_gradient(), surrogate.SFS(), surrogate.sigmoid(), surrogate.SSO()),
        *(surrogate.spike_rate_escape(), surrogate.straight_through_estimator(), surrogate.triangle()),
        *(surrogate.triangular(), surrogate.custom_surrogate(lambda u, grad, spk: grad)),
        surrogate.Spike("height", height, {"width": 0.5}),
    ]


# -- networks over time ------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    last = snn.Leaky(beta=0.9, init_hidden=True, output=True)
    return nn.Sequential(nn.Linear(WIDTH, 5), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 3), last)


def over_time() -> tuple[Tensor, Tensor]:
    net = network()
    with snn.tuning(serial_below=0), snn.backend("loop"):
        spk, mem = snn.unroll(net, x, steps=STEPS, check=True)
    snn.reset(net)
    spk, mem = snn.unroll(net, x_seq, checkpoint=2)
    snn.detach(net)
    for out in snn.stream(net, [x_seq[:2], x_seq[2:]], detach=False):
        spk, mem = out
    utils.reset(net)
    name: str | None = snn.backend()
    assert name is None or name
    return spk, mem


def inspection() -> str:
    net = network()
    explanation: snn.Explanation = snn.explain(net, x, num_steps=STEPS)
    summary: snn.Summary = snn.summary(net, x, steps=STEPS)
    diagnosis: snn.Diagnosis = snn.diagnose(net, x_seq)
    findings: tuple[snn.Finding, ...] = diagnosis.findings
    with snn.tap(net) as tap:
        snn.unroll(net, x_seq)
    recorded: snn.Tap = tap
    recording: snn.Recording = recorded["1"]
    return f"{explanation.rows[0].backend} {summary.neurons} {findings} {recording.spk}"


# -- spikes, losses and learning ---------------------------------------------------------------------------------------


def spikes() -> Iterator[Tensor]:
    yield from (spikegen.rate(x, num_steps=STEPS), spikegen.rate_conv(x), spikegen.delta(x_seq, threshold=0.1))
    yield from (spikegen.latency(x, num_steps=STEPS, normalize=True), spikegen.population(x, STEPS, num_neurons=5))
    yield from (spikegen.phase(x, STEPS), spikegen.burst(x, 20), spikegen.receptive_fields(x, num_neurons=5))
    yield from (*spikegen.latency_code(x, STEPS), *spikegen.latency_code_linear(x, STEPS))
    yield from spikegen.latency_code_log(x, STEPS, normalize=True)
    yield spikegen.latency_interpolate(torch.tensor([0, 2]), num_steps=STEPS)
    yield spikegen.rate_interpolate(torch.tensor([0, 2]), num_steps=STEPS)
    yield from (spikegen.to_one_hot(labels, 3), spikegen.to_one_hot_inverse(spikegen.to_one_hot(labels, 3)))
    yield spikegen.from_one_hot(spikegen.to_one_hot(labels, 3))
    yield spikegen.target_rate_code(num_steps=STEPS, rate=0.5)[0]
    yield from (spikegen.targets_convert(labels, 3), spikegen.targets_rate(labels, 3, num_steps=STEPS))
    yield spikegen.targets_latency(labels, 3, num_steps=STEPS, normalize=True)
    encoders: list[spikegen.Encoder] = [
        *(spikegen.Rate(STEPS), spikegen.RateConv(), spikegen.Delta(), spikegen.Latency(STEPS, normalize=True)),
        *(spikegen.Population(STEPS, num_neurons=5), spikegen.Phase(STEPS), spikegen.Burst(20)),
    ]
    for encode in encoders:
        yield encode(x_seq if isinstance(encode, spikegen.Delta) else x)


def losses() -> Tensor:
    spk, _ = over_time()
    total: Tensor = (
        functional.l1_rate_sparsity(1e-4)(spk)
        + functional.rate_lower_bound(0.1)(spk)
        + functional.rate_upper_bound(0.5)(spk)
    )
    on_spikes: list[functional.LossFunctions] = [
        *(
            functional.ce_rate_loss(),
            functional.ce_count_loss(reduction="sum"),
            functional.ce_temporal_loss(),
            functional.mse_temporal_loss(),
        ),
        *(
            functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2),
            functional.ce_max_membrane_loss(),
            functional.mse_membrane_loss(),
        ),
    ]
    for loss in on_spikes:
        total = total + loss(spk, labels).sum()
    functional.SpikeTime()(spk, labels)
    return total * float(functional.accuracy_rate(spk, labels) + functional.accuracy_temporal(spk, labels))


def monitors() -> int:
    net, kinds = network(), list[functional.BaseMonitor]()
    kinds += [functional.OutputMonitor(net, nn.Linear), probe.InputMonitor(net, nn.Linear)]
    kinds += [functional.AttributeMonitor("mem", False, net, snn.Leaky)]
    kinds += [functional.GradInputMonitor(net, nn.Linear), functional.GradOutputMonitor(net, nn.Linear)]
    net(x)[0].sum().backward()
    return sum(len(monitor.records) for monitor in kinds) + len(functional.unpack_len1_tuple((x,)))


def local_learning() -> Tensor:
    fc, lif = nn.Linear(WIDTH, 5, bias=False), snn.Leaky(beta=0.9, init_hidden=True)
    learner = stdp_learner.STDPLearner(fc, lif, tau_pre=2.0, tau_post=2.0)
    lif(fc(x))
    learner.step(on_grad=True)
    pre, post = (x > 0.5).float(), torch.ones(BATCH, 5)
    stdp_learner.stdp_linear_single_step(fc, pre, post, None, None, 2.0, 2.0)
    stdp_learner.mstdp_linear_single_step(fc, pre, post, None, None, 2.0, 2.0)
    stdp_learner.mstdpet_linear_single_step(fc, pre, post, None, None, 2.0, 2.0, 5.0)
    lines, planes = torch.ones(BATCH, 1, 8), torch.ones(BATCH, 1, 8, 8)
    conv1d, conv2d = nn.Conv1d(1, 2, 3, bias=False), nn.Conv2d(1, 2, 3, bias=False)
    stdp_learner.stdp_conv1d_single_step(conv1d, lines, torch.ones(BATCH, 2, 6), None, None, 2.0, 2.0)
    stdp_learner.stdp_conv2d_single_step(conv2d, planes, torch.ones(BATCH, 2, 6, 6), None, None, 2.0, 2.0)
    return fc.weight


def training() -> float:
    utils.seed(0)
    net = network()
    optimizer, data = torch.optim.SGD(net.parameters(), lr=1e-3), [(x_seq, labels)]
    done = backprop.BPTT(net, data, optimizer, functional.ce_rate_loss())
    done = done + backprop.TBPTT(net, data, optimizer, functional.ce_rate_loss(), K=2)
    done = done + backprop.RTRL(net, data, optimizer, functional.ce_rate_loss())
    utils.free_memory()
    function: type[torch.autograd.Function] = quant.StateQuant
    quantized = snn.Leaky(beta=0.9, state_quant=quant.state_quant(num_bits=4))
    context = utils.recomputing(net)
    assert callable(context)
    distributed.scalars(net)
    return float(done) + len(function.__name__) + float(quantized(x)[0].sum())


class Digits(torch.utils.data.Dataset[Tensor]):
    """A dataset as those of torchvision."""

    def __init__(self) -> None:
        self.data, self.targets = torch.arange(8), torch.arange(8)


def datasets() -> None:
    utils.data_subset(Digits(), 2)
    utils.valid_split(Digits(), Digits(), 0.25, seed=1)
    distributed.average_gradients([], group=None)
    with snn.as_snntorch():
        pass


def measurements() -> str:
    net = network()
    measured: snn.metrics.Measurement = snn.metrics.measure(net, [(x_seq, labels)], steps=None)
    layer: snn.metrics.LayerMeasurement = measured.layers[0]
    prices: type[snn.metrics.Coefficients] = snn.metrics.Coefficients
    energy: snn.metrics.Energy = measured.energy("45nm float32")
    numbers = snn.metrics.parameter_count(net), snn.metrics.footprint(net), snn.metrics.connection_sparsity(net)
    return f"{layer} {prices} {energy} {numbers} {snn.metrics.neuron_operations(net[1])}"


def exports(folder: str) -> Tensor:
    graph = snn.export_to_nir(network(), x, dt=1e-4)
    back: nn.Module = snn.import_from_nir(graph, reset="zero")
    assert back is not graph
    made: snn.export.CFile = snn.export_c(network(), x, f"{folder}/net.c", "int8", steps=STEPS, prefix="net")
    assert made.path.exists()
    assert made.constants + made.state > len(made.lost)
    return snn.export.simulate_int8(network(), x, STEPS, calibration=x)


def files(folder: str) -> snn.OnnxExport:
    return snn.export_onnx(network(), x, f"{folder}/net.onnx", steps=STEPS, states="external", test=False)


def fused() -> Tensor:
    fast = snn.fuse(network(), checkpoint=4)
    explanation = snn.explain(fast, x)
    assert isinstance(explanation, snn.FusedExplanation | snn.Explanation)
    spk: Tensor = fast(x)[0]
    return spk


def events() -> Tensor:
    camera = snn.data.EventCamera(threshold=(0.2, 0.3), mismatch=0.03, refractory=100.0)
    seen = camera(snn.data.saccades(torch.rand(8, 8), steps=10), times=1000.0)
    for transform in (snn.data.EventDrop(0.1, "any"), snn.data.TimeJitter(10.0), snn.data.SpatialShift((8, 8, 2), 1)):
        seen = transform(seen)
    frames = snn.data.to_frames(seen, (8, 8, 2), n_time_bins=STEPS)
    batch: snn.data.Batch = snn.data.collate([(frames, 0), (frames[:2], 1)])
    file: snn.data.SpikeFile = snn.data.read_shd("shd_test.h5")
    heard = snn.data.inner_ear([[0.0, 1.0]], 8000, 16, hair_cell=snn.data.HairCell(), bushy_cell=snn.data.BushyCell())
    snn.data.write_shd(file.path, heard, file.labels)
    snn.data.level_crossing(snn.data.mel_spectrogram([0.0, 1.0], 8000), delta=0.3)
    snn.data.to_frames(snn.data.mel_events([0.0, 1.0], 8000), (40, 1, 2), event_count=10, steps=STEPS)
    for read in (snn.data.read_nmnist, snn.data.read_dat, snn.data.read_aedat, snn.data.read_stmnist):
        read("recording")
    assert snn.data.BasilarMembrane().mass > 0
    assert len(snn.data.make_events([0], [0]))
    loss: Tensor = snn.functional.ce_count_loss()(
        torch.rand(STEPS, 2, 4), batch.y, mask=snn.data.mask_of(batch.lengths)
    )
    return loss


def plots() -> None:
    from matplotlib import pyplot

    fig, ax = pyplot.subplots()
    spikeplot.raster(x_seq[:, 0], ax, s=2)
    spikeplot.traces(x_seq[:, 0], dim=(2, 3))
    spikeplot.learning_curve({"loss": [1.0, 0.5]}, ax)
    spikeplot.confusion_matrix(labels, labels, ax)
    spikeplot.spike_count(x_seq[:, 0], fig, ax, labels=["a"] * WIDTH)
    camera = spikeplot.Camera(fig)
    camera.snap()
    spikeplot.animator(x_seq, fig, ax)
    pyplot.close("all")


# -- mistakes ----------------------------------------------------------------------------------------------------------


def mistakes() -> None:
    snn.Laeky(beta=0.9)  # type: ignore[attr-defined]
    snn.Leaky(bta=0.9)  # type: ignore[call-arg]
    snn.Leaky(beta="high")  # type: ignore[arg-type]
    snn.ALIF(bta=0.9)  # type: ignore[call-arg]
    snn.ALIF(learn=3)  # type: ignore[arg-type]
    snn.RALIF(linear_feature=3)  # type: ignore[call-arg]
    snn.IF(reset_mechanisms="zero")  # type: ignore[call-arg]
    snn.unroll(network(), x, steps="25")  # type: ignore[arg-type]
    snn.unroll("net", x)  # type: ignore[arg-type]
    snn.explain(network(), x, num_steps="25")  # type: ignore[call-overload]
    snn.functional.ce_rate_los()  # type: ignore[attr-defined]
    snn.spikegen.rate(x, steps_num=3)  # type: ignore[call-arg]
    surrogate.atan(slope=2)  # type: ignore[call-arg]
    functional.mse_count_loss(rate=0.5)  # type: ignore[call-arg]
    snn.data.to_frame(x)  # type: ignore[attr-defined]
    ops.spikes(x)  # type: ignore[attr-defined]
    spikeplot.raster(x)  # type: ignore[call-arg]
    snn.cell(decay="beta")  # type: ignore[call-overload]
    utils.sed(1)  # type: ignore[attr-defined]
