"""`python -m benchmarks`: measure speed on this machine. Results that disagree with their reference are not timed."""

import argparse
import sys
from collections.abc import Sequence

from .command import add_arguments, bench
from .result import CannotRun


def main(argv: Sequence[str] | None = None) -> int:
    """Run the requested cases; print errors in the user's arguments as a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed on this machine. Results that disagree with their reference are not timed.",
    )
    add_arguments(parser)
    try:
        return bench(parser.parse_args(argv))
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
