"""Estimates of energy: numbers of operations times the energy of one, from published tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

HOROWITZ = "Horowitz, 'Computing's energy problem (and what we can do about it)', ISSCC 2014, 45 nm, 0.9 V"
JOUPPI = "Jouppi et al., 'Ten lessons from three generations shaped Google's TPUv4i', ISCA 2021, table 2, 7 nm"
DAVIES = (
    "Davies et al., 'Loihi: a neuromorphic manycore processor with on-chip learning', 2018, table 2, 14 nm, simulated"
)
MEROLLA = "Merolla et al., 'A million spiking-neuron integrated circuit', Science 345, 2014, 28 nm, measured"

LEAVES_OUT = (
    "The estimate counts arithmetic alone. It leaves out reading weights and states from memory, which often costs "
    "more than the arithmetic, routing spikes, converting inputs, clocks, control and leakage; it ranks networks and "
    "does not predict a chip."
)
"""What an estimate by operations leaves out."""


@dataclass(frozen=True)
class Coefficients:
    """Energy of single operations in pJ, with their source.

    Args:
        name: name.
        source: publication.
        add: an addition; an accumulate operation is one.
        multiply: a multiplication. None for a chip that has no multiply-accumulate operations.
        update: one update of a neuron, whatever its equation. None: the sum of its operations, where a comparison
            costs an addition, and a division or a function such as exp a multiplication, a lower bound.

        >>> import spikeloom as snn
        >>> snn.metrics.COEFFICIENTS["45nm float32"].mac
        4.6
        >>> mine = snn.metrics.Coefficients("mine", "measured on my board", add=0.2, multiply=1.5)
    """

    name: str
    source: str
    add: float
    multiply: float | None = None
    update: float | None = None

    def __post_init__(self) -> None:
        for name in ("add", "multiply", "update"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value!r}; pass an energy in pJ, 0 or more")
        if self.multiply is None and self.update is None:
            raise ValueError("pass multiply, the energy of a multiplication, or update, that of a neuron's update")

    @property
    def ac(self) -> float:
        """An accumulate operation, in pJ."""
        return self.add

    @property
    def mac(self) -> float | None:
        """A multiply-accumulate operation, in pJ; None if there are none."""
        return None if self.multiply is None else round(self.add + self.multiply, 9)

    def of_update(self, operations: Mapping[str, int]) -> float:
        """One update of a neuron, in pJ, from its operations by kind."""
        if self.update is not None:
            return self.update
        assert self.multiply is not None
        cheap = sum(operations.get(kind, 0) for kind in ("add", "compare"))
        return cheap * self.add + (sum(operations.values()) - cheap) * self.multiply


def _table(source: str, node: str, rows: Mapping[str, tuple[float, float]]) -> list[Coefficients]:
    return [Coefficients(f"{node} {kind}", source, add, multiply) for kind, (add, multiply) in rows.items()]


COEFFICIENTS: Mapping[str, Coefficients] = {
    c.name: c
    for c in (
        *_table(
            HOROWITZ,
            "45nm",
            {"float32": (0.9, 3.7), "float16": (0.4, 1.1), "int32": (0.1, 3.1), "int8": (0.03, 0.2)},
        ),
        *_table(
            JOUPPI,
            "7nm",
            {
                "float32": (0.38, 1.31),
                "float16": (0.16, 0.34),
                "bfloat16": (0.11, 0.21),
                "int32": (0.03, 1.48),
                "int8": (0.007, 0.07),
            },
        ),
        Coefficients("Loihi", DAVIES, 23.6, None, 81.0),
        Coefficients("TrueNorth", MEROLLA, 26.0, None, 0.0),
    )
}
"""Published coefficients, by name. Those of chips are per synaptic event, memory included; TrueNorth's also include the
neurons."""


def coefficients_of(given: "str | Coefficients") -> Coefficients:
    """Coefficients by their name, or as they are."""
    if isinstance(given, Coefficients):
        return given
    if given not in COEFFICIENTS:
        raise ValueError(
            f"there are no coefficients {given!r}; pass {', '.join(map(repr, COEFFICIENTS))}, or Coefficients"
        )
    return COEFFICIENTS[given]


@dataclass(frozen=True)
class Energy:
    """Result of `Measurement.energy`: an estimate for one sample; print it for sentences.

    Args:
        coefficients: the energy of single operations.
        macs: energy of the multiply-accumulate operations, in pJ.
        acs: energy of the accumulate operations, in pJ.
        neurons: energy of the updates of neurons, in pJ.
        ann: energy of the same layers without spikes, all of their operations multiply-accumulate, in pJ; None if the
            coefficients have none.
        ann_passes: number of passes of that network per sample.
        activity: share of the accumulate operations that are made; None if no layer accumulates.
        break_even: the activity at which both cost the same; 0 if the SNN costs more at any, and 1 if less.
            None without `ann` or `activity`.
        by_layer: energy of each layer, in pJ, by path.
    """

    coefficients: Coefficients
    macs: float
    acs: float
    neurons: float
    ann: float | None
    ann_passes: int
    activity: float | None
    break_even: float | None
    by_layer: Mapping[str, float]

    @property
    def total(self) -> float:
        """Energy of a sample, in pJ."""
        return self.macs + self.acs + self.neurons

    def __str__(self) -> str:
        c = self.coefficients
        lines = [
            f"{shown(self.total)} per sample by the coefficients {c.name!r}: {shown(self.acs)} for accumulate, "
            f"{shown(self.macs)} for multiply-accumulate operations, {shown(self.neurons)} for neurons."
        ]
        if c.mac is None and self.macs:
            lines.append("This chip has no multiply-accumulate operations; they are counted as synaptic events.")
        if self.ann is not None:
            passes = "one pass" if self.ann_passes == 1 else f"{self.ann_passes} passes"
            lines.append(f"The same network without spikes: {shown(self.ann)} for {passes}.")
        if self.break_even is not None:
            lines.append(f"{self._compared()}; its activity is {self.activity:.1%}.")
        return "\n".join((*lines, LEAVES_OUT, f"Source: {c.source}."))

    def _compared(self) -> str:
        if self.break_even == 0:
            return "The SNN costs more at any activity"
        if self.break_even == 1:
            return "The SNN costs less at any activity"
        return f"The SNN costs less below an activity of {self.break_even:.1%}"

    __repr__ = __str__

    def to_dict(self) -> dict[str, object]:
        """The numbers in pJ, with the name and the source of the coefficients."""
        names = ("macs", "acs", "neurons", "total", "ann", "ann_passes", "activity", "break_even")
        header = {"coefficients": self.coefficients.name, "source": self.coefficients.source, "unit": "pJ"}
        return {**header, **{name: getattr(self, name) for name in names}, "by_layer": dict(self.by_layer)}


def shown(picojoules: float) -> str:
    """An energy with its unit."""
    for factor, unit in ((1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ")):
        if picojoules >= factor:
            return f"{picojoules / factor:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


def break_even(ann: float | None, fixed: float, full: float) -> float | None:
    """The activity a at which fixed + a * full equals ann, in [0, 1]."""
    return None if ann is None or not full else min(1.0, max(0.0, (ann - fixed) / full))
