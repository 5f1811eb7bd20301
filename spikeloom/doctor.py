"""`python -m spikeloom doctor`: what is installed, which backends run here and why the others do not.

Every backend is tried by a real call, so that what is printed is evidence.
"""

import importlib
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

import spikeloom as snn

from .bench.report import duration, machine, version_of, versions
from .scan.select import LADDER

OPTIONAL = {
    "triton": "GPU kernels",
    "matplotlib": "pictures; pip install 'spikeloom[plot]'",
    "nir": "NIR exchange; pip install 'spikeloom[nir]'",
    "snntorch": "the peer of the bench; pip install snntorch==1.0.0",
}
SHAPE = (12, 3, 40)
"""[T, B, N] of the call that tries a backend."""


class Wrong(Exception):
    """A backend runs and returns something else than the loop."""


def doctor() -> int:
    """Print all sections; 1 if a backend fails or returns something wrong."""
    section("Versions", installed())
    section("Machine", hardware())
    trials = {f"{name} on {device}": try_backend(name, device) for device in devices() for name in names()}
    section("Backends, fastest first", [f"{label:16}{finding}" for label, (finding, _) in trials.items()])
    section("Kernel cache", kernel_cache())
    section(
        "If a network's results look wrong unrolled",
        [
            "snn.unroll(net, x, steps=25, check=True) runs the first steps both ways and raises where they differ;",
            "print(snn.explain(net, x, steps=25)) shows which backend runs each layer, and why not a faster one.",
        ],
    )
    return int(not all(sound for _, sound in trials.values()))


def section(title: str, lines: list[str]) -> None:
    """A heading and its lines, indented."""
    print(title, *(f"  {line}" for line in lines), "", sep="\n")


def installed() -> list[str]:
    """Versions of what is there, and what the rest would be good for."""
    has = versions()
    absent = [f"{name:12}not installed ({use})" for name, use in OPTIONAL.items() if name not in has]
    required = [f"{name:12}not installed, but required" for name in ("numpy", "numba") if version_of(name) is None]
    return [f"{name:12}{number}" for name, number in has.items()] + required + absent


def hardware() -> list[str]:
    """The processor, the threads, the GPUs."""
    here = machine()
    lines = [f"processor   {here['cpu']}", f"system      {here['system']}"]
    lines.append(f"cores       {here['cores']} usable, torch uses {here['torch_threads']} threads")
    gpus = [f"{torch.cuda.get_device_name(i)} (cuda:{i})" for i in range(torch.cuda.device_count())]
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    return [*lines, f"GPU         {', '.join(gpus) or f'none ({built})'}"]


def devices() -> list[str]:
    """Where tensors may live."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def names() -> list[str]:
    """The backends, fastest first."""
    return [machine.name for machine in LADDER]


# -- backends --------------------------------------------------------------------------------------


def try_backend(name: str, device: str) -> tuple[str, bool]:
    """Run a small neuron forward and backward on one backend: what came of it, and whether that is in order."""
    try:
        seconds = compare_with_loop(name, device)
    except Wrong as error:
        return f"WRONG: {error}", False
    except RuntimeError as refusal:
        reasons = str(refusal)
        if "was asked for and cannot run" in reasons:
            return f"not here: {reasons.partition(': ')[2]}", True
        return f"FAILS: {type(refusal).__name__}: {refusal}", False
    except Exception as error:  # whatever breaks a backend, the other sections must still be told
        return f"FAILS: {type(error).__name__}: {error}", False
    agrees = "" if name == "loop" else ", agrees with the loop"
    return f"works: Leaky over {list(SHAPE)}, forward and backward{agrees}; first call {duration(seconds)}", True


def compare_with_loop(name: str, device: str) -> float:
    """Seconds of the backend's first call; raises `Wrong` if spikes or gradient are not the loop's."""
    begun = time.perf_counter()
    spk, grad = tried(name, device)
    seconds = time.perf_counter() - begun
    wanted, wanted_grad = tried("loop", device)
    if not torch.equal(spk, wanted):
        raise Wrong(f"{int((spk != wanted).sum())} of {wanted.numel()} spikes differ from the loop's")
    if not torch.allclose(grad, wanted_grad, rtol=1e-4, atol=1e-6):
        raise Wrong(f"the input gradient differs from the loop's by up to {(grad - wanted_grad).abs().max():.2g}")
    return seconds


def tried(name: str, device: str) -> tuple[Tensor, Tensor]:
    """Spikes and input gradient of a Leaky on one backend."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SHAPE, generator=generator).to(device).requires_grad_()
    with snn.backend(name):
        spk, _ = snn.unroll(snn.Leaky(beta=0.9).to(device), x)
        (grad,) = torch.autograd.grad(spk.sum(), x)
    return spk.detach(), grad


# -- the cache -------------------------------------------------------------------------------------


def kernel_cache() -> list[str]:
    """Where compiled kernels are kept, and how much there is."""
    if find_spec("spikeloom.scan.cache") is None:
        return ["none: this version compiles no kernels"]
    place = Path(importlib.import_module("spikeloom.scan.cache").cache_dir())
    sizes = list(file_sizes(place))
    state = "" if os.access(nearest(place), os.W_OK) else " (not writable)"
    return [
        f"place       {place}{state}; set SPIKELOOM_CACHE_DIR to move it",
        f"holds       {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB; it may be deleted at any time",
    ]


def file_sizes(place: Path) -> Iterator[int]:
    """Bytes of each file below a folder; another process may delete some meanwhile."""
    for path in place.rglob("*") if place.is_dir() else ():
        try:
            if path.is_file():
                yield path.stat().st_size
        except OSError:
            continue


def nearest(place: Path) -> Path:
    """The folder itself or, before it is made, the nearest one above that exists."""
    return next(folder for folder in (place, *place.parents) if folder.exists())
