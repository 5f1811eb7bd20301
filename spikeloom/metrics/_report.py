"""The result of a measurement: metrics of the network, counts of its layers, energy, as a table, JSON and a chart."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..inspect import aligned, share
from ._energy import Coefficients, Energy, break_even, coefficients_of

SCORE_NAMES = {"classification_accuracy": "ClassificationAccuracy", "mse": "MSE", "smape": "SMAPE", "r2": "R2"}


@dataclass(frozen=True)
class LayerMeasurement:
    """Counts of one layer, per sample where not said otherwise.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        effective_macs: multiply-accumulate operations, without those with a weight or an input that is zero.
        effective_acs: accumulate operations, without those with a zero weight or no spike.
        dense: synaptic operations if no weight and no input were zero.
        dense_acs: the part of `dense` in steps whose inputs are spikes.
        activation_sparsity: share of outputs that are zero; None for a layer that is no activation.
        activations: number of outputs of an activation.
        membrane_updates: number of steps and neurons at which the membrane has changed.
        neuron_steps: number of steps and neurons.
        operations_per_update: operations of one update of a neuron, in the convention of the measurement.
        operations: those of its equation, by kind (see `neuron_operations`); empty if they cannot be counted.
    """

    path: str
    kind: str
    effective_macs: float
    effective_acs: float
    dense: float
    dense_acs: float
    activation_sparsity: float | None
    activations: float
    membrane_updates: float
    neuron_steps: float
    operations_per_update: int
    operations: Mapping[str, int]


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`; print it for a table.

    Args:
        parameter_count: number of parameters.
        footprint: bytes of parameters and buffers.
        connection_sparsity: share of zeros among the weights; None without weights.
        activation_sparsity: share of zeros among the outputs of all activations; a mean over batches.
        activation_sparsity_by_layer: the same per layer, by path, over all samples.
        synaptic_operations: "Effective_MACs", "Effective_ACs" and "Dense", per sample.
        membrane_updates: number of membranes that changed, over all steps and neurons, per sample.
        neuron_operations: "Effective Neuron Ops", those of updates, and "Neuron Dense Ops", those of all steps and
            neurons, per sample.
        classification_accuracy: share of correct predictions; None if it was not measured.
        mse: mean squared error; None if it was not measured.
        smape: symmetric mean absolute percentage error, in percent; None if it was not measured.
        r2: coefficient of determination; None if it was not measured.
        samples: number of samples.
        steps: mean number of steps of a sample.
        convention: how the operations of neurons are counted.
        layers: the layers with weights, activations and neurons, in the order of `named_modules`.
        notes: sentences on what is not counted.
    """

    parameter_count: int
    footprint: int
    connection_sparsity: float | None
    activation_sparsity: float
    activation_sparsity_by_layer: Mapping[str, float]
    synaptic_operations: Mapping[str, float]
    membrane_updates: float
    neuron_operations: Mapping[str, float]
    classification_accuracy: float | None
    mse: float | None
    smape: float | None
    r2: float | None
    samples: int
    steps: float
    convention: str
    layers: tuple[LayerMeasurement, ...]
    notes: tuple[str, ...]

    def energy(self, coefficients: str | Coefficients = "45nm float32", *, ann_passes: int = 1) -> Energy:
        """Estimate the energy of one sample, and the activity below which it is less than that of the same ANN.

        Each effective operation costs its coefficient, and each membrane update the operations of its equation. The ANN
        has the same layers without spikes: all of its operations are multiply-accumulate operations, and its activation
        functions cost nothing.

        Args:
            coefficients: a name of `COEFFICIENTS`, or `Coefficients`.
            ann_passes: passes of the ANN per sample: 1 for a static input, the number of steps for a sequence that it
                reads step by step. Default: 1.

        Returns:
            an `Energy`; its `str` also states what such an estimate leaves out.

        Raises:
            ValueError: for an unknown name, or less than one pass.

            >>> import torch, spikeloom as snn
            >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
            >>> energy = snn.metrics.measure(net, torch.ones(10, 2, 3)).energy("45nm int8")
            >>> round(energy.acs, 2), energy.activity
            (3.6, 1.0)
        """
        if isinstance(ann_passes, bool) or not hasattr(ann_passes, "__index__") or ann_passes < 1:
            raise ValueError(
                f"ann_passes is {ann_passes!r}; pass the number of passes of the ANN per sample, from 1 on"
            )
        c = coefficients_of(coefficients)
        of_mac = c.ac if c.mac is None else c.mac
        macs = {layer.path: layer.effective_macs * of_mac for layer in self.layers}
        acs = {layer.path: layer.effective_acs * c.ac for layer in self.layers}
        neurons = {layer.path: layer.membrane_updates * c.of_update(layer.operations) for layer in self.layers}
        dense = sum(layer.dense for layer in self.layers)
        dense_acs = sum(layer.dense_acs for layer in self.layers)
        effective_acs = sum(layer.effective_acs for layer in self.layers)
        ann = None if c.mac is None else dense / self.steps * ann_passes * c.mac
        fixed = sum(macs.values()) + sum(neurons.values())
        return Energy(
            coefficients=c,
            macs=sum(macs.values()),
            acs=sum(acs.values()),
            neurons=sum(neurons.values()),
            ann=ann,
            ann_passes=int(ann_passes),
            activity=effective_acs / dense_acs if dense_acs else None,
            break_even=break_even(ann, fixed, dense_acs * c.ac),
            by_layer={path: macs[path] + acs[path] + neurons[path] for path in macs},
        )

    def neurobench(self) -> dict[str, Any]:
        """The metrics with the names of NeuroBench, and its keys: layers of the same name are one layer there.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> snn.metrics.measure(net, torch.ones(10, 2, 3)).neurobench()["SynapticOperations"]
        {'Effective_MACs': 0.0, 'Effective_ACs': 120.0, 'Dense': 120.0}
        """
        scores = {theirs: getattr(self, ours) for ours, theirs in SCORE_NAMES.items()}
        return {
            "ParameterCount": self.parameter_count,
            "Footprint": self.footprint,
            "ConnectionSparsity": self.connection_sparsity,
            **{name: value for name, value in scores.items() if value is not None},
            "ActivationSparsity": self.activation_sparsity,
            "ActivationSparsityByLayer": self._by_last_name(),
            "SynapticOperations": dict(self.synaptic_operations),
            "MembraneUpdates": self.membrane_updates,
            "NeuronOperations": dict(self.neuron_operations),
        }

    def _by_last_name(self) -> dict[str, float]:
        zero: dict[str, list[int]] = {}
        for layer in self.layers:
            if layer.activation_sparsity is not None:
                total = round(layer.activations * self.samples)
                counts = zero.setdefault(layer.path.rpartition(".")[2], [0, 0])
                counts[0] += round(layer.activation_sparsity * total)
                counts[1] += total
        return {name: zeros / total for name, (zeros, total) in zero.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings, lists and dicts, with the default energy."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "layers"}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in own.items()}
        rows = [{**vars(layer), "operations": dict(layer.operations)} for layer in self.layers]
        return {**plain, "notes": list(self.notes), "layers": rows, "energy": self.energy().to_dict()}

    def to_json(self, path: str | Path | None = None, *, indent: int | None = 2) -> str:
        """The same as JSON; numbers that are not finite are null.

        Args:
            path: a file to write to as well.
            indent: see json.dumps. Default: 2.

        Returns:
            the text.
        """
        text = json.dumps(_finite(self.to_dict()), indent=indent, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def __str__(self) -> str:
        ops, neurons = self.synaptic_operations, self.neuron_operations
        named = [
            *((name, _number(getattr(self, name))) for name in SCORE_NAMES if getattr(self, name) is not None),
            ("parameter count", f"{self.parameter_count:,}"),
            ("footprint", f"{self.footprint:,} bytes"),
            ("connection sparsity", _number(self.connection_sparsity)),
            ("activation sparsity", _number(self.activation_sparsity)),
            ("effective MACs", _number(ops["Effective_MACs"])),
            ("effective ACs", _number(ops["Effective_ACs"])),
            ("dense synaptic operations", _number(ops["Dense"])),
            ("membrane updates", _number(self.membrane_updates)),
            ("effective neuron operations", _number(neurons["Effective Neuron Ops"])),
            ("dense neuron operations", _number(neurons["Neuron Dense Ops"])),
        ]
        head = (
            "layer",
            "kind",
            "activity",
            "MACs",
            "ACs",
            "dense",
            "membrane updates",
            "operations per update",
            "energy",
        )
        energy = self.energy()
        rows = [_cells(layer, energy) for layer in self.layers]
        return "\n".join(
            (
                f"{self.samples:,} samples of {_number(self.steps)} steps; operations are per sample",
                *aligned([(name.replace("_", " "), value) for name, value in named], right=(1,)),
                "",
                *aligned([head, *rows], right=range(2, len(head))),
                "",
                str(energy),
                *self.notes,
            )
        )

    __repr__ = __str__

    def plot(self, coefficients: str | Coefficients = "45nm float32") -> Any:
        """Plot the layers as bars: their activity, their synaptic operations and their energy.

        Args:
            coefficients: as for `energy`.

        Returns:
            A matplotlib Figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        return _drawn(self.layers, self.energy(coefficients))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def _cells(layer: LayerMeasurement, energy: Energy) -> tuple[str, ...]:
    sparsity = layer.activation_sparsity
    return (
        layer.path or "(itself)",
        layer.kind,
        "-" if sparsity is None else share(1 - sparsity),
        *(_number(n) if n else "-" for n in (layer.effective_macs, layer.effective_acs, layer.dense)),
        *(_number(n) if n else "-" for n in (layer.membrane_updates, layer.operations_per_update)),
        f"{energy.by_layer[layer.path] / 1e3:,.3g} nJ",
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


# -- the figure --------------------------------------------------------------------------------------------------------

DENSE, ACS, MACS, ENERGY = "#d9d9d9", "#4c72b0", "#dd8452", "#55a868"


def _drawn(layers: tuple[LayerMeasurement, ...], energy: Energy) -> Any:
    """The figure: three panels with the layers as rows, the first on top."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot() draws with matplotlib; pip install 'spikeloom[plot]'") from error
    figure = Figure(figsize=(12, 2.2 + 0.4 * len(layers)), layout="constrained")
    activity, operations, costs = panels = figure.subplots(1, 3, sharey=True)
    places = range(len(layers))

    rates = [0.0 if layer.activation_sparsity is None else 1 - layer.activation_sparsity for layer in layers]
    activity.barh(places, rates, color=ACS)
    activity.set(title="activity", xlim=(0, 1), xlabel="share of outputs that are not zero")
    activity.set_yticks(places, [f"{layer.path or '(itself)'}  {layer.kind}" for layer in layers])
    activity.invert_yaxis()

    acs = [layer.effective_acs for layer in layers]
    operations.barh(places, [layer.dense for layer in layers], color=DENSE, label="dense")
    operations.barh(places, acs, color=ACS, label="effective ACs")
    operations.barh(places, [layer.effective_macs for layer in layers], left=acs, color=MACS, label="effective MACs")
    operations.set(title="synaptic operations", xlabel="per sample")
    operations.locator_params(axis="x", nbins=4)
    operations.legend(frameon=False, fontsize="small")

    costs.barh(places, [energy.by_layer[layer.path] / 1e3 for layer in layers], color=ENERGY)
    costs.set(title=f"energy, {energy.coefficients.name}", xlabel="nJ per sample")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure
