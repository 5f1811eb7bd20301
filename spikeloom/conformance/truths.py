"""Simulators of neuroscience as ground truth: they integrate a neuron's equations, without a NIR import of their own.

Each takes the fields of the only neuron of a graph and drives it with the inputs as currents, one per step.
"""

from typing import Any

import numpy as np
from torch import Tensor

from .readers import Array, Reader, quiet

NEURONS = ("IF", "LIF", "CubaLIF")


def neuron_of(graph: Any) -> Any:
    """The neuron of a graph that has nothing else."""
    nodes = [node for node in graph.nodes.values() if type(node).__name__ not in ("Input", "Output")]
    if len(nodes) != 1 or type(nodes[0]).__name__ not in NEURONS:
        raise NotImplementedError("runs one neuron of the kinds IF, LIF and CubaLIF")
    return nodes[0]


def _fields(node: Any, batch: int) -> dict[str, Array]:
    """The fields for a batch of layers, one after the other."""
    found = {name: value for name, value in vars(node).items() if isinstance(value, np.ndarray)}
    return {name: np.tile(value.reshape(-1).astype(np.float64), batch) for name, value in found.items()}


EQUATIONS = {
    "LIF": "dv/dt = ((v_leak - v) + r * drive(t, i)) / tau : 1\ntau : second\nr : 1\nv_leak : 1\n",
    "IF": "dv/dt = r * drive(t, i) : 1\nr : Hz\n",
    "CubaLIF": "dv/dt = ((v_leak - v) + r * current) / tau_mem : 1\ncurrent : 1 (linked)\n"
    "tau_mem : second\nr : 1\nv_leak : 1\n",
}


def brian2(graph: Any, x: Tensor, dt: float) -> Array:
    """Brian2: NIR's equations in its own language, Euler steps, double precision."""
    import brian2 as b2

    node, (steps, batch) = neuron_of(graph), x.shape[:2]
    kind, fields = type(node).__name__, _fields(node, batch)
    b2.prefs.codegen.target = "numpy"
    b2.start_scope()
    b2.defaultclock.dt = dt * b2.second
    drive = b2.TimedArray(x.reshape(steps, -1).double().numpy(), dt=dt * b2.second)
    count = x[0].numel()
    text = EQUATIONS[kind] + "v_threshold : 1\nv_reset : 1\n"
    group = b2.NeuronGroup(count, text, threshold="v > v_threshold", reset="v = v_reset", method="euler")
    parts: list[Any] = [group]
    if kind == "CubaLIF":
        # the current first, so that the membrane follows that of the same step
        syn = "dcurrent/dt = (w_in * drive(t, i) - current) / tau_syn : 1\ntau_syn : second\nw_in : 1\n"
        source = b2.NeuronGroup(count, syn, method="euler", order=-1)
        source.tau_syn, source.w_in = fields["tau_syn"] * b2.second, fields["w_in"]
        group.current = b2.linked_var(source, "current")
        parts.append(source)
    for name, unit in {"tau": b2.second, "tau_mem": b2.second, "v_leak": 1, "v_threshold": 1, "v_reset": 1}.items():
        if name in fields:
            setattr(group, name, fields[name] * unit)
    group.r = fields["r"] * (b2.Hz if kind == "IF" else 1)
    monitor = b2.SpikeMonitor(group)
    network = b2.Network(*parts, monitor)
    network.run(steps * dt * b2.second, namespace={"drive": drive})
    spikes = np.zeros((steps, count), dtype=np.float32)
    spikes[np.round(np.asarray(monitor.t / b2.second) / dt).astype(int), np.asarray(monitor.i)] = 1
    return spikes.reshape(x.shape)


