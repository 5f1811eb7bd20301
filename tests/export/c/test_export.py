"""A network as C: the spikes of the library, in floating point and in integers."""

import subprocess

import torch
from torch import nn

import spikeloom as snn
from spikeloom import ops
from tests.export.c.program import COMPILERS, Program, compiled, executed, needs_compiler

pytestmark = needs_compiler

UNIT = {"init_hidden": True}


@snn.cell
def Echo(x, mem, trace, *, beta=0.8, gain=0.3):
    """Fires on its membrane and the trace of its spikes."""
    mem = beta * mem + x
    spk = ops.spike(mem - 1.0 - gain * trace)
    return spk, ops.where(spk > 0, 0.0, mem), ops.clamp(trace + spk - 0.1, 0.0, 4.0)


@snn.charge(decays=("slow",))
def Two(x, trace, mem, *, slow=0.9):
    """Two time scales with a standard reset."""
    trace = slow * trace + x
    return trace, 0.5 * mem + trace / 3.0


def firing(memory: snn.AssociativeLeaky) -> snn.AssociativeLeaky:
    """The same with larger values, so that it fires."""
    with torch.no_grad():
        memory.to_v.bias.fill_(2.0)
        memory.to_k.bias.copy_(torch.linspace(-2.0, 2.0, 4))
    return memory


torch.manual_seed(0)  # of the weights below
NEURONS = {
    "Leaky": snn.Leaky(0.9),
    "Leaky zero": snn.Leaky(torch.linspace(0.1, 1, 12), reset_mechanism="zero", threshold=torch.linspace(0.5, 2, 12)),
    "Leaky none": snn.Leaky(0.5, reset_mechanism="none", decay="tau", learn_beta=True),
    "Leaky at once": snn.Leaky(0.9, reset_delay=False),
    "Leaky zero at once": snn.Leaky(0.9, reset_delay=False, reset_mechanism="zero", graded_spikes_factor=0.75),
    "Synaptic": snn.Synaptic(0.7, 0.8),
    "Alpha": snn.Alpha(0.9, 0.6, threshold=0.4),
    "Alpha subtract": snn.Alpha(0.9, 0.6, threshold=0.4, reset_mechanism="subtract"),
    "Lapicque": snn.Lapicque(R=5.0, C=1.0),
    "DeltaLeaky": snn.DeltaLeaky(beta=0.8, delta_threshold=0.3),
    "RLeaky": snn.RLeaky(0.8, V=-0.4, all_to_all=False),
    "RSynaptic": snn.RSynaptic(0.7, 0.8, V=0.3, all_to_all=False, reset_mechanism="zero"),
    "IF": snn.IF(),
    "ParametricLIF": snn.ParametricLIF(0.5),
    "ALIF": snn.ALIF(),
    "AdLIF": snn.AdLIF(beta=0.5, a=0.0, b=1.0, threshold=0.5),
    "QIF": snn.QIF(),
    "CuBaLIF": snn.CuBaLIF(),
    "Izhikevich": snn.Izhikevich(),
    "ResonateFire": snn.ResonateFire(),
    "StateLeaky": snn.StateLeaky(0.5, 12),
    "user cell": Echo(),
    "user charge": Two(reset_mechanism="zero"),
}
"""Neurons whose C has the library's bits."""

ROUNDED = {
    "LI": snn.LI(),
    "EIF": snn.EIF(),
    "SLSTM": snn.SLSTM(12, 12, threshold=0.1, reset_mechanism="subtract"),
    "RLeaky Linear": snn.RLeaky(0.8, linear_features=12),
    "LinearLeaky": snn.LinearLeaky(0.8, 12, 12),
    "LeakyParallel": snn.LeakyParallel(12, 12, 0.05, weight_hh_enable=True),
    "AssociativeLeaky": firing(snn.AssociativeLeaky(12, 3, 4, 12)),
}
"""Those with sums or elementary functions, whose values agree to rounding; and LI, which has no spikes."""


def drive(name: str, steps: int = 60) -> torch.Tensor:
    """Inputs that make a neuron fire, [T, 1, 12]."""
    torch.manual_seed(len(name))
    x = torch.rand(steps, 1, 12) * 1.5 - 0.2
    return x * 40 if name == "Izhikevich" else x


