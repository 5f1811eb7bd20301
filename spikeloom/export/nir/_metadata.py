"""What NIR has no field for, as metadata of a node: the class of a neuron, its options, and its values as they are.

Readers that do not know it lose nothing that NIR represents. `import_from_nir` makes the same neuron from it again. It
makes only classes of this library, and only if the values agree with the fields of the node, which others may have
changed.
"""

import hashlib
import inspect
import json
import warnings
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import neurons, surrogate
from ...neurons._neuron import _arguments as constructor_arguments
from ...neurons.lstm import Gated
from ...neurons.recurrent import OneToOne, Recurrent
from . import _modules
from ._shapes import pair

TEXT, VALUES = "spikeloom", "spikeloom_values"
CLASSES: dict[str, type[Any]] = {
    name: kind
    for name, kind in [*vars(neurons).items(), *vars(_modules).items()]
    if isinstance(kind, type) and issubclass(kind, neurons.SpikingNeuron) and "model" in dir(kind)
}
OPTIONS = ("reset_mechanism", "reset_delay", "decay", "inhibition")
ATTRIBUTES = ("delta_threshold", "_follows", "learn_recurrent")
NOT_VALUES = ("reset_mechanism_val",)
SIZES = ("stride", "padding", "dilation", "groups")
GATED_SIZES = (
    *("input_size", "hidden_size", "in_channels", "out_channels", "kernel_size"),
    *("bias", "max_pool", "avg_pool", "stride", "dilation", "memoryless"),
)
PLACEHOLDERS = {"alpha": 0.75, "beta": 0.5, "all_to_all": False}
PLACEHOLDERS |= dict.fromkeys(("rate", "rate_syn", "r", "w_in", "v_leak", "gain"), 0.5)


def checked_dt(dt: Any) -> float:
    """The length of a step in seconds, as a float; raises ValueError if it is none."""
    if isinstance(dt, bool) or not isinstance(dt, Real) or not 0 < float(dt) < float("inf"):
        raise ValueError(f"dt is {dt!r}; pass the length of a step in seconds, a number above 0")
    return float(str(dt)) if isinstance(dt, np.floating) else float(dt)  # 0.001 for the float32 nearest to it


def seal(graph: Any, dt: float) -> None:
    """Note in the metadata of each node checksums of its fields and of the metadata, so that later changes are seen."""
    for node in graph.nodes.values():
        if hasattr(node, "nodes"):
            seal(node, dt)
        elif note := note_of(node):
            note |= {"dt": dt, "seal": _digest(node)}
            node.metadata = {**node.metadata, **noted(note)}
            node.metadata |= noted({**note, "check": _digest_of_metadata(node)})


def is_sealed(node: Any, dt: float | None = None) -> bool:
    """Whether a node still has the fields that it was written with, for this dt if it depends on it."""
    note = note_of(node)
    return note.get("seal") == _digest(node) and (dt is None or abs(note.get("dt", 0) - dt) <= 1e-9 * dt)


def check_metadata(node: Any) -> None:
    """Raise `BadMetadata` if the metadata of a node are not those that were written."""
    note = note_of(node)
    if "seal" in note and note.get("check") != _digest_of_metadata(node):
        raise BadMetadata("its metadata are damaged, or were changed after spikeloom wrote them")


def _digest_of_metadata(node: Any) -> str:
    """A checksum of the words and the values in a node's metadata."""
    note, values = note_of(node), node.metadata.get(VALUES, {})
    digest = hashlib.sha256(json.dumps({**note, "check": ""}, sort_keys=True).encode())
    for name in sorted(values) if isinstance(values, dict) else ():
        value = np.asarray(values[name])
        digest.update(name.encode() + (value.astype("<f8").tobytes() if value.dtype.kind in "iuf" else b""))
    return digest.hexdigest()[:16]


