"""Pictures of the home page and of the reference, in colors for light and dark pages.

The build draws a response of each neuron; `python docs/website/pictures.py` draws those in docs/static/ again.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import spikegen, surrogate

STEPS, ON, OFF = 150, 10, 110
INK = "#808080"  # axes and text: legible on white and on black
COLORS = ("#1f8fd6", "#de7c1a", "#12a37f")  # blue, orange and green of Okabe and Ito, of middle lightness

FEEDBACK = {"all_to_all": False, "V": -0.5}
NEURONS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "Leaky": (lambda: snn.Leaky(beta=0.9), 0.2),
    "RLeaky": (lambda: snn.RLeaky(beta=0.9, **FEEDBACK), 0.2),
    "Synaptic": (lambda: snn.Synaptic(alpha=0.8, beta=0.9), 0.05),
    "RSynaptic": (lambda: snn.RSynaptic(alpha=0.8, beta=0.9, **FEEDBACK), 0.05),
    "Lapicque": (lambda: snn.Lapicque(R=5, C=2), 0.4),
    "Alpha": (lambda: snn.Alpha(alpha=0.9, beta=0.8), 0.2),
    "DeltaLeaky": (lambda: snn.DeltaLeaky(0.1, beta=0.9), 0.2),
    "IF": (lambda: snn.IF(), 0.1),
    "LI": (lambda: snn.LI(), 0.1),
    "ParametricLIF": (lambda: snn.ParametricLIF(beta=0.9), 2.0),
    "NoisyLeaky": (lambda: snn.NoisyLeaky(beta=0.9), 0.15),
    "ALIF": (lambda: snn.ALIF(), 0.3),
    "RALIF": (lambda: snn.RALIF(**FEEDBACK), 0.3),
    "AdLIF": (lambda: snn.AdLIF(), 12.0),
    "CuBaLIF": (lambda: snn.CuBaLIF(period=8), 0.08),
    "QIF": (lambda: snn.QIF(tau=5), 0.4),
    "EIF": (lambda: snn.EIF(tau=5), 0.8),
    "Izhikevich": (lambda: snn.Izhikevich(), 10.0),
    "ResonateFire": (lambda: snn.ResonateFire(omega=0.3), 0.7),
    "StateLeaky": (lambda: snn.StateLeaky(0.9, 1), 0.12),
}
"""A neuron and a current that makes it fire; the neurons whose weights decide all have no picture."""


def response(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The spikes, the states by name, and the input of a neuron that receives a step of current."""
    make, current = NEURONS[name]
    x = torch.zeros(STEPS, 1, 1)
    x[ON:OFF] = current
    torch.manual_seed(0)
    neuron = make()
    with torch.no_grad(), snn.backend("loop"), snn.tap(neuron) as record:
        snn.unroll(neuron, x)
    states = {state: values.flatten() for state, values in record[""].states.items() if state != "spk"}
    first = {"mem": states["mem"]} if "mem" in states else {}
    return record[""].spk.flatten(), first | states, x.flatten()


def plain(axes: Axes) -> None:
    """Leave out what says nothing, and draw the rest in a color that both grounds allow."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(INK)
        label.set_size(10)


def save(figure: Figure, path: Path) -> None:
    """Write a picture; the same picture is the same file."""
    with plt.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def draw_neuron(name: str, path: Path) -> None:
    """Draw the input, the spikes and the states of one neuron, one above the other."""
    spk, states, x = response(name)
    panels = [x, *states.values()]
    heights = [0.6, *([1.5] + [0.8] * len(states))[: len(states)]]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(5.4, 0.5 + 0.8 * sum(heights)),
        sharex=True,
        height_ratios=heights,
        layout="constrained",
    )
    for panel, values, label, color in zip(axes, panels, ["input", *states], (INK, *COLORS, INK), strict=False):
        panel.plot(values, color=color, linewidth=1.6, drawstyle="steps-post" if label == "input" else "default")
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
        plain(panel)
    if spk.any() and name != "LI":
        top = axes[1]
        height = top.get_ylim()[1]
        top.vlines(spk.nonzero().flatten(), height, height + 0.15 * (height - top.get_ylim()[0]), color=COLORS[1])
        top.text(1, 1.04, "spikes", transform=top.transAxes, ha="right", color=COLORS[1], size=10)
    axes[-1].set_xlabel("step")
    save(figure, path)


def draw_neurons(folder: Path) -> None:
    """Draw the neurons that have no picture yet; `make clean` deletes them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NEURONS:
        if not (folder / f"{name}.svg").exists():
            draw_neuron(name, folder / f"{name}.svg")