def spikes(net: nn.Module, x: torch.Tensor, steps: int | None = None) -> torch.Tensor:
    """The library's first output."""
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.reset_mem()
    with torch.no_grad(), snn.backend("loop"):
        outs = snn.unroll(net, x, steps=steps, check=False)
    return outs[0] if isinstance(outs, tuple) else outs


def grid(net: nn.Module) -> nn.Module:
    """The network with weights whose sums are exact: multiples of 1/64."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            fan = module.weight[0].numel()
            module.weight.data = ((torch.randn_like(module.weight) + 0.2) * 192 / fan**0.5).round() / 64
            if module.bias is not None:
                module.bias.data = (torch.rand_like(module.bias) * 16).round() / 64
    return net


def test_neurons_have_the_spikes_of_the_library(tmp_path):
    for k, (name, neuron) in enumerate((NEURONS | ROUNDED).items()):
        x = drive(name)
        wanted = spikes(neuron, x)[:, 0]
        made = snn.export_c(neuron, x, tmp_path / f"n{k}.c", prefix=f"n{k}")
        found = Program(made, wanted.shape[1]).run(x)
        assert wanted.count_nonzero() > 5, f"{name} is silent"
        if name in NEURONS:
            assert torch.equal(found, wanted), name
        else:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, msg=name)


def test_integers_have_the_bits_of_the_simulation_and_about_the_spikes_of_the_library(tmp_path):
    for k, (name, neuron) in enumerate((NEURONS | ROUNDED).items()):
        x = drive(name, steps=30)
        wanted = snn.export.simulate_int8(neuron, x)[:, 0]
        made = snn.export_c(neuron, x, tmp_path / f"n{k}.c", "int8", prefix=f"n{k}")
        spiking = bool(((wanted == 0) | (wanted == 1)).all())
        program = Program(made, wanted.shape[1], torch.int8, torch.int8 if spiking else torch.int32)
        scale = float(x.abs().max()) / 127
        found = program.run((x * torch.tensor(1 / scale)).round().to(torch.int8)).to(torch.float64)
        unit = 1.0 if spiking else float(wanted.abs().max() / found.abs().max())
        assert torch.equal((found * unit).to(torch.float32), wanted) or not spiking, name
        torch.testing.assert_close((found * unit).to(torch.float32), wanted, rtol=1e-6, atol=0, msg=name)
        reference = spikes(neuron, x)[:, 0]
        assert abs(float((wanted - reference).mean())) < 0.05 * float(reference.abs().mean()) + 0.02, name


def test_a_million_neuron_steps_have_equal_spikes(tmp_path):
    """With every compiler, and where it may fuse multiplications and additions."""
    torch.manual_seed(0)
    neuron, x = snn.Synaptic(0.7, torch.rand(4000), threshold=0.8), torch.rand(250, 1, 4000)
    made = snn.export_c(neuron, x, tmp_path / "net.c")
    wanted = spikes(neuron, x)[:, 0]
    fused = ["-std=gnu99", "-mfma"] if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else []
    for compiler in COMPILERS:
        for flags in {(), tuple(fused)}:
            found = Program(made, 4000, compiler=compiler, flags=flags).run(x)
            assert torch.equal(found, wanted), (compiler, flags)
    assert 0.05 < float(wanted.mean()) < 0.95


class Residual(nn.Module):
    """Convolutions, pooling and a sum of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, (3, 5), padding=(1, 2), stride=(2, 1))
        self.lif1 = snn.Leaky(torch.tensor([0.5, 0.75, 0.25, 1.0]).view(4, 1, 1), **UNIT)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.lif2 = snn.Leaky(0.5, **UNIT)
        self.lif3 = snn.Leaky(0.5, **UNIT, output=True)
        self.fc = nn.Linear(4 * 3 * 4, 5)

    def forward(self, x):
        first = self.lif1(self.conv1(x))
        both = torch.relu(self.lif2(self.conv2(first)) + first)
        return self.lif3(self.fc(both.flatten(1)))