def nest(graph: Any, x: Tensor, dt: float) -> Array:
    """NEST: iaf_psc_delta, or iaf_psc_exp for a current, integrated exactly, with the same decay per step.

    Its inputs arrive with a delay of one step, and its current one step before the membrane: the output is shifted.
    """
    import nest as simulator

    node, (steps, batch) = neuron_of(graph), x.shape[:2]
    kind, f = type(node).__name__, _fields(node, batch)
    step_ms = 1.0
    simulator.ResetKernel()
    simulator.set_verbosity("M_ERROR")
    simulator.resolution = step_ms
    drive = x.reshape(steps, -1).double().numpy().T
    rate = dt * f["r"] if kind == "IF" else dt / (f["tau"] if kind == "LIF" else f["tau_mem"])
    decay = np.full_like(rate, 1 - 1e-9) if kind == "IF" else 1 - rate
    tau = -step_ms / np.log(decay)
    gain = rate if kind == "IF" else rate * f["r"]
    rows = []
    for i in range(len(drive)):
        row = {"tau_m": tau[i], "C_m": 1.0, "E_L": 0.0, "V_m": 0.0, "V_reset": f["v_reset"][i], "t_ref": 0.0}
        rows.append({**row, "V_th": f["v_threshold"][i], "I_e": 0.0})
    if kind == "CubaLIF":
        return _nest_with_current(simulator, rows, f, drive, decay, gain, dt, step_ms).reshape(x.shape)
    cells = simulator.Create("iaf_psc_delta", len(rows), params=rows)
    # one step of a constant current I adds (1 - decay) * tau / C * I to the membrane
    amplitudes = drive * (gain / ((1 - decay) * tau))[:, None]
    times = [step_ms * (t + 1) for t in range(steps)]
    params = [{"amplitude_times": times, "amplitude_values": list(row)} for row in amplitudes]
    sources = simulator.Create("step_current_generator", len(rows), params=params)
    simulator.Connect(sources, cells, "one_to_one", {"delay": step_ms})
    return _recorded(simulator, cells, steps, step_ms, 3).reshape(x.shape)


def _nest_with_current(
    simulator: Any,
    rows: list[dict[str, Any]],
    f: Any,
    drive: Array,
    decay: Array,
    gain: Array,
    dt: float,
    step_ms: float,
) -> Array:
    alpha = 1 - dt / f["tau_syn"]
    tau_syn = -step_ms / np.log(alpha)
    rows = [{**row, "tau_syn_ex": tau_syn[i], "tau_syn_in": tau_syn[i]} for i, row in enumerate(rows)]
    cells = simulator.Create("iaf_psc_exp", len(rows), params=rows)
    # exact integration of a current that decays adds `kernel` of it to the membrane in a step
    tau = np.array([row["tau_m"] for row in rows])
    kernel = (alpha - decay) / (1 / tau - 1 / tau_syn)
    weight = dt / f["tau_syn"] * f["w_in"] * gain / kernel
    steps = drive.shape[1]
    times = [step_ms * (t + 1) for t in range(steps)]
    params = [{"spike_times": times, "spike_weights": list(row)} for row in drive * weight[:, None]]
    sources = simulator.Create("spike_generator", len(rows), params=params)
    simulator.Connect(sources, cells, "one_to_one", {"delay": step_ms, "weight": 1.0})
    return _recorded(simulator, cells, steps, step_ms, 3)


def _recorded(simulator: Any, cells: Any, steps: int, step_ms: float, shift: int) -> Array:
    """The spikes of each cell and step; the input of the first step acts after `shift` steps."""
    recorder = simulator.Create("spike_recorder")
    simulator.Connect(cells, recorder)
    simulator.Simulate(step_ms * (steps + shift + 1))
    events = recorder.get("events")
    spikes = np.zeros((steps, len(cells)), dtype=np.float32)
    at = np.round(np.asarray(events["times"]) / step_ms).astype(int) - shift
    inside = (at >= 0) & (at < steps)
    spikes[at[inside], np.asarray(events["senders"])[inside] - cells[0].global_id] = 1
    return spikes


TRUTHS = {
    reader.name: reader
    for reader in (
        Reader("brian2", "brian2", brian2, "Brian2", truth=True),
        Reader("nest", "nest", nest, "nest-simulator", truth=True),
    )
}
__all__ = ["NEURONS", "TRUTHS", "neuron_of", "quiet"]