def draw_home(path: Path) -> None:
    """Draw the picture of the home page: a current, the membrane of one neuron, and the spikes of a hundred."""
    torch.manual_seed(4)
    T = 200
    current = 0.16 + 0.1 * torch.sin(torch.arange(T) / 16).clamp(min=-0.6) + 0.02 * torch.randn(T)
    gains = torch.cat([torch.ones(1), torch.linspace(0.4, 1.4, 99)])
    with torch.no_grad(), snn.backend("loop"):
        spk, mem = snn.unroll(snn.Leaky(beta=0.9), current[:, None] * gains)
    figure, axes = plt.subplots(
        3, 1, figsize=(5.6, 4), sharex=True, height_ratios=(0.7, 1.2, 1.6), layout="constrained"
    )
    axes[0].plot(current, color=INK, linewidth=1.6)
    axes[1].plot(mem[:, 0], color=COLORS[0], linewidth=1.8)
    axes[1].axhline(1, color=INK, linestyle="--", linewidth=1)
    axes[1].vlines(spk[:, 0].nonzero().flatten(), 1.2, 1.5, color=COLORS[1], linewidth=1.8)
    step, neuron = spk[:, 1:].nonzero(as_tuple=True)
    axes[2].scatter(step, neuron, s=2.5, color=COLORS[1], linewidths=0)
    for panel, label in zip(axes, ("current", "membrane\nof a neuron", "spikes of\n99 neurons"), strict=True):
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
        panel.set_yticks([])
        plain(panel)
    axes[1].set_yticks([1], ["threshold"])
    axes[2].set_xlabel("step")
    save(figure, path)


def draw_surrogates(path: Path) -> None:
    """Draw the derivative of each surrogate around the threshold, with its default arguments or those in its title."""
    shown = {
        "atan()": surrogate.atan(),
        "sigmoid(slope=5)": surrogate.sigmoid(slope=5),
        "fast_sigmoid(slope=5)": surrogate.fast_sigmoid(slope=5),
        "gaussian()": surrogate.gaussian(),
        "exponential()": surrogate.exponential(),
        "spike_rate_escape()": surrogate.spike_rate_escape(),
        "triangle()": surrogate.triangle(),
        "boxcar()": surrogate.boxcar(),
        "triangular()": surrogate.triangular(),
        "straight_through_estimator()": surrogate.straight_through_estimator(),
        "heaviside()": surrogate.heaviside(),
        "LSO()": surrogate.LSO(),
        "SFS()": surrogate.SFS(),
        "SSO(mean=0.2)": surrogate.SSO(mean=0.2),
    }
    torch.manual_seed(0)
    figure, axes = plt.subplots(5, 3, figsize=(6.4, 7), sharex=True, layout="constrained")
    for panel, (title, spike) in zip(axes.flat, shown.items(), strict=False):
        u = torch.linspace(-2, 2, 401, requires_grad=True)
        spike(u).sum().backward()
        panel.axvline(0, color=INK, linestyle="--", linewidth=0.8)
        panel.plot(u.detach(), u.grad, color=COLORS[0], linewidth=1.6)
        panel.set(title=title, xlabel="u" if panel in axes[-1] else "")
        plain(panel)
        panel.title.set_size(8.5)
    axes[-1, -1].axis("off")
    save(figure, path)


def draw_codes(path: Path) -> None:
    """Draw the spikes of each code for twenty values that rise to 1."""
    torch.manual_seed(0)
    T, values = 32, torch.linspace(0.05, 1, 20)
    trains = {
        "rate": spikegen.rate(values, T),
        "latency, linear": spikegen.latency(values, T, normalize=True, linear=True),
        "latency": spikegen.latency(values, T, tau=6, normalize=True),
        "burst": spikegen.burst(values, T),
        "phase": spikegen.phase(values, T).sign(),
        "population of 20, one value of 0.4": spikegen.population(torch.tensor([0.4]), T, num_neurons=20)[:, 0],
    }
    figure, axes = plt.subplots(3, 2, figsize=(6.4, 5.4), sharex=True, layout="constrained")
    for panel, (title, spk) in zip(axes.flat, trains.items(), strict=True):
        step, neuron = spk.nonzero(as_tuple=True)
        panel.scatter(step, neuron / max(1, spk.shape[1] - 1), s=9, marker="|", color=COLORS[1])
        panel.set(title=title, ylim=(-0.08, 1.08), xlim=(-1, T))
        panel.set_yticks([0, 1], ["0.05", "1"])
        plain(panel)
    for panel in axes[:, 0]:
        panel.set_ylabel("value", rotation=0, ha="right", va="center")
        plain(panel)
    axes[2, 1].set_yticks([0, 1], ["first", "last"])
    for panel in axes[-1]:
        panel.set_xlabel("step")
        plain(panel)
    save(figure, path)


if __name__ == "__main__":
    static = Path(__file__).parent.parent / "static"
    draw_home(static / "home.svg")
    draw_surrogates(static / "surrogates.svg")
    draw_codes(static / "codes.svg")
