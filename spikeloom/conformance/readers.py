"""Other frameworks as readers of NIR: each runs a graph on a sequence, by its own import and its own neurons."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Reader:
    """A framework that reads NIR graphs.

    Args:
        name: as in `export_to_nir(target=...)`; the ground truths are no targets.
        package: the module to import; its distribution has the same name unless `distribution` says otherwise.
        run: from a graph, the inputs [T, B, *N] and dt to the outputs [T, B, *M].
        truth: whether it is a simulator that runs the equations of a neuron, not a graph.
    """

    name: str
    package: str
    run: Callable[[Any, Tensor, float], Array]
    distribution: str = ""
    truth: bool = False

    @property
    def installed(self) -> bool:
        """Whether the package can be imported."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """Its release."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.distribution or self.package)
        except PackageNotFoundError:
            return "?"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the prints, warnings and log messages of other packages."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _loop(net: Any, x: Tensor, passes_state: bool = True) -> Array:
    """Run a network that returns its output and its state step by step."""
    outs, state = [], None
    with torch.no_grad():
        for x_t in x:
            out = net(x_t, state) if passes_state else net(x_t)
            if isinstance(out, tuple):
                out, state = out[0], out[1]
            outs.append(out[0] if isinstance(out, tuple) else out)
    return torch.stack(outs).numpy()


def snntorch(graph: Any, x: Tensor, dt: float) -> Array:
    """snnTorch: its neurons store their states."""
    from snntorch.import_nir import import_from_nir

    net = import_from_nir(graph)
    return _loop(net, x)


def spikingjelly(graph: Any, x: Tensor, dt: float) -> Array:
    """SpikingJelly, single-step mode."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return _loop(import_from_nir(graph, dt=dt), x)


def norse(graph: Any, x: Tensor, dt: float) -> Array:
    """Norse, which needs dt as an argument."""
    import norse.torch

    return _loop(norse.torch.from_nir(graph, dt=dt, ignore_warnings=True), x)


def sinabs(graph: Any, x: Tensor, dt: float) -> Array:
    """Sinabs: its layers take the time folded into the batch, row by row."""
    import sinabs.nir

    steps, batch = x.shape[:2]
    net = sinabs.nir.from_nir(graph, batch_size=batch)
    with torch.no_grad():
        out = net(x.transpose(0, 1).flatten(0, 1))
    out = out[0] if isinstance(out, tuple) else out
    folded: Array = out.reshape(batch, steps, *out.shape[1:]).transpose(0, 1).numpy()
    return folded


def rockpool(graph: Any, x: Tensor, dt: float) -> Array:
    """Rockpool's torch backend: [B, T, N]."""
    from rockpool.nn.modules.torch.nir import from_nir

    net = from_nir(graph)
    with torch.no_grad():
        out = net(x.transpose(0, 1))
    out = out[0] if isinstance(out, tuple) else out
    series: Array = out.transpose(0, 1).numpy()
    return series


def spyx(graph: Any, x: Tensor, dt: float) -> Array:
    """Spyx on JAX: channels last."""
    import jax.numpy as jnp
    import spyx.nir

    last = x.movedim(2, -1) if x.dim() > 3 else x
    _, out = spyx.nir.from_nir(graph, jnp.asarray(last.numpy()), dt=dt)
    out = np.asarray(out)
    return np.moveaxis(out, -1, 2) if out.ndim > 3 else out


READERS = {
    reader.name: reader
    for reader in (
        Reader("norse", "norse", norse),
        Reader("rockpool", "rockpool", rockpool),
        Reader("sinabs", "sinabs", sinabs),
        Reader("snntorch", "snntorch", snntorch),
        Reader("spikingjelly", "spikingjelly", spikingjelly),
        Reader("spyx", "spyx", spyx),
    )
}