NETWORKS = {
    "dense": (
        nn.Sequential(nn.Linear(40, 30), snn.Leaky(0.5, **UNIT), nn.Linear(30, 7), snn.Leaky(0.75, **UNIT)),
        (40,),
    ),
    "residual": (Residual(), (2, 6, 4)),
    "conv1d": (
        nn.Sequential(
            nn.Conv1d(2, 4, 3, padding="same"),
            nn.MaxPool1d(2, padding=1),
            snn.Leaky(0.5, **UNIT),
            nn.AvgPool1d(2, stride=1),
            nn.Flatten(),
            nn.Linear(4 * 4, 3),
            snn.Leaky(0.5, **UNIT),
        ),
        (2, 8),
    ),
    "pooling": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            snn.Leaky(0.5, **UNIT),
            nn.AvgPool2d(2, stride=2, padding=1),
            nn.Conv2d(4, 3, 2),
            snn.RLeaky(0.5, conv2d_channels=3, kernel_size=3, **UNIT),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 4, bias=False),
            snn.Leaky(0.5, **UNIT),
        ),
        (1, 13, 13),
    ),
    "recurrent": (
        nn.Sequential(
            nn.Linear(20, 16), snn.RSynaptic(0.5, 0.5, linear_features=16, **UNIT), nn.Linear(16, 3), snn.IF(**UNIT)
        ),
        (20,),
    ),
}


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network with exact sums and spikes to run it, [T, 3, ...]."""
    torch.manual_seed(1)
    net, shape = NETWORKS[name]
    return grid(net).eval(), (torch.rand(40, 3, *shape) < 0.3).float()


def test_networks_have_the_spikes_of_the_library(tmp_path):
    """In both kinds of input, in floating point; and the bits of the simulation in integers."""
    for name in NETWORKS:
        net, x = network(name)
        wanted = spikes(net, x).flatten(2)
        assert 0.01 < float(wanted.mean()) < 0.99, f"{name} is silent"
        made = snn.export_c(net, x, tmp_path / f"{name}.c")
        program = Program(made, wanted.shape[2])
        whole = snn.export_c(net, x, tmp_path / f"{name}-int8.c", "int8")
        integers = Program(whole, wanted.shape[2], torch.int8)
        simulated = snn.export.simulate_int8(net, x).flatten(2)
        if name not in ("pooling", "recurrent"):  # where one other spike changes all that follow
            assert abs(float((simulated - wanted).mean())) < 0.1, name
        for row in range(3):
            assert torch.equal(program.run(x[:, row]), wanted[:, row]), name
            assert torch.equal(integers.run(x[:, row]).float(), simulated[:, row]), name
            for steps in (program, integers):
                steps.reset()
                events = [steps.step_events([*x_t.flatten().nonzero().flatten().tolist(), 60000]) for x_t in x[:, row]]
                assert torch.equal(torch.stack(events).float(), (wanted if steps is program else simulated)[:, row]), (
                    name
                )


def test_batch_norm_is_folded_into_the_weights(tmp_path):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.rand(3), torch.rand(3) + 0.5
    lone = nn.BatchNorm1d(3)
    lone.running_mean, lone.running_var = torch.rand(3), torch.rand(3) + 0.5
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), lone)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), norm, *pool, snn.LI(**UNIT)).eval()
    x = torch.rand(20, 2, 1, 5, 5)
    made = snn.export_c(net, x, tmp_path / "net.c")
    wanted = spikes(net, x)
    torch.testing.assert_close(Program(made, 3).run(x[:, 1]), wanted[:, 1], rtol=1e-4, atol=1e-4)
    text = made.path.read_text()
    assert "batchnorm2d_1" not in text
    assert "batchnorm1d_4_scale" in text
    net.train()
    torch.testing.assert_close(
        Program(snn.export_c(net, x, tmp_path / "train.c"), 3).run(x[:, 1]), wanted[:, 1], rtol=1e-4, atol=1e-4
    )
    assert net.training


def test_double_precision(tmp_path):
    net, x = network("recurrent")
    made = snn.export_c(net.double(), x.double(), tmp_path / "net.c")
    assert torch.equal(Program(made, 3, torch.float64).run(x[:, 0]), spikes(net, x.double())[:, 0])
    net.float()


def test_programs_in_the_file_read_samples_and_test_themselves(tmp_path):
    torch.manual_seed(0)
    net = grid(
        nn.Sequential(nn.Linear(12, 9), snn.Leaky(0.5, **UNIT), nn.Linear(9, 4), snn.Leaky(0.5, **UNIT, output=True))
    )
    x = (torch.rand(5, 12) * 8).round() / 8
    for number in ("float", "int8"):
        made = snn.export_c(net, x, tmp_path / f"{number}.c", number, steps=25, prefix="digits")
        for compiler in COMPILERS:
            test = compiled(made.path, "-DDIGITS_TEST", compiler=compiler, output="test")
            assert executed(test) == (0, "0 of 400 outputs differ\n"), (number, compiler)
        counts = spikes(net, x, 25) if number == "float" else snn.export.simulate_int8(net, x, 25)
        text = "\n".join(" ".join(map(str, row)) for row in x.tolist())
        status, shown = executed(compiled(made.path, "-DDIGITS_MAIN", output="main"), text)
        assert status == 0
        assert [[float(n) for n in line.split()] for line in shown.splitlines()] == counts.sum(0).tolist(), number
        assert executed(tmp_path / f"{number}-main", "1 2 3")[0] == 1, "half a sample is an error"


def test_the_generated_test_finds_a_wrong_spike(tmp_path):
    net, x = network("dense")
    made = snn.export_c(net, x, tmp_path / "net.c")
    text = made.path.read_text()
    wrong = text.replace("beta * mem + x[n] - fired * threshold", "beta * mem + x[n] - fired * 0.5f")
    assert wrong != text
    (tmp_path / "wrong.c").write_text(wrong)
    status, shown = executed(compiled(tmp_path / "wrong.c", "-DNET_TEST"))
    assert status == 1
    assert not shown.startswith("0 of")


def test_fast_math_is_refused(tmp_path):
    net, x = network("dense")
    made = snn.export_c(net, x, tmp_path / "net.c")
    run = subprocess.run(
        [COMPILERS[0], "-ffast-math", "-c", str(made.path), "-o", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode
    assert "fast-math" in run.stderr


def test_a_program_may_hold_two_networks_and_several_states(tmp_path):
    net, x = network("dense")
    for prefix in ("one", "two"):
        snn.export_c(net, x, tmp_path / f"{prefix}.c", prefix=prefix)
    (tmp_path / "use.c").write_text(
        """
