"""`python -m spikeloom demo | doctor | conformance`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .conformance import ALL, conformance
from .demo import CannotRun, demo
from .doctor import doctor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m spikeloom", description="Spiking neural networks in PyTorch, with fused kernels."
    )
    top.add_argument("--version", action="version", version=f"spikeloom {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    text = "train a small network on handwritten digits, time it, and plot the activity of its neurons"
    sub = commands.add_parser("demo", help=text, description=text)
    sub.add_argument("--out", type=Path, default=Path("spikeloom-demo.png"), metavar="FILE.png", help="plot file")
    sub.add_argument("--seed", type=int, default=0, help="seed of the weights and of the shuffling (default: 0)")
    sub.add_argument("--epochs", type=int, default=15, help=argparse.SUPPRESS)
    sub.set_defaults(run=lambda arguments: demo(arguments.out, arguments.epochs, arguments.seed))

    text = "show versions, devices, backends and the kernel cache, and try each backend"
    sub = commands.add_parser("doctor", help=text, description=text)
    sub.set_defaults(run=lambda arguments: doctor())

    text = "run networks here and in other frameworks that read NIR, and count the output values that differ"
    sub = commands.add_parser("conformance", help=text, description=text)
    sub.add_argument("frameworks", nargs="*", metavar="FRAMEWORK", help=f"{', '.join(ALL)} (default: all installed)")
    sub.add_argument("--out", type=Path, metavar="FILE.json", help="also store the table as JSON")
    sub.set_defaults(run=lambda arguments: conformance(arguments.frameworks, arguments.out))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; print errors in the user's arguments as a sentence."""

    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
