"""`python -m benchmarks`: measure speed on this machine. What disagrees with its reference is not timed."""

import argparse
import sys
from collections.abc import Sequence

from .command import add_arguments, bench
from .result import CannotRun


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases asked for; what goes wrong by the user's arguments is printed as a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed on this machine; what disagrees with its reference is not timed.",
    )
    add_arguments(parser)
    try:
        return bench(parser.parse_args(argv))
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
