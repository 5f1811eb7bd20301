"""Draws docs/reset_timing.svg from what the layer returns: run `python docs/reset_timing.py` after changing either."""

from dataclasses import dataclass
from pathlib import Path

import torch

import spikeloom as snn

PICTURE = Path(__file__).with_name("reset_timing.svg")

BETA, THRESHOLD, INPUT, STEPS = 0.5, 1.0, 0.75, 8

INK, SOFT, GRID, MEMBRANE, SPIKE, RESET = "#1f2937", "#6b7280", "#e5e7eb", "#2563eb", "#ea580c", "#7c3aed"
LEFT, STEP, PANEL, WIDTH = 108, 80, 316, 780
FLOOR, UNIT = 196, 112
"""Where, in a panel, the membrane is zero, and how many pixels one threshold takes."""


@dataclass(frozen=True)
class Moment:
    """One step: the membrane before any immediate reset, the one that is returned, R, and whether it fired."""

    charged: float
    mem: float
    fired_before: bool
    spk: bool


def moments(delayed: bool) -> list[Moment]:
    """The steps of a layer with reset_mechanism="subtract" and a constant input."""
    lif = snn.Leaky(beta=BETA, threshold=THRESHOLD, reset_delay=delayed)
    seen, mem = [], torch.zeros(1, dtype=torch.float64)
    for _ in range(STEPS):
        before, (spk, mem) = mem, lif(torch.tensor([INPUT], dtype=torch.float64), mem)
        fired = bool(before > THRESHOLD)
        charged = BETA * before.item() + INPUT - fired * THRESHOLD
        seen.append(Moment(charged, mem.item(), fired, bool(spk)))
    return seen


def text(
    x: float, y: float, words: str, color: str = INK, size: int = 13, anchor: str = "start", weight: int = 400
) -> str:
    """Words that begin, end or are centred at a point."""
    style = f'fill="{color}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{words}</text>'


def line(points: list[tuple[float, float]], color: str, width: float = 1.5, dash: str = "", end: str = "") -> str:
    """A line through points."""
    style = f'fill="none" stroke="{color}" stroke-width="{width:g}"'
    style += f' stroke-dasharray="{dash}"' if dash else ""
    style += f' marker-end="url(#{end})"' if end else ""
    return f'<polyline points="{" ".join(f"{x:g},{y:g}" for x, y in points)}" {style}/>'


def dot(x: float, y: float, color: str, hollow: bool = False) -> str:
    """A dot."""
    style = f'fill="{"white" if hollow else color}" stroke="{color}" stroke-width="2"'
    return f'<circle cx="{x:g}" cy="{y:g}" r="4.5" {style}/>'


def height(mem: float) -> float:
    """Where a membrane stands in its panel."""
    return round(FLOOR - UNIT * mem, 1)


def left_of(step: int) -> float:
    """Where a step begins."""
    return LEFT + STEP * step


def middle_of(step: int) -> float:
    """Where the dot of a step stands."""
    return left_of(step) + STEP / 2


def membrane(seen: list[Moment]) -> list[str]:
    """The membrane as steps, a dot where it is returned, a hollow one where it fired and was reset at once."""
    stairs = []
    for t, m in enumerate(seen):
        middle, charged, mem = middle_of(t), height(m.charged), height(m.mem)
        stairs += [(left_of(t), charged), (middle, charged), (middle, mem), (left_of(t + 1), mem)]
    threshold, zero = ([(LEFT, height(v)), (left_of(STEPS), height(v))] for v in (THRESHOLD, 0.0))
    marks = [line(threshold, SOFT, 1.2, "5 4"), line(zero, GRID, 1.2), line(stairs, MEMBRANE, 2)]
    marks += [
        text(LEFT - 12, height(THRESHOLD) + 4, "threshold", SOFT, anchor="end"),
        text(LEFT - 12, height(0.5) + 4, "mem", MEMBRANE, 15, "end", 600),
        text(LEFT - 12, FLOOR + 4, "0", SOFT, anchor="end"),
    ]
    return marks + [mark for t, m in enumerate(seen) for mark in dots(m, middle_of(t))]


def dots(m: Moment, x: float) -> list[str]:
    """The membrane of one step, with its number."""
    y, at_once = height(m.mem), m.charged != m.mem
    color = SPIKE if m.spk and not at_once else MEMBRANE
    if not at_once:
        crossing = 0.75 < m.mem < THRESHOLD  # a number above the dot would lie on the threshold's line
        return [dot(x, y, color), text(x, y + 20 if crossing else y - 10, f"{m.mem:.3f}", color, 12, "middle")]
    top = height(m.charged)
    return [
        line([(x, top + 6), (x, y - 7)], RESET, 1.8, end="tip"),
        dot(x, top, SPIKE, hollow=True),
        text(x, top - 10, f"{m.charged:.3f}", SPIKE, 12, "middle"),
        dot(x, y, color),
        text(x - 10, y + 4, f"{m.mem:.3f}", color, 12, "end"),
    ]


def pulses(values: list[bool], top: float, name: str, color: str) -> list[str]:
    """A row that is high in the steps where its value is 1."""
    edge = [(x, top + (4 if v else 24)) for t, v in enumerate(values) for x in (left_of(t), left_of(t + 1))]
    ones = [text(middle_of(t), top + 20, "1", color, 12, "middle", 600) for t, v in enumerate(values) if v]
    return [text(LEFT - 12, top + 19, name, color, 15, "end", 600), line(edge, color, 2), *ones]


def panel(delayed: bool, top: float) -> list[str]:
    """One choice of reset_delay."""
    seen = moments(delayed)
    title = "the reset acts one step after the spike" if delayed else "the reset acts in the step of the spike"
    marks = [text(LEFT, 22, f"reset_delay={delayed}", INK, 15, weight=600)]
    marks += [text(LEFT + (150 if delayed else 158), 22, f"{title}{' (the default)' if delayed else ''}", SOFT, 14)]
    marks += [line([(left_of(t), 36), (left_of(t), 276)], GRID, 1) for t in range(STEPS + 1)]
    marks += membrane(seen)
    marks += pulses([m.spk for m in seen], 212, "spk", SPIKE)
    marks += pulses([m.fired_before for m in seen], 246, "R", RESET)
    for t, m in enumerate(seen):
        if m.fired_before:  # from the spike to the R that remembers it
            elbow = [(middle_of(t - 1), 241), (middle_of(t - 1), 260), (left_of(t) - 4, 260)]
            marks.append(line(elbow, RESET, 1.8, end="tip"))
    marks += [text(middle_of(t), 296, f"{t + 1}", SOFT, 13, "middle") for t in range(STEPS)]
    marks.append(text(LEFT - 12, 296, "step", SOFT, anchor="end"))
    return [f'<g transform="translate(0 {top:g})">', *marks, "</g>"]


def drawing() -> str:
    """The picture, as the text of an SVG file."""
    arrow = '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    arrow += f'<path d="M0,0 L8,4 L0,8 z" fill="{RESET}"/></marker>'
    size = f'width="{WIDTH}" height="{2 * PANEL}" viewBox="0 0 {WIDTH} {2 * PANEL}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    parts = [head, f"<defs>{arrow}</defs>", f'<rect width="{WIDTH}" height="{2 * PANEL}" rx="8" fill="white"/>']
    return "\n".join([*parts, *panel(True, 4), *panel(False, PANEL), "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawing())