#define ONE_INTERFACE
#define TWO_INTERFACE
#include <stdio.h>
#include "one.c"
#include "two.c"
int main(void)
{
    static struct one a, b;
    static struct two c;
    static float x[ONE_INPUTS], total[ONE_OUTPUTS];
    for (int i = 0; i < ONE_INPUTS; i++)
        x[i] = i % 3 == 0;
    one_reset(&a);
    one_reset(&b);
    two_reset(&c);
    long differ = 0;
    for (int step = 0; step < 9; step++) {
        const float *first = one_step(&a, x);
        if (step >= 4) {
            const float *late = one_step(&b, x);
            (void)late;
        }
        const float *other = two_step(&c, x);
        for (int k = 0; k < ONE_OUTPUTS; k++)
            differ += first[k] != other[k];
    }
    one_run(&b, x, 0, total);
    printf("%ld\\n", differ);
    return 0;
}
"""
    )
    use = compiled(tmp_path / "use.c", str(tmp_path / "one.c"), str(tmp_path / "two.c"))
    assert executed(use) == (0, "0\n")


def test_the_source_reads_like_the_equation(tmp_path):
    text = snn.export_c(snn.ALIF(), torch.rand(3, 1, 4), tmp_path / "net.c").path.read_text()
    for line in (
        " *     adapt' = rho * adapt + fired\n",
        " *     spk    = H(mem' - threshold - kappa * adapt')\n",
        "    const float rho = 0.97f;\n",
        "        float adapt = net->alif_0_adapt[n];\n",
        "        const float fired = spike(mem - threshold - kappa * adapt);\n",
        "        mem = beta * mem + x[n] - fired * threshold;\n",
        "        out[n] = spike(mem - threshold - kappa * adapt);\n",
    ):
        assert line in text, line
    for part in ("malloc", "#include <string.h>", "#include <stdlib.h>"):
        assert part not in text


def test_code_is_small(tmp_path):
    """784-100-10 in under 20 kB of code, weights apart."""
    net = nn.Sequential(nn.Linear(784, 100), snn.Leaky(0.9, **UNIT), nn.Linear(100, 10), snn.Leaky(0.9, **UNIT))
    for number in ("float", "int8"):
        made = snn.export_c(net, torch.rand(2, 784), tmp_path / f"{number}.c", number, steps=25)
        compiled(made.path, "-c", output="o")
        sections = subprocess.run(
            ["size", "-A", str(tmp_path / f"{number}-o")], capture_output=True, text=True, check=True
        ).stdout
        sizes = {row.split()[0]: int(row.split()[1]) for row in sections.splitlines() if row.startswith(".")}
        assert sizes[".text"] < 20_000
        assert made.constants == {"float": 4 * 79510, "int8": 79400 + 880}[number]
