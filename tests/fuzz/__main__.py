"""Fuzzing by hand: `make fuzz`, or `python -m tests.fuzz --programs 20000 --networks 2000 --seed 0`.

Every program runs on the source of Numba's kernels, which Python executes; one in COMPILED is compiled as well, and one
in INTERPRETED runs on Triton's interpreter. What differs is printed as the smallest program that does.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
_kernels = tempfile.TemporaryDirectory(prefix="spikeloom-fuzz-kernels-", ignore_cleanup_errors=True)
os.environ.setdefault("SPIKELOOM_CACHE_DIR", _kernels.name)

import torch  # noqa: E402

from .equations import run  # noqa: E402

COMPILED, INTERPRETED = 20, 5


def main() -> int:
    """Run it; returns how many programs and networks differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--networks", type=int, default=2_000)
    parser.add_argument("--loops", type=int, default=2_000, help="random loops over time, through spikeloom.fuse")
    parser.add_argument("--exports", type=int, default=200, help="random networks, exported to every target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compiled", type=int, default=COMPILED, help="one program in so many is compiled by Numba")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    start, found = time.monotonic(), list[str]()

    def message(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - start:7.0f} s  {line}\n")
        sys.stdout.flush()

    shares = {"source": 1, "numba": asked.compiled, "triton": INTERPRETED}
    for backend, share in shares.items():
        if backend == "triton" and importlib.util.find_spec("triton") is None:
            message("triton is not installed")
            continue
        count = asked.programs // share
        message(f"{count} programs on {backend}")
        found += run(count, asked.seed, backend, message)
    if asked.networks and importlib.util.find_spec("tests.fuzz.networks") is not None:
        message(f"{asked.networks} networks")
        found += importlib.import_module("tests.fuzz.networks").run(asked.networks, asked.seed) or []
    if asked.exports and importlib.util.find_spec("onnxruntime") is not None:
        message(f"{asked.exports} networks, exported")
        differing = importlib.import_module("tests.fuzz.exports").run(asked.exports, asked.seed)
        for line in differing:
            message(line)
        found += differing
    if asked.loops:
        message(f"{asked.loops} loops, fused")
        differing = importlib.import_module("tests.fuzz.loops").run(asked.loops, asked.seed)
        for line in differing:
            message(line)
        found += differing
    message(f"{len(found)} differ")
    return min(len(found), 1)


sys.exit(main())
