"""Kernels as Python runs them: the source that is made for Numba, on NumPy's numbers, without a compiler.

A compiled kernel takes a second to make, this one a few milliseconds. What a compiler makes of the source is tested on
fewer programs.
"""

import ctypes
import math
from ast import literal_eval
from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeloom.engine.jit import KernelSource

_CELLS = {"float32": ctypes.c_float, "float64": ctypes.c_double}


class Interpreted:
    """In the place of `numba_jit.compiled`: a kernel that is run by Python.

    Args:
        source: the kernel.
    """

    def __init__(self, source: KernelSource):
        text = source.text(team=False, cached=False)
        dtype = "float64" if "R = np.float64" in text else "float32"
        start = text.index("def kernel(")
        cell, real = _CELLS[dtype], getattr(np, dtype)
        size = ctypes.sizeof(cell)

        def load(address: int, index: int) -> Any:
            return real(cell.from_address(int(address) + size * int(index)).value)

        def store(address: int, index: int, value: Any) -> None:
            assert type(value) is real, f"{type(value)} is stored in a kernel of {dtype}"
            cell.from_address(int(address) + size * int(index)).value = value

        def word(words: Sequence[int], index: int) -> int:
            return words[index]

        functions = {name: getattr(np, name) for name in ("exp", "tanh")}
        routines = {name: getattr(np, name) for name in ("log", "sqrt", "sin", "cos")}
        space: dict[str, Any] = {"R": real, "SIZE": size, "load": load, "store": store, "word": word, "np": np}
        space |= {**functions, "math": type("math", (), {k: staticmethod(v) for k, v in routines.items()})}
        space |= {"inf": math.inf, "nan": math.nan, "settled": lambda: None, "types": type("types", (), {"int64": int})}
        exec(compile(text[start:], "<kernel>", "exec"), space)
        self.kernel = space["kernel"]
        (line,) = [line for line in text.splitlines() if line.startswith("ARGUMENTS = ")]
        self.arguments: dict[str, int | None] = literal_eval(line.partition(" = ")[2])

    def run(self, threads: int | None = None, **given: Any) -> None:
        """Run the whole of it, with its arguments by name."""
        words: list[int] = []
        held = [*given.values()]  # what the kernel reads outlives the call
        for name, length in self.arguments.items():
            value = 0 if name == "team" else given.pop(name.strip("*"), ())
            members = [value] if length is None else [*value]
            assert length in (None, len(members)), f"{name}: {len(members)} of {length}"
            words += [0 if m is None else m.data_ptr() if name.endswith("*") else m for m in members]
        assert not given, f"no argument of the kernel: {[*given]}"
        with np.errstate(all="ignore"):
            self.kernel(words, 0, 1)
        del held
