"""Compile a generated C file and call its functions."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeloom.export import CFile

COMPILERS = [name for name in ("gcc", "clang", "cc") if shutil.which(name)][:2]
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler (gcc, clang or cc) is installed")
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2")

TYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int8: np.int8}


def compiled(source: Path, *flags: str, compiler: str = "", output: str = "program") -> Path:
    """Compile a file; warnings are errors."""
    target = source.with_name(f"{source.stem}-{output}")
    command = [compiler or COMPILERS[0], *STRICT, *flags, str(source), "-o", str(target), "-lm"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return target


def executed(program: Path, text: str = "") -> tuple[int, str]:
    """The exit status and the output of a program."""
    run = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout


class Program:
    """The functions of a file.

    Args:
        made: the file.
        outputs: the number of outputs.
        x, out: the types of input and output.
    """

    def __init__(
        self,
        made: CFile,
        outputs: int,
        x: torch.dtype = torch.float32,
        out: torch.dtype | None = None,
        compiler: str = "",
        flags: tuple[str, ...] = (),
    ):
        library = compiled(made.path, "-shared", "-fPIC", *flags, compiler=compiler, output=f"{compiler}.so")
        self.functions, self.prefix, self.outputs = ctypes.CDLL(str(library)), made.prefix, outputs
        self.x, self.out = TYPES[x], np.dtype(TYPES.get(out or x, np.int32))
        self.state = ctypes.create_string_buffer(made.state)
        for name in ("step", "step_events"):
            getattr(self.functions, f"{made.prefix}_{name}").restype = ctypes.c_void_p

    def reset(self) -> None:
        getattr(self.functions, f"{self.prefix}_reset")(self.state)

    def step(self, x: Tensor) -> Tensor:
        """The outputs of a step for an input of any shape."""
        values = np.ascontiguousarray(x.flatten().numpy(), dtype=self.x)
        return self._read(
            getattr(self.functions, f"{self.prefix}_step")(self.state, values.ctypes.data_as(ctypes.c_void_p))
        )

    def step_events(self, active: list[int]) -> Tensor:
        """The outputs of a step for a list of active inputs."""
        values = np.array(active, dtype=np.uint16)
        step = getattr(self.functions, f"{self.prefix}_step_events")
        return self._read(step(self.state, values.ctypes.data_as(ctypes.c_void_p), len(values)))

    def run(self, x: Tensor) -> Tensor:
        """The outputs of all steps of x, [T, ...], from the initial states: [T, outputs]."""
        self.reset()
        return torch.stack([self.step(x_t) for x_t in x])

    def _read(self, address: int) -> Tensor:
        size = self.outputs * self.out.itemsize
        return torch.from_numpy(np.frombuffer(ctypes.string_at(address, size), dtype=self.out).copy())
