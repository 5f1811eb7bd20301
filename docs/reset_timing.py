"""Draws docs/reset_timing.png from the outputs of `Leaky`. Run `python docs/reset_timing.py` after changing either."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

import spikeloom as snn

PICTURE = Path(__file__).with_name("reset_timing.png")
BETA, INPUT, STEPS = 0.5, 0.75, 8
MEMBRANE, SPIKE, RESET, SOFT = "#2563eb", "#ea580c", "#7c3aed", "#6b7280"

Row = tuple[float, float, float, float]
"""One step: the membrane before an immediate reset, the returned membrane, spk and R."""


def rows(delayed: bool) -> list[Row]:
    """Run a layer with reset_mechanism="subtract", threshold 1 and a constant input."""
    lif = snn.Leaky(beta=BETA, reset_delay=delayed)
    seen, mem = [], torch.zeros(1, dtype=torch.float64)
    for _ in range(STEPS):
        before = mem
        spk, mem = lif(torch.tensor([INPUT], dtype=torch.float64), before)
        fired = lif.mem_reset(before)
        charged = BETA * before + INPUT - fired
        seen.append((charged.item(), mem.item(), spk.item(), fired.item()))
    return seen


def draw(axes: Axes, delayed: bool) -> None:
    """Draw one panel: the membrane as a step plot with its values, and below it spk and R as pulses."""
    seen = rows(delayed)
    edges = [edge for t in range(STEPS) for edge in (t + 0.5, t + 1, t + 1, t + 1.5)]
    axes.plot(edges, [m for charged, mem, _, _ in seen for m in (charged, charged, mem, mem)], color=MEMBRANE)
    axes.axhline(1, color=SOFT, linestyle="--", linewidth=1)
    for t, (charged, mem, spk, fired) in enumerate(seen, start=1):
        at_once = charged != mem
        color = SPIKE if spk and not at_once else MEMBRANE
        axes.plot(t, mem, "o", color=color)
        below = 0.7 < mem < 1 or at_once  # where a label above the dot would overlap a line
        axes.annotate(
            f"{mem:.3f}", (t, mem), (0, -15 if below else 8), textcoords="offset points", ha="center", color=color
        )
        if at_once:
            axes.plot(t, charged, "o", color=SPIKE, markerfacecolor="white", zorder=3)
            axes.annotate(f"{charged:.3f}", (t, charged), (0, 8), textcoords="offset points", ha="center", color=SPIKE)
            axes.annotate("", (t, mem + 0.06), (t, charged - 0.05), arrowprops={"arrowstyle": "->", "color": RESET})
        if fired:  # an arrow from the spike to the R that it causes
            axes.annotate("", (t - 0.5, -0.95), (t - 1, -0.62), arrowprops={"arrowstyle": "->", "color": RESET})
    for index, floor, name, color in ((2, -0.6, "spk", SPIKE), (3, -1.05, "R", RESET)):
        axes.step(
            [t + 0.5 for t in range(STEPS + 1)],
            [floor + 0.3 * row[index] for row in (*seen, seen[-1])],
            where="post",
            color=color,
        )
        axes.text(0.4, floor, name, ha="right", color=color, weight="bold")
    axes.text(0.4, 0.45, "mem", ha="right", color=MEMBRANE, weight="bold")
    axes.set_title(
        f"reset_delay={delayed}: the reset acts {'one step after' if delayed else 'in the step of'} the spike"
        f"{' (the default)' if delayed else ''}",
        loc="left",
    )
    axes.set(xlim=(0.5, STEPS + 0.5), ylim=(-1.2, 1.5), yticks=[0, 1], yticklabels=["0", "threshold"], xlabel="step")
    axes.set_xticks(range(1, STEPS + 1))
    axes.grid(axis="y", alpha=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Draw and save both panels."""
    plt.rcParams["font.size"] = 11
    figure, panels = plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    for axes, delayed in zip(panels, (True, False), strict=True):
        draw(axes, delayed)
    # stored in the file, so that a test can compare the picture with the current layer
    figure.savefig(PICTURE, dpi=110, metadata={"Description": repr([rows(True), rows(False)])})


if __name__ == "__main__":
    main()
