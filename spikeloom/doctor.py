"""`python -m spikeloom doctor`: report versions, devices, which backends run here, and why the others do not.

Every backend is tried by an actual call. Errors are reported and do not stop the report.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

import spikeloom as snn

from .engine.jit import ENVIRONMENT, LIMIT, Untrusted, cache_dir, cache_limit, cache_size, usable
from .engine.run import Refused, families
from .machine import CURE, NUMBERS, machine, measured_threads, version_of, versions

REQUIRED = ("numpy", "numba")
OPTIONAL = {
    "scikit-learn": "the digits of the demo; pip install scikit-learn",
    "matplotlib": "plots; pip install matplotlib",
    "triton": "GPU kernels; comes with torch for CUDA and ROCm on Linux",
    "tqdm": "progress bars; pip install tqdm",
    "snntorch": "for comparison in the benchmarks; pip install snntorch==1.0.0",
}
SHAPE = (12, 3, 40)
"""[T, B, N] of the call that tries a backend."""

ADVICE = (
    "snn.unroll(net, x, steps=25, check=True) also runs the loop over steps and raises an error if results differ;",
    "print(snn.explain(net, x, steps=25)) shows which backend runs each layer, and why a faster one was not used.",
)


class Wrong(Exception):
    """A backend returned results other than the loop's."""


def doctor() -> int:
    """Print all sections. The exit status is 0 whenever the report is complete."""
    section("Versions", installed())
    section("Machine", hardware())
    section("Threads", threads())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        trials = [f"{f'{name} on {device}':14}{report(name, device)}" for device in devices for name in families()]
    section("Backends, fastest first", trials)
    if caught:
        section("Warnings from the backends", [str(warning.message) for warning in caught])
    section("Kernel cache", kernel_cache())
    section("If an unrolled network is slow, or its results look wrong", ADVICE)
    return 0


def section(title: str, lines: list[str] | tuple[str, ...]) -> None:
    """Print a heading and its lines, indented."""
    print(title, *(f"  {line}" for line in lines), "", sep="\n")


def installed() -> list[str]:
    """Versions of the installed packages, and the use of the others."""
    here = versions() | {name: v for name in OPTIONAL if (v := version_of(name)) is not None}
    lines = [f"{name:14}{number}" for name, number in here.items()]
    lines += [f"{name:14}not installed, but required: pip install {name}" for name in REQUIRED if name not in here]
    return lines + [f"{name:14}not installed ({use})" for name, use in OPTIONAL.items() if name not in here]


def hardware() -> list[str]:
    """The processor, the threads, the GPUs."""
    here = machine()
    gpus = [f"{torch.cuda.get_device_name(i)} (cuda:{i})" for i in range(torch.cuda.device_count())]
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    return [
        f"{'processor':14}{here['cpu']}",
        f"{'system':14}{here['system']}",
        f"{'cores':14}{here['cores']} usable, torch uses {here['torch_threads']} threads",
        f"{'GPU':14}{', '.join(gpus) or f'none ({built})'}",
    ]


def threads() -> list[str]:
    """Whether other processes slow down the threads, by the time of a parallel region."""
    found = measured_threads()
    limit = "none" if found.limit is None else f"{found.limit:g} CPUs"
    load = "unknown" if found.load is None else f"{found.load:.1f} processes run or wait, averaged over a minute"
    lines = [
        f"{'threads':14}{found.count}; OMP_WAIT_POLICY is {found.policy or 'not set'}",
        f"{'cgroup limit':14}{limit}",
        f"{'load':14}{load}",
    ]
    if found.together:
        times = (f"{1e3 * statistics.median(seconds):.2f} ms" for seconds in (found.together, found.alone))
        lines.append(
            f"{'torch.add':14}of {NUMBERS:,} numbers: {next(times)} on {found.count} threads, {next(times)} on one"
        )
    if found.problems:
        lines.append(f"{'BUSY':14}{'; '.join(found.problems)}. {CURE}")
    elif found.count == 1:
        lines.append(f"{'verdict':14}one thread, which waits for no other")
    else:
        lines.append(f"{'verdict':14}other processes do not slow down the threads")
    return lines


# -- backends ----------------------------------------------------------------------------------------------------------


def report(name: str, device: str) -> str:
    """Result of a small neuron, forward and backward, on one backend."""
    try:
        seconds = compare_with_loop(name, device)
    except Refused as refused:
        return f"not here: {refused.reasons}"
    except Exception as error:  # the report must go on, whatever breaks a backend
        return f"FAILS: {type(error).__name__}: {error}"
    agrees = "" if name == "loop" else ", agrees with the loop"
    return f"works: Leaky over {list(SHAPE)}, forward and backward{agrees}; first call {seconds:.2f} s"


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


# -- the cache ---------------------------------------------------------------------------------------------------------


def kernel_cache() -> list[str]:
    """Location and size of the cache of compiled kernels."""
    place = cache_dir()
    try:
        state, limit = state_of(place), f"{cache_limit() / 1e6:.0f} MB, then the least recently used are deleted"
    except ValueError as error:
        state, limit = "", f"WRONG: {error}"
    return [
        f"{'location':14}{place}{state}; set {ENVIRONMENT} to move it",
        f"{'contents':14}{contents()}",
        f"{'limit':14}{limit}; set {LIMIT} to change it",
    ]


def contents() -> str:
    """Number of cached kernels, and their size."""
    try:
        kernels, size = cache_size()
    except OSError as error:  # another process may delete files meanwhile
        return f"unknown ({error})"

    return f"{kernels} kernels, {size / 1e6:.1f} MB; they may be deleted at any time"


def state_of(place: Path) -> str:
    """Why kernels cannot be stored in that folder (or in its nearest existing parent); "" if they can."""
    folder = next(path for path in (place, *place.parents) if path.exists())
    try:
        if folder == place and not usable(place):
            return " IS READ-ONLY: kernels that are not in it are compiled again in every process"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 17))  # as large as a kernel: an empty file fits a full disk
    except OSError as error:
        how = "IS NOT USED" if isinstance(error, Untrusted) else "CANNOT BE WRITTEN"
        return f" {how} ({error.strerror or error}): every process compiles its kernels again"
    return ""