def _digest(node: Any) -> str:
    """A checksum of the arrays of a node, at the precision of float32, and of the sizes of a convolution."""
    digest = hashlib.sha256()
    for name in sorted(vars(node)):
        value = getattr(node, name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            digest.update(name.encode() + np.asarray(value, dtype=np.float32).tobytes())
        elif name in SIZES:
            value = value.decode() if isinstance(value, bytes) else value
            digest.update(f"{name}{np.asarray(value).reshape(-1).tolist()}".encode())
    return digest.hexdigest()[:16]


class BadMetadata(ValueError):
    """Metadata from which no neuron can be made; the message says why."""


def described(neuron: Any, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """The metadata of a neuron, and further entries; empty for a class that is not the library's."""
    kind = type(neuron)
    if CLASSES.get(kind.__name__) is not kind:
        return {}
    held = _held(neuron)
    values = {name: value for name, value in held.items() if value is not None and name not in NOT_VALUES}
    if isinstance(neuron, Recurrent) and neuron._through_layer:
        values.pop("V", None)
    text = {
        "class": kind.__name__,
        "options": {name: getattr(neuron, name) for name in OPTIONS},
        "attributes": {name: vars(neuron)[name] for name in ATTRIBUTES if name in vars(neuron)},
        "sizes": {
            name: getattr(neuron, name) for name in GATED_SIZES if isinstance(neuron, Gated) and hasattr(neuron, name)
        },
        "learned": [name for name, value in values.items() if isinstance(value, nn.Parameter)],
        "shapes": {name: list(value.shape) for name, value in values.items()},
        "through_layer": isinstance(neuron, Recurrent) and neuron._through_layer,
        "surrogate": None if neuron.surrogate_disable else _noted_surrogate(neuron.spike_grad),
        "surrogate_disable": neuron.surrogate_disable,
    }
    text |= {"lost": [], **(more or {})}
    if not (neuron.surrogate_disable or text["surrogate"]):
        spike = neuron.spike_grad
        text["lost"] += [f"its spike function {getattr(spike, '__name__', type(spike).__name__)}; atan replaces it"]
    return {**noted(text), VALUES: {name: flat(value) for name, value in values.items()}}


def _held(neuron: Any) -> dict[str, Tensor | None]:
    """The buffers and parameters of a neuron by name, those of the layer inside of a spiking LSTM too."""
    held = {**neuron._buffers, **neuron._parameters}
    return {**held, **dict(neuron.named_parameters())} if isinstance(neuron, Gated) else held


def noted(text: dict[str, Any]) -> dict[str, Any]:
    """Metadata of some strings and numbers."""
    return {TEXT: json.dumps(text, default=lambda value: value.tolist())}  # of tensors and numbers of NumPy


def note_of(node: Any) -> dict[str, Any]:
    """The words of a node's metadata; empty if it has none of ours."""
    metadata = getattr(node, "metadata", None)
    text = metadata.get(TEXT) if isinstance(metadata, dict) else None
    if text is None:
        return {}
    try:
        note = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    except (ValueError, RecursionError) as error:
        raise BadMetadata("its metadata is not JSON") from error
    if not isinstance(note, dict):
        raise BadMetadata("its metadata is not a JSON object")
    return note


def flat(value: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array of one dimension, which every file format takes."""
    wide = value.detach().cpu()
    wide = wide.float() if wide.dtype in (torch.bfloat16, torch.float16) else wide
    return wide.reshape(-1).numpy().copy()


def remade(node: Any) -> Any:
    """The neuron that a node's metadata describes, with init_hidden=True; None if the metadata describes none."""
    note = note_of(node)
    if "class" not in note:
        return None
    name = str(note["class"])
    if name not in CLASSES:
        raise BadMetadata(f"its metadata names the neuron {name}, which this version of spikeloom does not have")
    try:
        return _remade(CLASSES[name], note, node.metadata.get(VALUES, {}))
    except BadMetadata:
        raise
    except Exception as error:  # whatever a damaged note leads to
        raise BadMetadata(f"its metadata does not describe a {name}: {error}") from error


def _remade(kind: type[Any], note: dict[str, Any], arrays: dict[str, Any]) -> Any:
    neuron = _blank(kind, {**note["options"], **_sizes(kind, note, arrays)})
    for name, value in note["attributes"].items():
        if name in ATTRIBUTES and name in vars(neuron):
            setattr(neuron, name, torch.tensor(value) if isinstance(value, list) else value)
    own = set(_held(neuron)) - set(NOT_VALUES)
    if note["through_layer"]:
        own.discard("V")
    if own != set(arrays) or own != set(note["shapes"]):
        raise BadMetadata(f"it has the values {', '.join(sorted(arrays))}, not {', '.join(sorted(own))}")
    for name, shape in note["shapes"].items():  # in the order of the parameters, which optimizers know by number
        value = torch.from_numpy(np.array(arrays[name])).reshape(shape)
        path, _, leaf = name.rpartition(".")
        holder = neuron.get_submodule(path)
        if path and holder.get_parameter(leaf).shape != value.shape:
            raise BadMetadata(f"its {name} has shape {tuple(shape)}, which does not fit its sizes")
        holder._buffers.pop(leaf, None)
        holder._parameters.pop(leaf, None)
        if name in note["learned"]:
            holder.register_parameter(leaf, nn.Parameter(value))
        else:
            holder.register_buffer(leaf, value)
    if isinstance(neuron, Recurrent) and not note["through_layer"]:
        neuron.recurrent = OneToOne(neuron.V)
    spike = (
        surrogate.no_gradient() if note["surrogate_disable"] else note["surrogate"] and _surrogate_of(note["surrogate"])
    )
    if spike:
        neuron.spike_grad, neuron.surrogate_disable = spike, bool(note["surrogate_disable"])
    neuron._retrace()
    return neuron


def _blank(kind: type[Any], options: dict[str, Any]) -> Any:
    """A neuron of a class with these options, and any values."""
    names = constructor_arguments(kind)
    wanted = {name: options[name] for name in (*OPTIONS, *GATED_SIZES) if name in options}
    required = {name: value for name, value in PLACEHOLDERS.items() if name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inhibition, which the user has chosen before
        neuron = kind(**required, **{name: v for name, v in wanted.items() if name in names}, init_hidden=True)
    neuron.reset_delay = bool(wanted["reset_delay"])  # which not every constructor takes
    return neuron


def _sizes(kind: type[Any], note: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a spiking LSTM; they may not declare more weights than there are."""
    if not issubclass(kind, Gated):
        return {}
    sizes: dict[str, Any] = {name: tuple(s) if isinstance(s, list) else s for name, s in note["sizes"].items()}
    into, out = (sizes[name] for name in GATED_SIZES[:4] if name in sizes)
    weights = 4 * out * (into + out) * int(np.prod(pair(sizes.get("kernel_size", 1))))
    if not 0 < weights <= sum(np.asarray(array).size for array in arrays.values()):
        raise BadMetadata("its sizes do not fit its weights")
    return sizes


def _noted_surrogate(spike: Any) -> dict[str, Any] | None:
    """A surrogate of the library by name; None for another."""
    if not isinstance(spike, surrogate.Spike):
        return None
    note = {"name": spike.name, "constants": dict(spike.constants)}
    return note if _surrogate_of(note) == spike else None


def _surrogate_of(note: Any) -> Any:
    factory = getattr(surrogate, str(note["name"]), None)
    if not inspect.isfunction(factory) or not all(isinstance(v, (int, float)) for v in note["constants"].values()):
        return None
    try:
        made = factory(**note["constants"])
    except TypeError:
        return None
    return made if isinstance(made, surrogate.Spike) else None
