"""`python -m benchmarks`: run cases, print their tables, store the samples, plot sweeps, update a page."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import CASES, ON_GPU, SUITE
from .device import DEVICES, on
from .memory import peaks
from .on_jax import SPYX
from .page import fill
from .plots import check_matplotlib, plot
from .report import QUIET, heading, table
from .result import CannotRun, Record, Result, Shape, store
from .runner import BUDGET, Case, run_case

STORED = Path("docs/benchmarks")
"""Where the runs for the pages are stored."""

SWEPT = ("SpikingJelly", SPYX)
"""Further libraries in sweeps. Those that step in Python perform similarly to snnTorch, and are left out."""

POINT = 1.0
"""Time limit for the timed rounds of one point of a sweep, in seconds."""


def shape(text: str) -> Shape:
    """Parse sizes such as "500,16,512"."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shape; write sizes with commas, as in 500,16,512"
        ) from None


def rounds(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds; pass 1 or more")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    standard = ", ".join(name for name, case in CASES.items() if case.standard)
    suite = ", ".join(case.name for case in SUITE)
    add = parser.add_argument
    add("--case", action="append", choices=CASES, help=f"a case; may be repeated (default: {standard})")
    add("--all", action="store_true", help="every case; takes some minutes")
    add("--peers", action="store_true", help="also SpikingJelly, Norse, Sinabs and spyx, if installed")
    add("--sweep", action="store_true", help="also sweep T, N and density, if the case has such an axis")
    add("--memory", action="store_true", help="also the peak memory, in separate processes (Linux)")
    add("--suite", action="store_true", help=f"all of these, for the cases of the benchmark page: {suite}")
    add("--shape", nargs="+", type=shape, metavar="T,B,N", help="sizes (default: those of the case)")
    gpu = ", ".join(case.name for case in ON_GPU)
    add("--device", choices=DEVICES, default="cpu", help=f"the device (default: cpu); cases for a GPU: {gpu}")
    add("--repeats", type=rounds, metavar="N", help=f"rounds (default: as many as fit {BUDGET:.0f} s per case)")
    out = Path("spikeloom-bench.json")
    add("--out", type=Path, default=out, metavar="FILE.json", help=f"file for all samples (default: {out})")
    add("--store", type=Path, metavar="DIR", help="folder for all samples, one file per case, and the plots of sweeps")
    add("--plot", type=Path, metavar="DIR_OR_FILE", help="plot the sweeps of each case to CASE.svg, or to this file")
    add(
        "--page",
        type=Path,
        nargs="+",
        metavar="FILE.md",
        help=f"update pages from {STORED} or --store; without other arguments, run nothing",
    )


def bench(arguments: argparse.Namespace) -> int:
    """Run the requested cases; return 1 if a contestant disagreed with its reference."""
    if arguments.page and not (arguments.case or arguments.suite or arguments.all):
        return fill_in(arguments)
    arguments.sweep |= arguments.suite or bool(arguments.plot)
    arguments.peers |= arguments.suite
    arguments.memory |= arguments.suite
    chosen = chosen_cases(arguments)
    check_places(arguments, chosen)
    print(heading())
    results = []
    for case in chosen:
        found = []
        for result in results_of(case, arguments):
            print(f"\n{table(result)}", flush=True)
            found.append(result)
        store_case(case, found, arguments)
        results += found
    fill_in(arguments)
    store(Record(results), arguments.out)
    print(f"\nall samples are in {arguments.out}")
    if noisy := [result for result in results if result.noisy]:
        print(f"{len(noisy)} of {len(results)} measurements are NOISY; {QUIET}.")
    return int(any(result.disagreeing for result in results))


def fill_in(arguments: argparse.Namespace) -> int:
    """Update the given pages."""
    for page in arguments.page or ():
        page.write_text(fill(page, arguments.store or STORED))
    return 0


def chosen_cases(arguments: argparse.Namespace) -> list[Case]:
    """The requested cases."""
    known = list(CASES) if arguments.device == "cpu" else [case.name for case in ON_GPU]
    if arguments.case:
        if unknown := [name for name in arguments.case if name not in known]:
            raise CannotRun(f"--device {arguments.device} got the case {unknown[0]}; pass one of {', '.join(known)}")
        return [CASES[name] for name in arguments.case]
    if arguments.suite:
        return [case for case in SUITE if case.name in known]
    if arguments.device != "cpu":
        return list(ON_GPU)
    return [case for case in CASES.values() if case.standard or arguments.all]


def check_places(arguments: argparse.Namespace, chosen: list[Case]) -> None:
    """Raise `CannotRun` for a missing device or an unwritable path, before anything is measured."""
    with on(arguments.device):
        pass
    if not arguments.out.resolve().parent.is_dir():
        raise CannotRun(f"--out got {arguments.out}; pass the path of a file in an existing folder")
    if arguments.store and not arguments.store.is_dir():
        raise CannotRun(f"--store got {arguments.store}; pass the path of an existing folder")
    if arguments.plot or (arguments.store and arguments.sweep):
        check_matplotlib()
    if not (place := arguments.plot):
        return
    swept = [case.name for case in chosen if case.sweeps]
    if not swept:
        raise CannotRun(f"--plot got cases without a sweep; pass one of {', '.join(c.name for c in SUITE if c.sweeps)}")
    if not place.is_dir() and (len(swept) > 1 or not place.resolve().parent.is_dir() or not place.suffix):
        raise CannotRun(f"--plot got {place} for {', '.join(swept)}; pass an existing folder, or a file for one case")


def results_of(case: Case, arguments: argparse.Namespace) -> Iterator[Result]:
    """Run the case at all its shapes; on request, also its memory at the first shape, and its sweeps."""
    shapes, measure = arguments.shape or case.shapes, partial(run_case, case, device=arguments.device)
    for number, sizes in enumerate(shapes):
        budget = BUDGET / len(shapes)
        result = measure(sizes, arguments.repeats, budget, peers=case.peers if arguments.peers else ())
        if arguments.memory and case.memory and number == 0 and arguments.device == "cpu":
            result = replace(result, memory=peaks(case, result))
        yield result
    for axis, points in case.sweeps.items() if arguments.sweep else ():
        for sizes in points:
            result = measure(sizes, arguments.repeats, POINT, peers=SWEPT if arguments.peers else ())
            yield replace(result, swept=axis, remarks="", notes={})


def store_case(case: Case, results: list[Result], arguments: argparse.Namespace) -> None:
    """Store and plot the results of one case, if requested."""
    swept = any(result.swept for result in results)
    if folder := arguments.store:
        name = case.name if arguments.device == "cpu" else f"{case.name}-{arguments.device}"
        store(Record(results), folder / f"{name}.json")
        if swept:
            plot(results, folder / f"{name}.svg")
    if swept and (place := arguments.plot):
        plot(results, place / f"{case.name}.svg" if place.is_dir() else place)
