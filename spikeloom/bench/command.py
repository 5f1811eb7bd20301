"""`python -m spikeloom bench`: runs cases, prints their tables, stores the samples."""

import argparse
from pathlib import Path

from . import CASES
from .report import heading, store, table
from .runner import BUDGET, CannotRun, Shape, run_case


def shape(text: str) -> Shape:
    """The sizes in "500,16,512"."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shape; write sizes with commas, as in 500,16,512"
        ) from None


def rounds(text: str) -> int:
    """A number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds; give 1 or more")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the subcommand takes."""
    standard = ", ".join(name for name, case in CASES.items() if case.standard)
    parser.add_argument("--case", action="append", choices=CASES, help=f"a case, may be repeated (default: {standard})")
    parser.add_argument("--all", action="store_true", help="every case, which takes some minutes")
    parser.add_argument("--shape", nargs="+", type=shape, metavar="T,B,N", help="sizes instead of the case's own")
    parser.add_argument(
        "--repeats", type=rounds, metavar="N", help=f"rounds (default: what fits {BUDGET:.0f} s a case)"
    )
    out = Path("spikeloom-bench.json")
    parser.add_argument("--out", type=Path, default=out, metavar="FILE.json", help=f"every sample (default: {out})")


def bench(arguments: argparse.Namespace) -> int:
    """Run what was asked for; 1 if a contestant disagreed with its reference."""
    out: Path = arguments.out
    if not out.resolve().parent.is_dir():
        raise CannotRun(f"--out got {out}; give the path of a file in a folder that exists")
    asked = [CASES[name] for name in arguments.case or ()]
    chosen = asked or [case for case in CASES.values() if case.standard or arguments.all]
    print(heading())
    results = []
    for case in chosen:
        shapes = arguments.shape or case.shapes
        for sizes in shapes:
            results.append(run_case(case, sizes, arguments.repeats, BUDGET / len(shapes)))
            print(f"\n{table(results[-1])}")
    store(results, out)
    print(f"\nevery sample is in {out}")
    return int(any(result.disagreeing for result in results))
