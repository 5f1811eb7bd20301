"""`python -m spikeloom demo | doctor`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .demo import CannotRun, demo
from .doctor import doctor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m spikeloom", description="Spiking neurons for PyTorch, each one equation run in a fused kernel."
    )
    top.add_argument("--version", action="version", version=f"spikeloom {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    text = "train a small network on handwritten digits, time it, and draw what its neurons did"
    sub = commands.add_parser("demo", help=text, description=text)
    sub.add_argument("--out", type=Path, default=Path("spikeloom-demo.png"), metavar="FILE.png", help="the picture")
    sub.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the digits (default: 0)")
    sub.add_argument("--epochs", type=int, default=15, help=argparse.SUPPRESS)
    sub.set_defaults(run=lambda arguments: demo(arguments.out, arguments.epochs, arguments.seed))

    text = "show versions, devices, backends and the kernel cache, and try each backend"
    sub = commands.add_parser("doctor", help=text, description=text)
    sub.set_defaults(run=lambda arguments: doctor())
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what goes wrong by the user's arguments is told in a sentence."""
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
