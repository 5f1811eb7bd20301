"""`python -m spikeloom bench`: runs cases, prints their tables, stores the samples."""

import argparse
from collections.abc import Callable
from pathlib import Path

from .case import CannotRun, Shape
from .cases import CASES
from .report import heading, store, table
from .runner import BUDGET, run_case


def shape(text: str) -> Shape:
    """The sizes in "500,16,512"."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shape; write sizes with commas, as in 500,16,512"
        ) from None


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of rounds; give 1 or more")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the subcommand takes."""
    standard = ", ".join(name for name, case in CASES.items() if case.standard)
    parser.add_argument("--case", action="append", choices=CASES, help=f"a case, may be repeated (default: {standard})")
    parser.add_argument("--shape", nargs="+", type=shape, metavar="T,B,N", help="sizes instead of the case's own")
    parser.add_argument(
        "--repeats", type=positive, metavar="N", help=f"rounds (default: what fits {BUDGET:.0f} s a case)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to store every sample")


def bench(arguments: argparse.Namespace) -> int:
    """Run what was asked for; 1 if a contestant disagreed with its reference."""
    out: Path | None = arguments.out
    if out and not out.resolve().parent.is_dir():
        raise CannotRun(f"--out got {out}; give the path of a file in a folder that exists")
    chosen = [CASES[name] for name in arguments.case] if arguments.case else [c for c in CASES.values() if c.standard]
    print(heading())
    results = []
    for case in chosen:
        shapes = arguments.shape or case.shapes
        for sizes in shapes:
            with Bar(case.name) as progress:
                result = run_case(case, sizes, arguments.repeats, BUDGET / len(shapes), progress)
            print(f"\n{table(case, result)}")
            results.append(result)
    if out:
        store(results, out)
        print(f"\nevery sample is in {out}")
    return int(any(result.disagreeing for result in results))


class Bar:
    """A progress bar over rounds, or nothing where tqdm is not installed."""

    def __init__(self, label: str):
        self.label = label
        self.bar: object = None

    def __enter__(self) -> Callable[[int, int], None]:
        try:
            from tqdm import tqdm
        except ImportError:
            return lambda done, total: None
        self.bar = bar = tqdm(desc=self.label, unit="round", leave=False, bar_format="{desc}: checking")

        def show(done: int, total: int) -> None:
            bar.bar_format, bar.total = None, total
            bar.update(done - bar.n)

        return show

    def __exit__(self, *error: object) -> None:
        close = getattr(self.bar, "close", None)
        if close:
            close()
